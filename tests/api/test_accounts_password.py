"""Changing a password, and resetting one that was forgotten."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.access import passwords
from models.database import engine
from tests.accounts import PASSWORD, Account, Mailbox, execute, fetch, post
from tests.factories import Answer, Person
from tests.models.concurrency import together

NEW = "another password"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def account(app: Flask, mailbox: Mailbox) -> Account:
    return Account(app)


def ask(app: Flask, email: str) -> Answer:
    return post(app, "/auth/request-password-reset", {"email": email})


def reset(app: Flask, token: str, password: str = NEW) -> Answer:
    return post(app, "/auth/reset-password", {"token": token, "password": password})


def change(person: Person, **values: Any) -> Answer:
    return person.put("/me/password", json={"current_password": PASSWORD, "password": NEW, **values})


def assert_invalid(answer: Answer, field: str) -> None:
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert list(answer.json["errors"]) == [field]


def test_a_forgotten_password_is_reset_by_mail(app: Flask, account: Account, mailbox: Mailbox) -> None:
    other = account.another_session()
    assert (ask(app, account.email).status_code, ask(app, account.email).json) == (202, {})
    token = mailbox.reset(account.email)
    assert reset(app, token).status_code == 204
    assert [person.get("/me").status_code for person in (account.person, other)] == [401, 401]
    assert account.sign_in(PASSWORD).status_code == 401
    account.person = account.another_session(password=NEW)
    assert account.person.get("/me").json["email_verified"]
    (event,) = [row for row in account.events() if row["action"] == "password_reset"]
    assert event["details"] == {"sessions_ended": 2}
    assert "Your password was changed" in [mail["Subject"] for mail in mailbox.of(account.email)]


def test_a_token_works_once_and_ends_the_others(app: Flask, account: Account, mailbox: Mailbox) -> None:
    for _ in range(2):
        ask(app, account.email)
    first, second = mailbox.tokens(account.email, "Reset")
    assert reset(app, second).status_code == 204
    for token in (first, second):
        assert_invalid(reset(app, token, "a third password"), "token")
    assert account.sign_in(NEW).status_code == 200


@pytest.mark.parametrize(("moment", "good"), [("+ interval '30 s'", True), ("", False)])
def test_a_token_is_good_until_it_expires(
    app: Flask, account: Account, mailbox: Mailbox, moment: str, good: bool
) -> None:
    ask(app, account.email)
    token = mailbox.reset(account.email)
    execute(f"UPDATE mailed_tokens SET expires_at = now() {moment} WHERE user_id = :id", id=account.person.id)
    answer = reset(app, token)
    if good:
        assert answer.status_code == 204
    else:
        assert_invalid(answer, "token")
    assert account.sign_in(NEW if good else PASSWORD).status_code == 200


def test_a_token_lasts_for_an_hour(app: Flask, account: Account, mailbox: Mailbox) -> None:
    ask(app, account.email)
    mailbox.reset(account.email)
    lasts = "SELECT expires_at - created_at = '1 hour' FROM mailed_tokens WHERE user_id = :id AND purpose = 'reset_password'"
    assert fetch(lasts, id=account.person.id) == [(True,)]


def test_a_bad_token_costs_no_hashing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def hash_password(password: str) -> str:
        hashed.append(password)
        return ""

    monkeypatch.setattr("api.passwords.hash_password", hash_password)
    assert_invalid(reset(app, "ahm_" + "x" * 43), "token")
    assert hashed == []


def test_an_unknown_address_is_answered_like_a_known_one(
    app: Flask, account: Account, mailbox: Mailbox
) -> None:
    unknown = f"{uuid7().hex}@example.com"
    mailbox.of(account.email)
    answers = [ask(app, email) for email in (account.email, unknown)]
    told = [(each.status_code, each.data, {**each.headers, "X-Request-Id": None}) for each in answers]
    assert told[0] == told[1]
    assert answers[0].data == b"{}"
    # What was done is the same too, save the address.
    rows = fetch("SELECT kind, address, user_id, invitation_id, attempts FROM mails ORDER BY id")
    assert rows == [("reset_password", email, None, None, 0) for email in (account.email, unknown)]
    assert mailbox.of(unknown) == []
    assert len(mailbox.tokens(account.email, "Reset")) == 1
    assert fetch("SELECT FROM mails") == []  # both are done with


@pytest.mark.parametrize(
    ("stored", "typed"),
    [
        ("straße{}@example.com", "strasse{}@example.com"),
        ("kim{}@example.com", "\uff4bim{}@example.com"),  # full width
        ("mike{}@example.com", "MI\u212aE{}@example.com"),  # the Kelvin sign
        ("kim{}@o\ufb03ce.example", "kim{}@office.example"),  # a ligature
    ],
)
def test_a_reset_goes_to_the_address_of_the_account_and_never_to_the_one_typed(
    app: Flask, mailbox: Mailbox, stored: str, typed: str
) -> None:
    """Two spellings that normalise alike may be two mailboxes of two people."""
    unique = uuid7().hex
    account = Account(app, email=stored.format(unique))
    typed = typed.format(unique)
    assert ask(app, typed).status_code == 202
    assert mailbox.of(typed) == []
    assert reset(app, mailbox.reset(account.email)).status_code == 204
    assert account.sign_in(NEW).status_code == 200


def test_of_many_at_once_one_resets(app: Flask, mailbox: Mailbox) -> None:
    for _ in range(10):
        account = Account(app)
        ask(app, account.email)
        token = mailbox.reset(account.email)
        tries = [f"password number {number}" for number in range(4)]
        answers = together(*[partial(reset, app, token, each) for each in tries])
        assert sorted(answer.status_code for answer in answers) == [204, 422, 422, 422]
        won = tries[[answer.status_code for answer in answers].index(204)]
        assert [account.sign_in(each).status_code for each in tries] == [
            200 if each == won else 401 for each in tries
        ]


def test_no_sign_in_by_the_old_password_outlives_a_change(app: Flask, mailbox: Mailbox) -> None:
    for _ in range(15):
        account = Account(app)
        results = together(partial(change, account.person), account.sign_in, account.sign_in)
        assert results[0].status_code == 204
        for answer in results[1:]:
            if answer.status_code == 200:
                token = answer.json["token"]
                assert Person(app, account.person.id, "", "", token).get("/me").status_code == 401
        assert account.person.get("/me").status_code == 200


def test_a_change_and_a_reset_at_once_both_come_to_an_end(app: Flask, mailbox: Mailbox) -> None:
    for _ in range(10):
        account = Account(app)
        ask(app, account.email)
        token = mailbox.reset(account.email)
        results = together(partial(change, account.person), partial(reset, app, token, "a third password"))
        statuses = [answer.status_code for answer in results]
        # Whoever came first ended the other's way in.
        assert statuses in ([204, 422], [401, 204], [422, 204])
        assert account.sign_in(NEW if statuses[0] == 204 else "a third password").status_code == 200


def test_changing_the_password_ends_all_other_sessions(
    app: Flask, account: Account, mailbox: Mailbox
) -> None:
    other, bystander = account.another_session(), Account(app)
    ask(app, account.email)
    token = mailbox.reset(account.email)
    assert change(account.person).status_code == 204
    assert [person.get("/me").status_code for person in (account.person, other)] == [200, 401]
    assert bystander.person.get("/me").status_code == 200
    assert [account.sign_in(password).status_code for password in (PASSWORD, NEW)] == [401, 200]
    assert_invalid(reset(app, token, "a third password"), "token")
    (event,) = [row for row in account.events() if row["action"] == "password_changed"]
    assert event["details"] == {"sessions_ended": 1}
    assert [mail["Subject"] for mail in mailbox.of(account.email)][-1] == "Your password was changed"


def test_changing_the_password_needs_the_present_one(account: Account, mailbox: Mailbox) -> None:
    other = account.another_session()
    assert_invalid(change(account.person, current_password="a wrong password"), "current_password")
    assert other.get("/me").status_code == 200
    assert account.sign_in().status_code == 200
    assert "password_changed" not in account.actions()
    assert change(account.person, current_password=PASSWORD).status_code == 204


@pytest.mark.parametrize(("length", "good"), [(7, False), (8, True), (200, True), (201, False)])
def test_a_new_password_has_the_length_of_one(
    app: Flask, account: Account, mailbox: Mailbox, length: int, good: bool
) -> None:
    ask(app, account.email)
    token = mailbox.reset(account.email)
    changed = change(account.person, password="x" * length)
    assert changed.status_code == (204 if good else 422)
    if not good:
        assert_invalid(changed, "password")
        assert_invalid(reset(app, token, "x" * length), "password")
        assert reset(app, token).status_code == 204  # it was not used up


def test_nobody_changes_a_password_without_signing_in(app: Flask) -> None:
    answer: Answer = app.test_client().put("/api/v1/me/password", json={})
    assert (answer.status_code, answer.json["code"]) == (401, "unauthenticated")


def test_a_reset_under_an_idempotency_key_is_carried_out_once(
    app: Flask, account: Account, mailbox: Mailbox
) -> None:
    ask(app, account.email)
    token = mailbox.reset(account.email)
    headers = {"Idempotency-Key": uuid7().hex}
    body = {"token": token, "password": NEW}
    answers = [post(app, "/auth/reset-password", body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [204, 204]
    assert "Idempotency-Replayed" in answers[1].headers
    assert_invalid(reset(app, token), "token")


def test_no_connection_waits_for_the_hashing(
    app: Flask, account: Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an Idempotency-Key too, whose claim holds a lock of the transaction."""
    pool: Any = engine().pool
    before = pool.checkedout()  # by other threads
    checked_out = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            checked_out.append(pool.checkedout() - before)
            return function(*arguments)

        return run

    for module, name in (
        ("users", "hash_password"),
        ("users", "verify_password"),
        ("hashing", "verify_password"),
        ("passwords", "hash_password"),
    ):
        monkeypatch.setattr(f"api.{module}.{name}", watched(getattr(passwords, name)))
    ask(app, account.email)
    token, headers = mailbox.reset(account.email), {"Idempotency-Key": uuid7().hex}
    new = {"email": f"{uuid7().hex}@example.com", "password": PASSWORD, "name": "Kim"}
    assert post(app, "/auth/register", new, headers=headers).status_code == 201
    assert account.sign_in().status_code == 200
    begun = account.person.post("/me/two-factor", json={"password": PASSWORD}, headers=headers)
    assert begun.status_code == 201
    answer = post(app, "/auth/reset-password", {"token": token, "password": NEW}, headers=headers)
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")  # the key is register's
    assert reset(app, token, PASSWORD).status_code == 204
    account.person = account.another_session()
    assert change(account.person).status_code == 204
    assert checked_out == [0] * 8


def test_a_second_factor_of_someone_who_never_proved_the_address_goes_with_a_reset(
    app: Flask, account: Account, mailbox: Mailbox
) -> None:
    """Else whoever registers a stranger's address first could lock them out for ever."""
    account.enable_second_factor()
    ask(app, account.email)
    assert reset(app, mailbox.reset(account.email)).status_code == 204
    account.person = account.another_session(password=NEW)
    assert "two_factor_disabled" in account.actions()


def test_a_second_factor_of_someone_who_proved_the_address_stays(
    app: Flask, account: Account, mailbox: Mailbox
) -> None:
    post(app, "/auth/verify-email", {"token": mailbox.verification(account.email)})
    account.enable_second_factor()
    ask(app, account.email)
    assert reset(app, mailbox.reset(account.email)).status_code == 204
    answer = account.sign_in(NEW)
    assert (answer.status_code, answer.json["code"]) == (401, "second_factor_required")
