"""api.metering's group commit: exact under threads, in few commits, and never free."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from api import metering
from api.metering import CallCounter
from models.database import transaction
from models.errors import Unavailable
from models.operations import usage
from models.operations.usage import Caller
from models.queries import usage as queries
from tests.factories import TeamSetting, fold, make_team
from tests.models.concurrency import raised, together


def calls(team: TeamSetting) -> int:
    today = datetime.now(UTC).date()
    with transaction() as session:
        return queries.total(
            session, team.owner.enter(session, team.id), since=today.replace(day=1), until=today
        ).api_calls


@pytest.fixture
def counter() -> CallCounter:
    return CallCounter()


def test_threads_share_commits_and_every_call_counts(
    app: Flask, team: TeamSetting, counter: CallCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    teams = [team, make_team(app, roles=())]
    before = [calls(one) for one in teams]
    commits: list[str] = []

    def slowly(session: Session, counted: Any, *, batch: str) -> None:
        commits.append(batch)
        time.sleep(0.01)  # as a disk would
        usage_count(session, counted, batch=batch)

    usage_count = usage.count_api_calls
    monkeypatch.setattr(usage, "count_api_calls", slowly)

    def call() -> None:
        for number in range(20):
            counter.count(Caller(teams[number % 2].id))

    assert raised(together(*[call] * 16)) == []
    assert [calls(one) for one in teams] == [number + 160 for number in before]
    assert len(commits) == len(set(commits)) < 160
    fold()
    assert [calls(one) for one in teams] == [number + 160 for number in before]


def test_a_call_is_committed_when_count_returns(team: TeamSetting, counter: CallCounter) -> None:
    before = calls(team)
    for number in range(1, 6):
        counter.count(Caller(team.id))
        assert calls(team) == before + number


@contextmanager
def losing_the_answer(failures: list[int]) -> Iterator[Session]:
    """Commits; as often as `failures` says, the answer of that never arrives."""
    with transaction() as session:
        yield session
    if failures:
        failures.pop()
        raise Unavailable("the connection broke while it committed")


def test_a_lost_answer_is_asked_for_again_and_counted_once(
    team: TeamSetting, counter: CallCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = calls(team)
    monkeypatch.setattr(metering, "RETRY_PAUSE_S", 0.01)
    failures = [1, 1]
    monkeypatch.setattr(metering, "single_statements", lambda: losing_the_answer(failures))
    assert raised(together(*[lambda: counter.count(Caller(team.id))] * 5)) == []
    assert failures == []
    assert calls(team) == before + 5


def away() -> AbstractContextManager[Session]:
    raise Unavailable("away")


def test_without_a_database_it_is_unavailable_within_its_bound_and_recovers(
    team: TeamSetting, counter: CallCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = calls(team)
    monkeypatch.setattr(metering, "RETRY_FOR_S", 0.2)
    with monkeypatch.context() as patched:
        patched.setattr(metering, "single_statements", away)
        started = time.monotonic()
        assert raised(together(*[lambda: counter.count(Caller(team.id))] * 5)) == [Unavailable] * 5
        assert time.monotonic() - started < 2
    assert calls(team) == before
    counter.count(Caller(team.id))
    assert calls(team) == before + 1


def test_a_batch_that_can_not_be_counted_ends_alone(team: TeamSetting, counter: CallCounter) -> None:
    with pytest.raises(Unavailable):
        counter.count(Caller(uuid7()))  # no team, so a foreign key says no
    before = calls(team)
    counter.count(Caller(team.id))
    assert calls(team) == before + 1


def test_whoever_waits_too_long_is_told(
    team: TeamSetting, counter: CallCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "LONGEST_WAIT_S", 0.05)
    released = threading.Event()
    monkeypatch.setattr(usage, "count_api_calls", lambda *_, **__: released.wait(30))
    with pytest.raises(Unavailable):
        counter.count(Caller(team.id))
    assert not released.is_set()
    released.set()


def test_an_uncounted_call_is_not_answered(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{team.path}/workspaces"
    assert team.owner.get(path).status_code == 200

    class Broken:
        def count(self, _team_id: object) -> None:
            raise Unavailable("The call could not be counted.")

    monkeypatch.setattr(metering, "_counter", Broken)
    refused = team.owner.get(path)
    assert (refused.status_code, refused.json["code"]) == (503, "unavailable")
    assert "items" not in refused.json
