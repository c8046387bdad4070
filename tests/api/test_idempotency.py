"""Idempotency-Key: a repeat gets the first answer, and nothing is done twice."""

import datetime as dt
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text, update
from uuid_utils.compat import uuid7

from models.database import transaction
from models.operations import idempotency
from models.tables import IdempotencyKey
from tests.api.conftest import Post
from tests.factories import Answer, Person, TeamSetting, make_person, make_team


def key() -> str:
    return uuid7().hex


def make_workspace(setting: TeamSetting, by: Person, key_: str, name: str = "A") -> Answer:
    return by.post(f"{setting.path}/workspaces", json={"name": name}, headers={"Idempotency-Key": key_})


def names(setting: TeamSetting) -> list[str]:
    return [row["name"] for row in setting.owner.get(f"{setting.path}/workspaces").json["items"]]


def scope_of(authorization: str) -> bytes:
    data = authorization.encode()
    return hashlib.sha256(len(data).to_bytes(8) + data).digest()


def test_a_repeat_gets_the_same_answer_and_does_nothing(team: TeamSetting) -> None:
    key_ = key()
    first, again = (make_workspace(team, team.member, key_) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.data == first.data
    assert again.headers["ETag"] == first.headers["ETag"]
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (
        None,
        "true",
    )
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert names(team) == ["Research", "A"]


def test_without_a_key_or_with_another_it_is_done_again(team: TeamSetting) -> None:
    for key_ in (key(), key()):
        assert make_workspace(team, team.member, key_).status_code == 201
    assert team.member.post(f"{team.path}/workspaces", json={"name": "A"}).status_code == 201
    assert names(team) == ["Research", "A", "A", "A"]


def test_a_key_stands_for_one_body_and_one_path(team: TeamSetting) -> None:
    key_ = key()
    first = make_workspace(team, team.member, key_)
    other_body = make_workspace(team, team.member, key_, name="B")
    other_path = team.member.post(
        f"{team.path}/workspaces/{first.json['id']}/tasks",
        json={"name": "A"},
        headers={"Idempotency-Key": key_},
    )
    for answer in (other_body, other_path):
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["Idempotency-Key"])
    assert names(team) == ["Research", "A"]
    assert make_workspace(team, team.member, key_).data == first.data


def test_a_key_is_its_credentials_own(team: TeamSetting) -> None:
    key_ = key()
    first, others = make_workspace(team, team.member, key_), make_workspace(team, team.admin, key_, "B")
    assert (first.status_code, others.status_code, others.json["name"]) == (201, 201, "B")
    assert names(team) == ["Research", "A", "B"]


@pytest.mark.parametrize("verb", ["start", "cancel"])
def test_a_transition_is_repeatable_with_a_key(team: TeamSetting, verb: str) -> None:
    path = f"{team.path}/tasks/{team.task()['id']}/{verb}"
    headers = {"Idempotency-Key": key()}
    first, again = (team.member.post(path, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.data == again.data
    assert team.member.post(path).status_code == 409


def test_a_failed_request_is_not_kept(team: TeamSetting) -> None:
    key_ = key()
    assert make_workspace(team, team.member, key_, name="").status_code == 422
    assert make_workspace(team, team.viewer, key_).status_code == 403
    assert make_workspace(team, team.member, key_, name="B").status_code == 201
    task, headers = team.task(), {"Idempotency-Key": key()}
    complete = f"{team.path}/tasks/{task['id']}/complete"
    assert team.member.post(complete, json={}, headers=headers).status_code == 409
    assert team.member.post(f"{team.path}/tasks/{task['id']}/start").status_code == 200
    assert team.member.post(complete, json={}, headers=headers).status_code == 200


def test_while_the_first_is_running_its_repeat_is_409(team: TeamSetting) -> None:
    key_ = key()
    digest = hashlib.sha256(scope_of(f"Bearer {team.member.token}") + key_.encode()).digest()
    with transaction() as running:  # as the first request does, which has not ended
        lock = int.from_bytes(digest[:8], signed=True)
        assert running.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": lock})
        refused = make_workspace(team, team.member, key_)
        assert (refused.status_code, refused.json["code"]) == (409, "conflict")
        assert make_workspace(team, team.member, key(), name="B").status_code == 201
    assert make_workspace(team, team.member, key_).status_code == 201
    assert names(team) == ["Research", "B", "A"]


def test_of_requests_at_the_same_time_one_is_done(app: Flask, team: TeamSetting) -> None:
    key_, together = key(), threading.Barrier(4)
    headers = {"Authorization": f"Bearer {team.member.token}", "Idempotency-Key": key_}

    def send(_: int) -> tuple[int, bytes]:
        together.wait()
        answer = app.test_client().post(f"/api/v1{team.path}/workspaces", json={"name": "A"}, headers=headers)
        return answer.status_code, answer.data

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(4)))
    assert {status for status, _ in answers} <= {201, 409}
    assert len({body for status, body in answers if status == 201}) == 1
    assert names(team) == ["Research", "A"]


@pytest.mark.parametrize(("age", "replayed"), [(23.9, True), (24.1, False)])
def test_an_answer_is_kept_for_a_day(team: TeamSetting, age: float, replayed: bool) -> None:
    key_ = key()
    first = make_workspace(team, team.member, key_)
    made_at = dt.datetime.now(dt.UTC) - dt.timedelta(hours=age)
    with transaction() as session:
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == key_).values(created_at=made_at))
    again = make_workspace(team, team.member, key_)
    assert again.status_code == 201
    assert (again.json["id"] == first.json["id"]) is replayed
    assert make_workspace(team, team.member, key_).json == again.json  # the new answer is kept in turn


@pytest.mark.parametrize(("age", "kept"), [(23.9, True), (24.1, False)])
def test_what_is_over_is_cleaned_away(team: TeamSetting, age: float, kept: bool) -> None:
    key_ = key()
    assert make_workspace(team, team.member, key_).status_code == 201
    made_at = dt.datetime.now(dt.UTC) - dt.timedelta(hours=age)
    mine = IdempotencyKey.key == key_
    with transaction() as session:
        session.execute(update(IdempotencyKey).where(mine).values(created_at=made_at))
    with transaction() as session:
        idempotency.expire(session)
        assert (session.scalar(select(IdempotencyKey.status).where(mine)) is not None) is kept


def test_an_answer_with_a_secret_is_not_kept(app: Flask, post: Post) -> None:
    account = {"email": f"{key()}@example.com", "password": "a good password", "name": "Kim"}
    headers = {"Idempotency-Key": key()}
    first, again = (post("/auth/register", json=account, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.json["code"]) == (201, 409, "conflict")
    assert again.json["id"] == first.json["user"]["id"]
    login: dict[str, Any] = {"json": {name: account[name] for name in ("email", "password")}}
    login["headers"] = {"Idempotency-Key": key()}
    signed_in, repeated = (post("/auth/login", **login) for _ in range(2))
    assert (signed_in.status_code, repeated.status_code) == (200, 409)
    person = Person(app, first.json["user"]["id"], account["email"], "Kim", signed_in.json["token"])
    sessions = {row["id"] for row in person.get("/me/sessions").json["items"]}
    assert repeated.json["id"] in sessions
    assert len(sessions) == 2
    with transaction() as session:
        for kept in session.scalars(
            select(IdempotencyKey).where(IdempotencyKey.key == headers["Idempotency-Key"])
        ):
            assert kept.body is None


def test_who_lost_the_permission_gets_no_kept_answer(team: TeamSetting) -> None:
    key_ = key()
    assert make_workspace(team, team.member, key_).status_code == 201
    path = f"{team.path}/members/{team.member.id}"
    assert team.owner.patch(path, json={"role": "viewer"}).status_code == 200
    assert make_workspace(team, team.member, key_).status_code == 403
    assert team.owner.delete(path).status_code == 204
    assert make_workspace(team, team.member, key_).status_code == 404


@pytest.mark.parametrize(
    ("key_", "status"), [("x" * 255, 201), ("x" * 256, 422), ("", 422), ("   ", 422), ("é ü", 201)]
)
def test_a_key_is_1_to_255_characters(app: Flask, key_: str, status: int) -> None:
    answer = make_person(app).post("/teams", json={"name": "A"}, headers={"Idempotency-Key": key_})
    assert answer.status_code == status
    if status == 422:
        assert list(answer.json["errors"]) == ["Idempotency-Key"]


def test_a_repeated_report_and_team_are_made_once(app: Flask) -> None:
    team = make_team(app, roles=())
    headers = {"Idempotency-Key": key()}
    ids = {team.owner.post("/teams", json={"name": "B"}, headers=headers).json["id"] for _ in range(3)}
    assert len(ids) == 1
    assert len(team.owner.get("/teams").json["items"]) == 2


def test_other_methods_know_no_key(team: TeamSetting) -> None:
    headers = {"Idempotency-Key": key()}
    for name in ("A", "B"):
        assert team.owner.patch(team.path, json={"name": name}, headers=headers).json["name"] == name
    assert team.owner.get(team.path, headers=headers).json["name"] == "B"
