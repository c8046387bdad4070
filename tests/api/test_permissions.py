"""Who may do what, as api.md says it; tests/api/test_walk.py holds every route to it."""

import base64
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from models.access.permissions import BUILT_IN_ROLES, OWNER_ONLY
from models.database import transaction
from models.tables import PermissionGrant
from tests.api.routes import ROUTES, TEAM_ROUTES, Route
from tests.factories import Person, TeamSetting, make_person, make_team

# The table of api.md: resource → what there is, what a member has, what a viewer has. Admins have all.
TABLE = {
    "teams": ("read update delete transfer", "read", "read"),
    "members": ("read create update delete", "read", "read"),
    "workspaces": ("read create update delete", "read create update", "read"),
    "tasks": ("read create update delete", "read create update delete", "read"),
    "activity": ("read", "read", "read"),
    "usage": ("read create", "read create", "read"),
    "billing": ("read update", "", ""),
    "roles": ("read create update delete", "read", "read"),
    "api_keys": ("read create delete", "", ""),
    "webhooks": ("read create update delete", "", ""),
    "realtime": ("read publish", "read publish", "read"),
}
COLUMN = {"owner": 0, "admin": 0, "member": 1, "viewer": 2}
OWNER_ALONE = {"teams:delete", "teams:transfer"}


def granted(role: str) -> set[str]:
    return {f"{resource}:{action}" for resource, row in TABLE.items() for action in row[COLUMN[role]].split()}


def missing(role: str, permission: str) -> str | None:
    """What the role lacks for this permission, as a refusal names it; None if it has it."""
    if permission in OWNER_ALONE and role != "owner":
        return "owner"
    return None if permission in granted(role) else permission


def test_the_matrix_refuses_and_allows() -> None:
    """The generated test above would pass on an empty route table, or one that a single role may use."""
    needed = {route.permission.value for route in TEAM_ROUTES if route.permission}
    assert len(needed) >= 15
    for role in ("admin", "member", "viewer"):
        refused = {permission for permission in needed if missing(role, permission)}
        assert refused
        assert refused < needed
    assert not any(missing("owner", permission) for permission in needed)


@pytest.mark.parametrize("body", [b"{", b'{"name": "x"}'], ids=["malformed", "fine"])
@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_a_foreign_team_is_like_one_that_does_not_exist(
    shared: TeamSetting, stranger: Person, route: Route, body: bytes
) -> None:
    foreign = stranger.call(route.method, route.path(team_id=shared.id), data=body)
    absent = stranger.call(route.method, route.path(), data=body)
    for answer in (foreign, absent):
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")
        assert answer.json["request_id"] == answer.headers["X-Request-Id"]
    told = [{**answer.json, "request_id": None} for answer in (foreign, absent)]
    assert told[0] == told[1]
    assert _headers(foreign) == _headers(absent)


def test_a_deleted_team_is_like_one_that_does_not_exist(team: TeamSetting) -> None:
    assert team.viewer.get(team.path).status_code == 200
    assert team.owner.delete(team.path).status_code == 204
    for route in TEAM_ROUTES:
        answer = team.owner.call(route.method, route.path(team_id=team.id))
        assert answer.status_code == 404, str(route)


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.is_public], ids=str)
def test_a_bad_credential_is_401(app: Flask, shared: TeamSetting, route: Route) -> None:
    path = "/api/v1" + route.path(team_id=shared.id)
    owner = shared.owner.token
    wrong = {
        "none": None,
        "empty": "Bearer ",
        "no scheme": owner,
        "another scheme": "Basic " + base64.b64encode(f"a:{owner}".encode()).decode(),
        "unknown": "Bearer ahq_" + "x" * 43,
        "too long": "Bearer " + "x" * 10_000,
        "not a token": "Bearer é",
        "almost": f"Bearer {owner}x",
        "unknown key": "Bearer ahk_" + "x" * 43,
    }
    for name, authorization in wrong.items():
        headers = {"Authorization": authorization} if authorization is not None else {}
        answer = app.test_client().open(path, method=route.method, headers=headers, data=b"{")
        assert answer.status_code == 401, name
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json is not None
        assert answer.json["code"] == "unauthenticated"


def test_only_what_nobody_can_sign_in_for_is_public() -> None:
    assert {str(route) for route in ROUTES if route.is_public} == {
        "POST /auth/register",
        "POST /auth/login",
        "POST /auth/request-password-reset",
        "POST /auth/reset-password",
        "POST /auth/verify-email",
        "POST /invitations/preview",
        "GET /signing-keys",
        "GET /exports/<export_id>",
        "POST /webhooks/stripe",
    }


def test_the_permissions_table_is_the_interfaces() -> None:
    with transaction() as session:
        rows = session.execute(
            select(PermissionGrant.role, PermissionGrant.resource, PermissionGrant.action).where(
                PermissionGrant.team_id.is_(None), PermissionGrant.allowed
            )
        ).all()
    seeded = {(role, f"{resource}:{action}") for role, resource, action in rows}
    assert len(rows) == len(seeded)
    assert seeded == {
        (role, permission.value) for role, granted in BUILT_IN_ROLES.items() for permission in granted
    }
    assert seeded == {(role, name) for role in ("admin", "member", "viewer") for name in granted(role)}
    assert {permission.value for permission in OWNER_ONLY} == OWNER_ALONE


def test_a_permission_counts_from_the_next_request_on(team: TeamSetting) -> None:
    path = f"{team.path}/members/{team.viewer.id}"
    assert team.viewer.post(f"{team.path}/workspaces", json={"name": "A"}).json["missing"] == (
        "workspaces:create"
    )
    assert team.owner.patch(path, json={"role": "member"}).status_code == 200
    assert team.viewer.post(f"{team.path}/workspaces", json={"name": "A"}).status_code == 201
    assert team.owner.delete(path).status_code == 204
    assert team.viewer.post(f"{team.path}/workspaces", json={"name": "A"}).status_code == 404


def test_a_custom_role_grants_what_its_rows_say_in_its_own_team(app: Flask, team: TeamSetting) -> None:
    other = make_team(app)
    with transaction() as session:
        session.add(PermissionGrant(team_id=team.id, role="scribe", resource="workspaces", action="create"))
        session.add(
            PermissionGrant(team_id=team.id, role="scribe", resource="tasks", action="read", allowed=False)
        )
    path = f"/members/{team.viewer.id}"
    assert team.owner.patch(team.path + path, json={"role": "scribe"}).status_code == 200
    assert team.viewer.post(f"{team.path}/workspaces", json={"name": "A"}).status_code == 201
    assert team.viewer.get(f"{team.path}/workspaces").json["missing"] == "workspaces:read"
    assert team.viewer.get(f"{team.path}/workspaces/{team.workspace_id}/tasks").json["missing"] == (
        "tasks:read"
    )
    elsewhere = other.owner.patch(f"{other.path}/members/{other.viewer.id}", json={"role": "scribe"})
    assert (elsewhere.status_code, list(elsewhere.json["errors"])) == (422, ["role"])


@pytest.fixture(scope="module")
def stranger(app: Flask) -> Person:
    return make_person(app, "Stranger")


def _headers(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "X-Request-Id"}
