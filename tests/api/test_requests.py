"""X-Request-Id on every answer, in the log and in the activity row; and no secret in any log line."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from uuid_utils.compat import uuid7

from models.queries import users
from tests.factories import Answer, TeamSetting, drain, make_person

PASSWORD = "correct horse battery staple"


@pytest.mark.parametrize("id_", ["a", "the-request.1_x", "0" * 128, "0198c5f0-0000-7000-8000-000000000000"])
def test_a_sane_id_comes_back(client: FlaskClient, id_: str) -> None:
    for path in ("/health/live", "/api/v1/me", "/nothing"):
        assert client.get(path, headers={"X-Request-Id": id_}).headers["X-Request-Id"] == id_


@pytest.mark.parametrize("id_", ["", " ", "a b", "0" * 129, "é", "a;b", '"a"', "<script>", "a\tb", "a,b"])
def test_any_other_is_replaced(client: FlaskClient, id_: str) -> None:
    answers = [client.get("/health/live", headers={"X-Request-Id": id_}) for _ in range(2)]
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    assert len(ids) == 2
    assert all(len(each) == 32 and each.isalnum() for each in ids)


def test_every_answer_has_an_id_of_its_own(team: TeamSetting) -> None:
    answers = [
        team.owner.get(team.path),
        team.owner.get("/nothing"),
        team.owner.put(team.path),
        team.owner.post("/teams", data=b"{"),
        team.owner.get("/me", headers={"Authorization": ""}),
        team.owner.call("OPTIONS", team.path),
        team.owner.call("HEAD", team.path),
    ]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)


def test_the_id_is_in_the_activity_row(team: TeamSetting) -> None:
    made = team.owner.post(f"{team.path}/workspaces", json={"name": "A"})
    drain()
    (row, *_) = team.owner.get(f"{team.path}/activity?action=workspace_created").json["items"]
    assert row["request_id"] == made.headers["X-Request-Id"]


def test_answers_are_neither_cached_nor_sniffed(team: TeamSetting) -> None:
    headers = team.owner.get(team.path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_id_is_in_every_log_line_of_the_request(log: "Log") -> None:
    client = log.app.test_client()
    client.get("/api/v1/me", headers={"X-Request-Id": "mine-1"})
    client.get("/nothing?q=private", headers={"X-Request-Id": "mine-2"})
    lines = [line for line in log.lines() if line["logger"] == "api.requests"]
    assert [(line["request_id"], line["path"], line["status"]) for line in lines] == [
        ("mine-1", "/api/v1/me", 401),
        ("mine-2", "/nothing", 404),
    ]
    assert all(line["duration_ms"] >= 0 and line["method"] == "GET" for line in lines)
    assert "private" not in log.text()


def test_an_unexpected_error_is_logged_with_its_request(log: "Log", monkeypatch: pytest.MonkeyPatch) -> None:
    person = make_person(log.app)

    def fail(*_: Any) -> Any:
        raise ValueError(f"went wrong with {person.token}")

    monkeypatch.setattr(users, "shown", fail)
    assert person.get("/me", headers={"X-Request-Id": "mine-3"}).status_code == 500
    (line,) = [line for line in log.lines() if line["level"] == "error"]
    assert line["request_id"] == "mine-3"
    assert "went wrong" in line["exception"]
    assert person.token not in log.text()


def test_no_log_line_holds_a_secret(log: "Log") -> None:
    """At DEBUG, from everything that a process loads: registering, signing in, calling, failing."""
    client = log.app.test_client()
    email = f"{uuid7().hex}@example.com"
    account = {"email": email, "password": PASSWORD, "name": "Kim"}

    def send(method: str, path: str, token: str = "", **kwargs: Any) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return client.open(f"/api/v1{path}", method=method, headers=headers, **kwargs)

    registered = send("POST", "/auth/register", json=account)
    taken = send("POST", "/auth/register", json=account)
    signed_in = send("POST", "/auth/login", json={"email": email, "password": PASSWORD})
    wrong = send("POST", "/auth/login", json={"email": email, "password": PASSWORD + "!"})
    assert [each.status_code for each in (registered, taken, signed_in, wrong)] == [201, 409, 200, 401]
    tokens = [registered.json["token"], signed_in.json["token"]]
    called = [
        send("GET", f"/me?token={tokens[0]}&ticket=tick-et-1", tokens[0]),
        send("GET", f"/teams?token={tokens[0]}", tokens[1]),
        send("POST", "/teams", tokens[0], json={"name": "A"}),
        send("POST", "/teams", tokens[0], json={"name": PASSWORD, "password": PASSWORD}),
        send("GET", "/me", "unknown-token-of-someone"),
        client.get(f"/nothing?token={tokens[0]}"),
        send("POST", "/auth/logout", tokens[1]),
    ]
    assert [each.status_code for each in called] == [200, 422, 201, 422, 401, 404, 204]
    assert len([line for line in log.lines() if line["event"] == "request"]) == 11
    for secret in (*tokens, PASSWORD, "tick-et-1", "unknown-token-of-someone", "argon2"):
        assert secret not in log.text()


class Log:
    def __init__(self, app: Flask, stream: io.StringIO) -> None:
        self.app, self._stream = app, stream

    def text(self) -> str:
        return self._stream.getvalue()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def log(app_with: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> Log:
    """An application that logs at DEBUG, and what it writes."""
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        application = app_with(log_level="DEBUG", log_format="json")
    return Log(application, stream)
