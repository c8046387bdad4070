"""problem+json: one shape for everything that goes wrong, and nothing of our insides in it."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.errors import STATUS
from models import errors
from models.errors import DomainError
from models.queries import users
from tests.factories import Answer, TeamSetting, make_person

MEMBERS = {"type", "title", "status", "code", "detail", "request_id"}


def assert_problem(answer: Answer, status: int, code: str, *more: str) -> None:
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert set(answer.json) == MEMBERS | set(more)
    assert (answer.json["status"], answer.json["code"]) == (status, code)
    assert answer.json["type"].endswith(f"#{code}")
    assert answer.json["title"]
    assert answer.json["detail"]
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


CASES: dict[str, tuple[Callable[[TeamSetting], Answer], int, str, tuple[str, ...]]] = {
    "unauthenticated": (
        lambda team: team.owner.get("/me", headers={"Authorization": ""}),
        401,
        "unauthenticated",
        (),
    ),
    "wrong password": (
        lambda team: team.owner.post("/auth/login", json={"email": "nobody@example.com", "password": "x"}),
        401,
        "unauthenticated",
        (),
    ),
    "forbidden": (lambda team: team.viewer.patch(team.path), 403, "permission_denied", ("missing",)),
    "absent": (lambda team: team.owner.get(f"{team.path}/tasks/{team.id}"), 404, "not_found", ()),
    "unrouted": (lambda team: team.owner.get("/nothing"), 404, "not_found", ()),
    "no id": (lambda team: team.owner.get("/teams/1"), 404, "not_found", ()),
    "method": (lambda team: team.owner.put(team.path), 405, "method_not_allowed", ()),
    "conflict": (lambda team: team.owner.delete(f"{team.path}/members/{team.owner.id}"), 409, "conflict", ()),
    "stale": (
        lambda team: team.owner.delete(team.path, headers={"If-Match": '"x"'}),
        412,
        "precondition_failed",
        (),
    ),
    "too large": (lambda team: team.owner.post("/teams", data=b"x" * 2**21), 413, "body_too_large", ()),
    "invalid": (lambda team: team.owner.post("/teams", json={}), 422, "validation_failed", ("errors",)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_error_has_the_one_shape(shared: TeamSetting, case: str) -> None:
    call, status, code, more = CASES[case]
    assert_problem(call(shared), status, code, *more)


def test_a_wrong_method_says_which_are_right(shared: TeamSetting) -> None:
    allowed = shared.owner.put(shared.path).headers["Allow"]
    assert {"GET", "PATCH", "DELETE"} <= set(allowed.split(", "))


def test_an_unknown_address_of_the_root_is_a_problem_too(client: FlaskClient) -> None:
    for path in ("/api", "/api/v1", "/nothing", "/health"):
        assert_problem(client.get(path), 404, "not_found")


def test_every_domain_error_has_a_status() -> None:
    codes = {error.code for error in _every_domain_error()}
    assert codes <= set(STATUS)
    assert "permission_denied" in codes


def test_what_nobody_expected_is_500_and_tells_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("a secret of ours")

    person = make_person(app)
    assert person.get("/me").status_code == 200
    monkeypatch.setattr(users, "get", fail)
    answer = person.get("/me")
    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "ValueError" not in answer.text


def test_a_constraint_becomes_its_domain_error_and_no_database_text(team: TeamSetting) -> None:
    body = {"user_id": str(team.viewer.id), "role": "viewer"}
    answer = team.owner.post(f"{team.path}/members", json=body)
    assert_problem(answer, 409, "conflict")
    assert "team_members" not in answer.text


def _every_domain_error() -> list[type[DomainError]]:
    named = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, DomainError)
    ]
    return [each for each in named if each is not DomainError]
