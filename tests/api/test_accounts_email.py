"""Proving to read the address of one's account."""

from functools import partial

import pytest
from flask import Flask

from models.access.credentials import hash_secret
from tests.accounts import Account, Mailbox, execute, fetch, post
from tests.factories import Answer, make_person
from tests.models.concurrency import together


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def account(app: Flask, mailbox: Mailbox) -> Account:
    return Account(app)


def verify(app: Flask, token: str) -> Answer:
    return post(app, "/auth/verify-email", {"token": token})


def is_verified(account: Account) -> bool:
    verified: bool = account.person.get("/me").json["email_verified"]
    return verified


def assert_bad_token(answer: Answer) -> None:
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert list(answer.json["errors"]) == ["token"]


def test_registering_sends_a_token_that_verifies_the_address_once(
    app: Flask, account: Account, mailbox: Mailbox
) -> None:
    assert not is_verified(account)
    token = mailbox.verification(account.email)
    assert verify(app, token).status_code == 204
    assert is_verified(account)
    assert_bad_token(verify(app, token))
    assert account.actions() == ["registered", "signed_in", "email_verified"]
    assert mailbox.of(account.email)[1:] == []


def test_registering_that_fails_sends_nothing(app: Flask, account: Account, mailbox: Mailbox) -> None:
    assert len(mailbox.of(account.email)) == 1
    body = {"email": account.email.upper(), "password": "another password", "name": "Eve"}
    assert post(app, "/auth/register", body).status_code == 409
    assert len(mailbox.of(account.email)) == 1
    assert fetch("SELECT FROM mails") == []


def test_the_token_is_stored_as_a_hash_alone(account: Account, mailbox: Mailbox) -> None:
    token = mailbox.verification(account.email)
    ((row,),) = fetch(
        "SELECT row_to_json(t)::text FROM mailed_tokens t WHERE user_id = :id", id=account.person.id
    )
    assert token not in row
    assert token.removeprefix("ahm_") not in row
    assert hash_secret(token).hex() in row


@pytest.mark.parametrize(("moment", "good"), [("+ interval '30 s'", True), ("", False)])
def test_a_token_is_good_until_it_expires(
    app: Flask, account: Account, mailbox: Mailbox, moment: str, good: bool
) -> None:
    token = mailbox.verification(account.email)
    execute(f"UPDATE mailed_tokens SET expires_at = now() {moment} WHERE user_id = :id", id=account.person.id)
    answer = verify(app, token)
    if good:
        assert answer.status_code == 204
    else:
        assert_bad_token(answer)
    assert is_verified(account) is good


def test_a_token_lasts_for_three_days(account: Account, mailbox: Mailbox) -> None:
    mailbox.verification(account.email)
    lasts = "SELECT extract(day FROM expires_at - created_at) FROM mailed_tokens WHERE user_id = :id"
    assert fetch(lasts, id=account.person.id) == [(3,)]


@pytest.mark.parametrize("token", ["x", "ahm_" + "x" * 43, "ahq_" + "x" * 43, "ä€😀"])
def test_what_is_no_token_is_refused(app: Flask, token: str) -> None:
    assert_bad_token(verify(app, token))


def test_a_token_for_something_else_is_refused(app: Flask, account: Account, mailbox: Mailbox) -> None:
    post(app, "/auth/request-password-reset", {"email": account.email})
    assert_bad_token(verify(app, mailbox.reset(account.email)))
    assert_bad_token(verify(app, account.person.token))
    answer = post(
        app,
        "/auth/reset-password",
        {"token": mailbox.verification(account.email), "password": "another password"},
    )
    assert_bad_token(answer)
    assert account.sign_in().status_code == 200


def test_one_asks_for_the_mail_again_until_the_address_is_verified(
    app: Flask, account: Account, mailbox: Mailbox
) -> None:
    for _ in range(2):
        assert account.person.post("/me/verify-email").status_code == 204
    tokens = mailbox.tokens(account.email, "Verify")
    assert len(set(tokens)) == 3
    assert verify(app, tokens[0]).status_code == 204  # the earlier ones stay good,
    assert_bad_token(verify(app, tokens[1]))  # and using one ends the others
    assert account.person.post("/me/verify-email").status_code == 204
    assert fetch("SELECT FROM mails") == []
    assert len(mailbox.of(account.email)) == 3


def test_nobodys_mailbox_is_flooded(account: Account, mailbox: Mailbox) -> None:
    for _ in range(10):
        assert account.person.post("/me/verify-email").status_code == 204
    assert len(mailbox.of(account.email)) == 5
    execute(
        "UPDATE mailed_tokens SET created_at = now() - interval '61 min' WHERE user_id = :id",
        id=account.person.id,
    )
    assert account.person.post("/me/verify-email").status_code == 204
    assert len(mailbox.of(account.email)) == 6


def test_of_many_at_once_one_uses_the_token(app: Flask, mailbox: Mailbox) -> None:
    for _ in range(10):
        account = Account(app)
        token = mailbox.verification(account.email)
        answers = together(*[partial(verify, app, token)] * 4)
        assert sorted(answer.status_code for answer in answers) == [204, 422, 422, 422]
        assert account.actions().count("email_verified") == 1


def test_a_deleted_persons_mail_is_not_sent(app: Flask, mailbox: Mailbox) -> None:
    person = make_person(app)
    execute("DELETE FROM users WHERE id = :id", id=person.id)
    assert mailbox.of(person.email) == []
