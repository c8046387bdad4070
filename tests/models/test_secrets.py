"""What must not be kept or shown: tokens and passwords."""

import base64
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from models.access import passwords
from models.access.credentials import TOKEN_PREFIX, Credential, new_token
from models.access.emails import normalize_email
from models.access.passwords import hash_password, verify_password
from models.database import transaction
from models.errors import EmailTaken
from models.operations import users
from tests.factories import make_person


def test_a_token_is_stored_as_a_hash_alone(app: Flask) -> None:
    person = make_person(app)
    random = person.token.removeprefix(TOKEN_PREFIX)
    raw = base64.urlsafe_b64decode(random + "=")
    with transaction() as session:
        row = session.execute(
            text("SELECT row_to_json(s)::text FROM sessions s WHERE user_id = :id"), {"id": person.id}
        ).scalar_one()
    for form in (person.token, random, person.token.encode().hex(), random.encode().hex(), raw.hex()):
        assert form not in row
    assert person.credential.hash.hex() in row


def test_tokens_are_random_and_recognisable() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("ahq_") and len(token) == 4 + 43 for token in tokens)


def test_no_repr_shows_a_credentials_secret() -> None:
    credential = Credential("ahq_hidden")
    for shown in (repr(credential), str(credential), f"{credential}", repr([credential])):
        assert "hidden" not in shown


def test_passwords_are_argon2id_with_rfc_9106s_low_memory_parameters() -> None:
    stored = hash_password("correct horse")
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert "correct" not in stored
    assert stored != hash_password("correct horse")
    assert verify_password(stored, "correct horse")
    assert not verify_password(stored, "correct hors")


@pytest.mark.parametrize("password", ["nobody has this password", "", "x"])
def test_without_a_stored_hash_it_says_no_and_takes_as_long(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    hasher = passwords._hasher

    class Spy:
        def verify(self, stored: str, given: str) -> bool:
            verified.append(stored.rpartition("$")[0].rpartition("$")[0])
            return hasher.verify(stored, given)

        def __getattr__(self, name: str) -> Any:
            return getattr(hasher, name)

    monkeypatch.setattr(passwords, "_hasher", Spy())
    assert not verify_password(None, password)
    assert not verify_password("", password)
    assert verified == ["$argon2id$v=19$m=65536,t=3,p=4"] * 2


@pytest.mark.parametrize("stored", ["no password", "$argon2id$v=19$m=65536,t=3,p=4$broken", "$2b$12$abc"])
def test_a_hash_that_is_none_says_no(stored: str) -> None:
    assert not verify_password(stored, stored)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("kim@example.com", "  KIM@Example.COM ", True),
        ("straße@example.com", "STRASSE@example.com", True),
        ("kim@example.com", "kim@example.com", True),
        ("é@example.com", "e\u0301@example.com", True),
        ("kim@example.com", "kim+1@example.com", False),
        ("kim@example.com", "k.im@example.com", False),
    ],
)
def test_two_spellings_of_an_address(one: str, other: str, same: bool) -> None:
    assert (normalize_email(one) == normalize_email(other)) is same


def test_an_address_is_taken_in_any_spelling_and_kept_as_written(app: Flask) -> None:
    person = make_person(app, "Ann")
    with pytest.raises(EmailTaken), transaction() as session:
        users.register(session, email=f" {person.email.upper()} ", name="Other", password_hash="x")
    with transaction() as session:
        user = users.register(session, email=f" Bo{person.email} ", name="Bo", password_hash="x")
    assert (user.email, user.email_normalized) == (f"Bo{person.email}", f"bo{person.email}")
