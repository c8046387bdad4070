"""What time ends of an account: each task twice, and once after it died before its commit."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.operations import account_events, mailed_tokens, mails
from tests.accounts import execute, fetch
from tests.factories import Person, make_person
from tests.models.concurrency import FellOver, dying
from workers import maintenance


@pytest.fixture
def person(app: Flask) -> Person:
    return make_person(app)


def runs_to(
    task: Callable[[], None],
    operations: Any,
    left: Callable[[], list[str]],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = left()
    assert before != expected
    with monkeypatch.context() as patched:
        patched.setattr(operations, "expire", dying(operations.expire))
        with pytest.raises(FellOver):
            task()
    assert left() == before
    for _ in range(2):
        task()
        assert left() == expected


def test_tokens_that_are_over_go(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (0, 60):
        execute(
            "INSERT INTO mailed_tokens (token_hash, user_id, purpose, expires_at) "
            "VALUES (:hash, :id, 'verify_email', now() + make_interval(secs => :seconds))",
            hash=uuid7().bytes,
            id=person.id,
            seconds=seconds,
        )

    def left() -> list[str]:
        return ["" for _ in fetch("SELECT FROM mailed_tokens WHERE user_id = :id", id=person.id)]

    runs_to(maintenance.expire_mailed_tokens, mailed_tokens, left, [""], monkeypatch)


def test_an_accounts_events_are_kept_for_400_days(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for action, age in (("old", "400 days 1 minute"), ("young", "400 days -1 minute")):
        execute(
            "INSERT INTO account_events (id, user_id, action, details, created_at) "
            "VALUES (:event, :id, :action, '{}', now() - CAST(:age AS interval))",
            event=uuid7(),
            id=person.id,
            action=action,
            age=age,
        )

    def left() -> list[str]:
        rows = fetch(
            "SELECT action FROM account_events WHERE user_id = :id AND action IN ('old', 'young') ORDER BY 1",
            id=person.id,
        )
        return [row.action for row in rows]

    runs_to(maintenance.expire_account_events, account_events, left, ["young"], monkeypatch)


def test_mails_that_were_given_up_go_after_a_month(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, age in (("old", "30 days 1 minute"), ("young", "30 days -1 minute")):
        execute(
            "INSERT INTO mails (id, kind, user_id, failed_at) VALUES (:mail, :kind, :id, now() - CAST(:age AS interval))",
            mail=uuid7(),
            kind=kind,
            id=person.id,
            age=age,
        )

    def left() -> list[str]:
        rows = fetch(
            "SELECT kind FROM mails WHERE user_id = :id AND failed_at IS NOT NULL ORDER BY 1", id=person.id
        )
        return [row.kind for row in rows]

    runs_to(maintenance.expire_failed_mails, mails, left, ["young"], monkeypatch)
