"""Accounts: registering, signing in and out, one's name and one's sessions."""

from typing import Any

import pytest
from argon2 import Type
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from uuid_utils.compat import uuid7

import api.users
from models.access import passwords
from models.access.credentials import hash_secret
from models.database import transaction
from models.tables import User, UserSession
from tests.api.conftest import Post
from tests.factories import Answer, Person, make_person

PASSWORD = "a good password"
HASHER = passwords._hasher
"""The product's own, before tests/api/conftest.py turns its cost down."""


def account(**values: Any) -> dict[str, Any]:
    return {"email": f"{uuid7().hex}@example.com", "password": PASSWORD, "name": "Kim", **values}


def me(client: FlaskClient, token: str) -> Answer:
    return client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})


def test_registering_signs_in(client: FlaskClient, post: Post) -> None:
    given = account(name="  Kim Ō  ")
    answer = post("/auth/register", json=given)
    assert answer.status_code == 201
    assert set(answer.json) == {"user", "token", "expires_at"}
    assert set(answer.json["user"]) == {"id", "email", "email_verified", "name", "created_at"}
    assert (answer.json["user"]["email"], answer.json["user"]["name"]) == (given["email"], "Kim Ō")
    assert answer.json["expires_at"] > answer.json["user"]["created_at"]
    assert answer.json["expires_at"].endswith("Z")
    assert me(client, answer.json["token"]).json == answer.json["user"]


def test_signing_in_answers_as_registering_did(client: FlaskClient, post: Post) -> None:
    given = account()
    registered = post("/auth/register", json=given)
    signed_in = post("/auth/login", json={"email": given["email"], "password": PASSWORD})
    assert signed_in.status_code == 200
    assert signed_in.json["user"] == registered.json["user"]
    assert signed_in.json["token"] != registered.json["token"]
    for answer in (registered, signed_in):
        assert me(client, answer.json["token"]).status_code == 200


def test_no_secret_is_stored(post: Post) -> None:
    given = account()
    token = post("/auth/register", json=given).json["token"]
    with transaction() as session:
        user = session.scalars(select(User).where(User.email == given["email"])).one()
        (opened,) = session.scalars(select(UserSession).where(UserSession.user_id == user.id))
    assert user.password_hash.startswith("$argon2id$")
    assert opened.token_hash == hash_secret(token)
    assert token.encode() not in opened.token_hash


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("Kim.{}@Example.COM", "kim.{}@example.com"),
        ("ångström{}@example.com", "A\u030aNGSTRO\u0308M{}@example.com"),
        ("straße{}@example.com", "STRASSE{}@example.com"),
        ("\uff4b\uff49\uff4d{}@example.com", "kim{}@example.com"),  # full width
        ("kim{}@bücher.example", "kim{}@BÜCHER.example"),
    ],
)
def test_spellings_of_one_address_are_one_account(post: Post, first: str, again: str) -> None:
    unique = uuid7().hex
    first, again = first.format(unique), again.format(unique)
    registered = post("/auth/register", json=account(email=first))
    assert (registered.status_code, registered.json["user"]["email"]) == (201, first)
    taken = post("/auth/register", json=account(email=again, password="another password"))
    assert (taken.status_code, taken.json["code"]) == (409, "email_taken")
    signed_in = post("/auth/login", json={"email": f" {again} ", "password": PASSWORD})
    assert (signed_in.status_code, signed_in.json["user"]) == (200, registered.json["user"])


def test_different_addresses_are_different_accounts(post: Post) -> None:
    given = account(email=f"kim+a.{uuid7().hex}@example.com")
    assert post("/auth/register", json=given).status_code == 201
    for other in (given["email"].replace("+a", ""), given["email"].replace("+a.", "+a")):
        assert post("/auth/register", json=account(email=other)).status_code == 201


def test_an_unknown_address_is_answered_like_a_wrong_password(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = account()
    assert post("/auth/register", json=given).status_code == 201
    hashes = []

    def verify(stored: str | None, password: str) -> bool:
        hashes.append(stored)
        return passwords.verify_password(stored, password)

    monkeypatch.setattr(api.users, "verify_password", verify)
    answers = [
        post("/auth/login", json={"email": email, "password": "a wrong password"})
        for email in (given["email"], f"nobody-{given['email']}", "no address", "😀")
    ]
    told = [(each.status_code, {**each.json, "request_id": None}) for each in answers]
    assert told[0][0] == 401
    assert told[0][1]["code"] == "unauthenticated"
    assert all(each == told[0] for each in told)
    assert [stored is None for stored in hashes] == [False, True, True, True]
    right = post("/auth/login", json={"email": given["email"], "password": PASSWORD})
    assert right.status_code == 200


def test_passwords_cost_what_rfc_9106_wants_where_memory_is_scarce() -> None:
    assert (HASHER.type, HASHER.time_cost, HASHER.memory_cost, HASHER.parallelism) == (Type.ID, 3, 65_536, 4)
    assert (HASHER.hash_len, HASHER.salt_len) == (32, 16)


def test_argon2_runs_for_an_unknown_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = passwords.hash_password("a password")
    verified = []
    hasher = passwords._hasher

    class Recording:
        def verify(self, hash_: str, password: str) -> bool:
            verified.append(hash_)
            return hasher.verify(hash_, password)

        hash = hasher.hash

    monkeypatch.setattr(passwords, "_hasher", Recording())
    assert passwords.verify_password(stored, "a password")
    assert not passwords.verify_password(stored, "another")
    assert not passwords.verify_password(None, "nobody has this password")
    # The same kind and the same cost, so the same time.
    assert len({hash_.rsplit("$", 2)[0] for hash_ in verified}) == 1
    assert len(verified) == 3


def test_a_password_counts_to_the_last_character(post: Post) -> None:
    given = account(password=" pass wörd ")
    assert post("/auth/register", json=given).status_code == 201
    for password, status in ((" pass wörd ", 200), ("pass wörd", 401), (" PASS WÖRD ", 401)):
        answer = post("/auth/login", json={"email": given["email"], "password": password})
        assert answer.status_code == status


def test_signing_out_ends_this_session_alone(app: Flask, client: FlaskClient, post: Post) -> None:
    given = account()
    tokens = [post("/auth/register", json=given).json["token"]]
    tokens.append(post("/auth/login", json=_credentials(given)).json["token"])
    out = client.post("/api/v1/auth/logout", headers={"Authorization": f"Bearer {tokens[0]}"})
    assert (out.status_code, out.data) == (204, b"")
    assert [me(client, token).status_code for token in tokens] == [401, 200]
    again = client.post("/api/v1/auth/logout", headers={"Authorization": f"Bearer {tokens[0]}"})
    assert again.status_code == 401


def test_one_changes_ones_name(app: Flask) -> None:
    person = make_person(app)
    renamed = person.patch("/me", json={"name": " Kim the Second "})
    assert (renamed.status_code, renamed.json["name"]) == (200, "Kim the Second")
    assert person.get("/me").json == renamed.json
    assert person.patch("/me", json={"email": "other@example.com"}).status_code == 422


def test_sessions_are_listed_and_ended_one_by_one(app: Flask, client: FlaskClient, post: Post) -> None:
    person, tokens = _with_sessions(app, post, 3)
    listed = person.get("/me/sessions").json["items"]
    assert [row["current"] for row in listed] == [True, False, False]  # newest first
    assert all(row["user_agent"] and row["ip_address"] == "127.0.0.1" for row in listed)
    assert set(listed[0]) == {
        "id", "ip_address", "user_agent", "created_at", "last_used_at", "expires_at", "current",
    }  # fmt: skip
    assert person.delete(f"/me/sessions/{listed[2]['id']}").status_code == 204
    assert [me(client, token).status_code for token in tokens] == [401, 200, 200]
    assert len(person.get("/me/sessions").json["items"]) == 2
    assert person.delete(f"/me/sessions/{listed[2]['id']}").status_code == 404
    assert person.delete(f"/me/sessions/{listed[0]['id']}").status_code == 204  # one's own
    assert person.get("/me").status_code == 401


def test_ending_all_others_keeps_the_one_that_asks(app: Flask, client: FlaskClient, post: Post) -> None:
    person, tokens = _with_sessions(app, post, 3)
    bystander = make_person(app)
    assert person.delete("/me/sessions").status_code == 204
    assert [me(client, token).status_code for token in tokens] == [401, 401, 200]
    assert [row["current"] for row in person.get("/me/sessions").json["items"]] == [True]
    assert bystander.get("/me").status_code == 200


def test_nobody_ends_anothers_session(app: Flask) -> None:
    person, other = make_person(app), make_person(app)
    (theirs,) = other.get("/me/sessions").json["items"]
    assert person.delete(f"/me/sessions/{theirs['id']}").status_code == 404
    assert other.get("/me").status_code == 200
    assert other.delete(f"/me/sessions/{theirs['id']}").status_code == 204


def test_the_sessions_are_paged(app: Flask, post: Post) -> None:
    person, _ = _with_sessions(app, post, 3)
    first = person.get("/me/sessions?limit=2").json
    rest = person.get("/me/sessions", query_string={"limit": 2, "cursor": first["next_cursor"]}).json
    ids = [row["id"] for row in first["items"] + rest["items"]]
    assert ids == [row["id"] for row in person.get("/me/sessions").json["items"]]
    assert rest["next_cursor"] is None


def _credentials(given: dict[str, Any]) -> dict[str, Any]:
    return {"email": given["email"], "password": given["password"]}


def _with_sessions(app: Flask, post: Post, count: int) -> tuple[Person, list[str]]:
    """A person and their tokens, the last of which they call with."""
    given = account()
    registered = post("/auth/register", json=given)
    tokens = [registered.json["token"]]
    tokens += [post("/auth/login", json=_credentials(given)).json["token"] for _ in range(count - 1)]
    user = registered.json["user"]
    return Person(app, user["id"], user["email"], user["name"], tokens[-1]), tokens
