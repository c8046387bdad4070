"""Who may do what: each role on each route of a team, as the route table declares it and api.md says it."""

import base64
import datetime as dt
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from models.access.credentials import hash_secret
from models.access.permissions import BUILT_IN_ROLES, OWNER_ONLY
from models.database import transaction
from models.operations import sessions
from models.queries import users
from models.tables import PermissionGrant, UserSession
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
HARMLESS: dict[str, Any] = {"data": b"{", "headers": {"If-Match": '"stale"'}}
"""Nothing that is allowed to go on with this changes anything: no body parses, and no state matches."""


def granted(role: str) -> set[str]:
    return {f"{resource}:{action}" for resource, row in TABLE.items() for action in row[COLUMN[role]].split()}


def missing(role: str, permission: str) -> str | None:
    if permission in OWNER_ALONE and role != "owner":
        return "owner"
    return None if permission in granted(role) else permission


@pytest.mark.parametrize("role", COLUMN)
@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_a_role_may_what_the_table_says(shared: TeamSetting, route: Route, role: str) -> None:
    person = shared.owner if role == "owner" else shared.people[role]
    answer = person.call(route.method, route.path(team_id=shared.id), **HARMLESS)
    assert route.permission is not None
    lacking = missing(role, route.permission.value)
    if lacking is None:
        assert answer.status_code not in {401, 403}
        assert answer.status_code < 500
    else:
        assert (answer.status_code, answer.json["code"], answer.json["missing"]) == (
            403,
            "permission_denied",
            lacking,
        )


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
def test_a_bad_credential_is_401(
    app: Flask, shared: TeamSetting, ended: dict[str, Person], route: Route
) -> None:
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
        **{name: f"Bearer {person.token}" for name, person in ended.items()},
    }
    for name, authorization in wrong.items():
        headers = {"Authorization": authorization} if authorization is not None else {}
        answer = app.test_client().open(path, method=route.method, headers=headers, data=b"{")
        assert answer.status_code == 401, name
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json is not None
        assert answer.json["code"] == "unauthenticated"


def test_only_sign_in_is_public() -> None:
    assert {str(route) for route in ROUTES if route.is_public} == {"POST /auth/register", "POST /auth/login"}


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


@pytest.fixture(scope="module")
def ended(app: Flask, shared: TeamSetting) -> dict[str, Person]:
    """Sessions of the owner that are over: they could do everything before."""
    people = {}
    for name in ("expired", "revoked"):
        with transaction() as session:
            user = shared.owner
            opened, token = sessions.open_session(
                session, users.get(session, user.id), origin=user.credential.origin, days=1
            )
        people[name] = Person(app, user.id, user.email, user.name, token)
        assert people[name].get(shared.path).status_code == 200
        if name == "revoked":
            assert shared.owner.delete(f"/me/sessions/{opened.id}").status_code == 204
        else:
            _expire(token)
    return people


def _expire(token: str) -> None:
    with transaction() as session:
        session.execute(
            update(UserSession)
            .where(UserSession.token_hash == hash_secret(token))
            .values(expires_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1))
        )


def _headers(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "X-Request-Id"}
