"""The person's own stream: what it shows, and that it is nobody else's."""

import time
from functools import partial
from typing import Any

import pytest
import time_machine
from flask import Flask
from uuid_utils.compat import uuid7

from api import limits
from models.access.actor import Origin
from models.database import transaction
from models.operations import account_events
from models.operations.account_events import AccountAction
from tests.accounts import PASSWORD, Account, Mailbox, execute, fetch, post
from tests.api.test_limits import AppWith, address, assert_limited
from tests.factories import make_person
from tests.models.concurrency import raised, together

ROW = {"id", "action", "details", "count", "ip_address", "user_agent", "request_id", "created_at"}


@pytest.fixture
def account(app: Flask) -> Account:
    return Account(app)


def failures(account: Account) -> list[dict[str, Any]]:
    return [row for row in account.events() if row["action"] == "sign_in_failed"]


def guess(account: Account, **values: Any) -> None:
    body = {"email": account.email, "password": "a wrong password"}
    assert post(account.app, "/auth/login", body, **values).status_code == 401


def test_it_shows_what_happened_and_from_where(app: Flask, account: Account) -> None:
    post(
        app,
        "/auth/login",
        {"email": account.email, "password": PASSWORD},
        headers={"User-Agent": "A browser", "X-Request-Id": "mine"},
        environ_overrides={"REMOTE_ADDR": "2001:db8::7"},
    )
    newest, *older = account.events()
    assert set(newest) == ROW
    assert {key: newest[key] for key in ROW - {"id", "details", "created_at"}} == {
        "action": "signed_in",
        "count": 1,
        "ip_address": "2001:db8::7",
        "user_agent": "A browser",
        "request_id": "mine",
    }
    sessions = account.person.get("/me/sessions").json["items"]
    assert newest["details"]["session_id"] == sessions[0]["id"]
    assert [row["action"] for row in older] == ["signed_in", "registered"]


def test_it_is_paged_and_nobody_elses(app: Flask, account: Account) -> None:
    for _ in range(3):
        account.another_session()
    first = account.person.get("/me/activity?limit=2").json
    assert len(first["items"]) == 2
    rest = account.person.get("/me/activity", query_string={"cursor": first["next_cursor"]}).json
    assert [row["id"] for row in first["items"] + rest["items"]] == [row["id"] for row in account.events()]
    assert rest["next_cursor"] is None
    mine = {row["id"] for row in account.events()}
    assert not mine & {row["id"] for row in make_person(app).get("/me/activity").json["items"]}
    assert app.test_client().get("/api/v1/me/activity").status_code == 401


def test_each_end_of_a_session_is_told(account: Account) -> None:
    others = [account.another_session() for _ in range(3)]
    others[0].post("/auth/logout")
    listed = account.person.get("/me/sessions").json["items"]
    ended = next(row["id"] for row in listed if not row["current"])
    assert account.person.delete(f"/me/sessions/{ended}").status_code == 204
    for _ in range(2):
        assert account.person.delete("/me/sessions").status_code == 204  # the second ends nothing
    told = [(row["action"], row["details"]) for row in reversed(account.events())][-3:]
    assert [action for action, _ in told] == ["signed_out", "session_ended", "sessions_ended"]
    assert told[1][1] == {"session_id": ended}
    assert told[2][1] == {"sessions_ended": 1}


def test_a_changed_name_is_told_and_an_unchanged_one_is_not(account: Account) -> None:
    for _ in range(2):
        assert account.person.patch("/me", json={"name": "Lee"}).status_code == 200
    (event,) = [row for row in account.events() if row["action"] == "profile_updated"]
    assert event["details"] == {"changes": {"name": ["Kim", "Lee"]}}


def test_failed_sign_ins_are_summed_for_a_minute(account: Account) -> None:
    for _ in range(3):
        guess(account)
    assert [(row["count"], row["details"]) for row in failures(account)] == [(3, {"wrong": "password"})]
    with time_machine.travel(time.time() + 55):
        guess(account)
    assert [row["count"] for row in failures(account)] == [4]
    with time_machine.travel(time.time() + 61):
        guess(account)
    assert [row["count"] for row in failures(account)] == [1, 4]


def test_failed_sign_ins_from_elsewhere_are_another_row(account: Account) -> None:
    for address_ in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        guess(account, environ_overrides={"REMOTE_ADDR": address_})
    assert [(row["ip_address"], row["count"]) for row in failures(account)] == [
        ("192.0.2.2", 1),
        ("192.0.2.1", 2),
    ]


def test_a_wrong_code_is_told_apart_from_a_wrong_password(account: Account) -> None:
    account.enable_second_factor()
    guess(account)
    assert account.sign_in().status_code == 401  # asked for a code: nothing failed yet
    assert account.sign_in(code="000-wrong").status_code == 401
    assert [row["details"]["wrong"] for row in failures(account)] == ["code", "password"]


def test_guesses_at_one_moment_are_one_row(app: Flask) -> None:
    def record(email: str) -> None:
        with transaction() as session:
            account_events.record_failed_sign_in(session, email, origin=Origin("192.0.2.1"), wrong="password")

    for _ in range(15):
        person = make_person(app)
        assert not raised(together(*[partial(record, person.email)] * 6))
        told = person.get("/me/activity").json["items"]
        assert [row["count"] for row in told if row["action"] == "sign_in_failed"] == [6]


def test_an_address_that_nobody_has_leaves_no_row(app: Flask) -> None:
    before = fetch("SELECT count(*) FROM account_events")
    body = {"email": f"{uuid7().hex}@example.com", "password": PASSWORD}
    assert post(app, "/auth/login", body).status_code == 401
    assert fetch("SELECT count(*) FROM account_events") == before


def test_every_action_is_recorded(app: Flask) -> None:
    """One life with all that can happen to an account."""
    mailbox, account = Mailbox(), Account(app)
    person = account.person
    person.patch("/me", json={"name": "Lee"})
    post(app, "/auth/verify-email", {"token": mailbox.verification(account.email)})
    guess(account)
    account.another_session().post("/auth/logout")
    account.another_session()
    listed = person.get("/me/sessions").json["items"]
    person.delete(f"/me/sessions/{listed[0]['id']}")
    account.another_session()
    person.delete("/me/sessions")
    codes = account.enable_second_factor()
    person.post("/me/two-factor/recovery-codes", json={"code": codes[0]})
    execute("UPDATE second_factors SET last_step = 0 WHERE user_id = :id", id=person.id)
    person.post("/me/two-factor/disable", json={"password": PASSWORD, "code": account.device.now()})
    person.put("/me/password", json={"current_password": PASSWORD, "password": "another password"})
    post(app, "/auth/request-password-reset", {"email": account.email})
    post(app, "/auth/reset-password", {"token": mailbox.reset(account.email), "password": PASSWORD})
    for done in ("suspend", "reinstate"):
        ran = app.test_cli_runner().invoke(args=["user", done, account.email, "--reason", "a mistake"])
        assert ran.exit_code == 0, ran.output
    account.person = account.another_session()
    assert set(account.actions()) == {action.value for action in AccountAction}


LIMITED = [
    ("POST", "/auth/login"),
    ("POST", "/auth/register"),
    ("POST", "/auth/verify-email"),
    ("POST", "/auth/request-password-reset"),
    ("POST", "/auth/reset-password"),
    ("POST", "/me/verify-email"),
    ("PUT", "/me/password"),
    ("POST", "/me/two-factor"),
    ("POST", "/me/two-factor/confirm"),
    ("POST", "/me/two-factor/recovery-codes"),
    ("POST", "/me/two-factor/disable"),
]


def test_what_checks_a_secret_shares_one_limit_of_the_address(app_with: AppWith) -> None:
    app = app_with(rate_limit_auth=f"{len(LIMITED)} per minute")
    here, elsewhere = address(), address()

    def call(method: str, path: str, from_: str) -> Any:
        return app.test_client().open(
            f"/api/v1{path}", method=method, json={}, environ_overrides={"REMOTE_ADDR": from_}
        )

    assert {call(method, path, here).status_code for method, path in LIMITED} <= {401, 422}
    for method, path in LIMITED:
        assert_limited(call(method, path, here))
    assert call("GET", "/me/two-factor", here).status_code == 401  # reading is as any call
    assert call("POST", "/me/two-factor", elsewhere).status_code == 401
    assert limits.limiter.enabled
