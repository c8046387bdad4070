"""
Every route of the application, as each kind of caller: who gets in, and what the others are told.

Generated from the route table, so a route that is added is walked from its first day, whichever sibling it resembles.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from api.resource import Need
from models.access.permissions import OWNER_ONLY, Permission
from tests.api.routes import ROUTES, TEAM_ROUTES, Route
from tests.api.test_bad_input import VALID
from tests.api.test_permissions import COLUMN, missing
from tests.factories import (
    Answer,
    KeyHolder,
    Person,
    TeamSetting,
    execute,
    invite,
    join,
    make_agent,
    make_delivery,
    make_key,
    make_role,
    make_team,
    make_webhook,
)

HARMLESS: dict[str, Any] = {"data": b"{", "headers": {"If-Match": '"stale"'}}
"""Nothing that is allowed to go on with this changes anything in a team: no body parses, and no state matches."""
SIGNED_IN_ROUTES = [route for route in ROUTES if route.requirement.needs is Need.SIGNED_IN]
PERMISSIONS = sorted({route.permission for route in TEAM_ROUTES if route.permission})


def suspended(setting: TeamSetting) -> Person:
    person = join(setting, "admin", "Sue")
    assert setting.owner.post(f"{setting.path}/members/{person.id}/suspend").status_code == 200
    return person


def expired_session(setting: TeamSetting) -> Person:
    person = join(setting, "admin", "Eve")
    execute("UPDATE sessions SET expires_at = now() WHERE user_id = :id", id=person.id)
    return person


def ended_session(setting: TeamSetting) -> Person:
    person = join(setting, "admin", "Eno")
    assert person.post("/auth/logout").status_code == 204
    return person


def every(setting: TeamSetting, by: Person) -> KeyHolder:
    """A key for all that there is."""
    key = make_key(setting, by, *Permission)
    assert key.get(setting.path).status_code == 200
    return key


def revoked_key(setting: TeamSetting) -> Person:
    key = every(setting, setting.owner)
    assert setting.owner.delete(f"{setting.path}/api-keys/{key.key_id}").status_code == 204
    return key


def expired_key(setting: TeamSetting) -> Person:
    key = every(setting, setting.owner)
    execute("UPDATE api_keys SET expires_at = now() WHERE id = :id", id=key.key_id)
    return key


def removed_members_key(setting: TeamSetting) -> Person:
    maker = join(setting, "admin", "Rex")
    key = every(setting, maker)
    assert setting.owner.delete(f"{setting.path}/members/{maker.id}").status_code == 204
    return key


def suspended_members_key(setting: TeamSetting) -> Person:
    maker = join(setting, "admin", "Sly")
    key = every(setting, maker)
    assert setting.owner.post(f"{setting.path}/members/{maker.id}/suspend").status_code == 200
    return key


def foreign_key(setting: TeamSetting) -> Person:
    """Of another team, made by somebody who is an admin in both."""
    other = make_team(setting.owner.app, owner=setting.admin, roles=())
    return every(other, setting.admin)


def foreign_owner(setting: TeamSetting) -> Person:
    return make_team(setting.owner.app, roles=()).owner


OUTSIDE: dict[str, tuple[Callable[[TeamSetting], Person], tuple[int, str, str | None]]] = {
    "an ended session": (ended_session, (401, "unauthenticated", None)),
    "an expired session": (expired_session, (401, "unauthenticated", None)),
    "a revoked key": (revoked_key, (401, "unauthenticated", None)),
    "an expired key": (expired_key, (401, "unauthenticated", None)),
    "a removed member's key": (removed_members_key, (401, "unauthenticated", None)),
    "another team's owner": (foreign_owner, (404, "not_found", None)),
    "another team's key": (foreign_key, (404, "not_found", None)),
    "a suspended member": (suspended, (403, "permission_denied", "membership")),
    "a suspended member's key": (suspended_members_key, (403, "permission_denied", "membership")),
}
"""Who gets into the team nowhere, and what they are told everywhere."""
SIGNED_OUT = [name for name, (_, (status, _, _)) in OUTSIDE.items() if status == 401] + ["a key"]


@pytest.fixture(scope="module")
def setting(app: Flask) -> TeamSetting:
    made = make_team(app)
    assert made.owner.put(f"{made.path}/plan", json={"plan": "enterprise"}).status_code == 200
    return made


@pytest.fixture(scope="module")
def outside(setting: TeamSetting) -> dict[str, Person]:
    return {name: make(setting) for name, (make, _) in OUTSIDE.items()}


def walk(setting: TeamSetting, person: Person, route: Route) -> Answer:
    return person.call(route.method, route.path(team_id=setting.id), **HARMLESS)


def told(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status_code, answer.json["code"], answer.json.get("missing")


def assert_in(answer: Answer) -> None:
    assert answer.status_code not in {401, 403}, answer.text
    assert answer.status_code < 500


def assert_as(answer: Answer, lacking: str | None) -> None:
    if lacking is None:
        assert_in(answer)
    else:
        assert told(answer) == (403, "permission_denied", lacking)


def needed(route: Route) -> str | None:
    return route.permission and route.permission.value


@pytest.mark.parametrize("role", COLUMN)
@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_a_role_may_what_the_table_says(setting: TeamSetting, route: Route, role: str) -> None:
    person = setting.owner if role == "owner" else setting.people[role]
    permission = needed(route)
    assert_as(walk(setting, person, route), permission and missing(role, permission))


@pytest.mark.parametrize("caller", OUTSIDE)
@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_who_is_outside_gets_in_nowhere(
    setting: TeamSetting, outside: dict[str, Person], route: Route, caller: str
) -> None:
    """Pitfalls: authenticated is not authorized; a check on one tenant and a fetch by bare id; one sibling was forgotten."""
    assert told(walk(setting, outside[caller], route)) == OUTSIDE[caller][1]


def ids_in(setting: TeamSetting) -> dict[str, Any]:
    """One of everything that a path can name, all of it the team's own."""
    make_role(setting, "theirs", "tasks:read")
    webhook = make_webhook(setting)
    usage = f"{setting.path}/usage"
    reservation = {"external_id": "a", "metric": "llm_tokens_used", "quantity": 1}
    backfill = {"name": "May", "reason": "late"}
    return {
        "webhook_id": webhook["id"],
        "delivery_id": make_delivery(webhook),
        "reservation_id": setting.owner.post(f"{usage}/reservations", json=reservation).json["id"],
        "backfill_id": setting.owner.post(f"{usage}/backfills", json=backfill).json["id"],
        "ledger_id": setting.owner.get(f"{usage}/ledger").json["items"][0]["id"],
        "workspace_id": setting.workspace_id,
        "task_id": setting.task()["id"],
        "user_id": join(setting, "theirs").id,
        "invitation_id": invite(setting, f"{setting.id.hex}@example.com")["id"],
        "agent_id": make_agent(setting)["id"],
        "api_key_id": make_key(setting, setting.owner, "tasks:read").key_id,
        "export_id": setting.owner.post(f"{setting.path}/activity/exports", json={}).json["id"],
        "name": "theirs",
    }


@pytest.fixture(scope="module")
def others_ids(setting: TeamSetting) -> dict[str, Any]:
    """Of a second team of the same owner."""
    return ids_in(make_team(setting.owner.app, owner=setting.owner))


@pytest.mark.parametrize("route", [route for route in TEAM_ROUTES if route.rule.count("<") > 1], ids=str)
def test_an_id_of_another_team_is_like_one_that_does_not_exist(
    setting: TeamSetting, others_ids: dict[str, Any], route: Route
) -> None:
    """Pitfall: the tenant of the path is checked, and what is in it fetched by bare id. Even to who is the owner of both."""
    body = json.dumps(VALID[route.body.__name__]) if route.body else None
    within = {"workspace_id": setting.workspace_id} if route.rule.count("<") > 2 else {}

    def ask(**ids: Any) -> tuple[int, dict[str, Any]]:
        path = route.path(team_id=setting.id, **ids)
        answer = setting.owner.call(route.method, path, data=body)
        return answer.status_code, {**answer.json, "request_id": None}

    for ids in (others_ids, {**others_ids, **within}):
        status, told_ = ask(**ids)
        assert (status, told_["code"]) == (404, "not_found")
    assert ask(**others_ids) == ask()


@pytest.fixture(scope="module")
def soloists(setting: TeamSetting) -> dict[Permission, tuple[Person, Person]]:
    """For each permission: who has nothing but it, and who has all but it."""
    people = {}
    for permission in PERMISSIONS:
        name = permission.value.replace(":", " ")
        make_role(setting, f"only {name}", permission)
        make_role(setting, f"all but {name}", *(each for each in Permission if each != permission))
        people[permission] = join(setting, f"only {name}"), join(setting, f"all but {name}")
    return people


@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_one_permission_is_needed_and_enough(
    setting: TeamSetting, soloists: dict[Permission, tuple[Person, Person]], route: Route
) -> None:
    for permission, (only, all_but) in soloists.items():
        of_route = permission == route.permission
        if of_route or route.permission is None:
            lacking = "owner" if of_route and permission in OWNER_ONLY else None
            assert_as(walk(setting, only, route), lacking)
        else:
            expected = "owner" if route.permission in OWNER_ONLY else needed(route)
            assert_as(walk(setting, only, route), expected)
        if of_route:
            assert_as(walk(setting, all_but, route), "owner" if permission in OWNER_ONLY else needed(route))


@pytest.fixture(scope="module")
def keys(setting: TeamSetting) -> dict[str, Person]:
    demoted = join(setting, "admin", "Dee")
    shrunk = make_key(setting, demoted, "billing:update", "members:create")
    changed = setting.owner.patch(f"{setting.path}/members/{demoted.id}", json={"role": "viewer"})
    assert changed.status_code == 200
    return {"the owner's": every(setting, setting.owner), "empty": shrunk}


@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_a_key_is_never_the_owner(setting: TeamSetting, keys: dict[str, Person], route: Route) -> None:
    """Pitfall: a key that outranks whoever holds it."""
    owners = route.permission in OWNER_ONLY
    answer = walk(setting, keys["the owner's"], route)
    if needed(route) == "api_keys:create" and route.rule.endswith("/api-keys"):
        assert answer.status_code == 422  # the body, before it is told that a key can't make keys
    else:
        assert_as(answer, "owner" if owners else None)


@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_a_key_of_which_nothing_is_left_opens_nothing(
    setting: TeamSetting, keys: dict[str, Person], route: Route
) -> None:
    lacking = "owner" if route.permission in OWNER_ONLY else needed(route)
    assert_as(walk(setting, keys["empty"], route), lacking)


@pytest.fixture(scope="module")
def strict(app: Flask) -> TeamSetting:
    """A team that asks for a second factor; its member has none, its admin one that was never confirmed."""
    made = make_team(app)
    made.owner.set_up_second_factor()
    made.viewer.set_up_second_factor()
    made.admin.set_up_second_factor(confirmed=False)
    assert made.owner.patch(made.path, json={"two_factor_required": True}).status_code == 200
    return made


@pytest.mark.parametrize("route", TEAM_ROUTES, ids=str)
def test_without_the_required_second_factor_one_gets_in_nowhere(strict: TeamSetting, route: Route) -> None:
    for person in (strict.member, strict.admin):
        assert told(walk(strict, person, route)) == (403, "permission_denied", "two_factor")
    permission = needed(route)
    for role, person in (("owner", strict.owner), ("viewer", strict.viewer)):
        assert_as(walk(strict, person, route), permission and missing(role, permission))


@pytest.mark.parametrize("caller", SIGNED_OUT)
@pytest.mark.parametrize("route", SIGNED_IN_ROUTES, ids=str)
def test_an_account_is_behind_a_session(
    setting: TeamSetting, outside: dict[str, Person], keys: dict[str, Person], route: Route, caller: str
) -> None:
    person = keys["the owner's"] if caller == "a key" else outside[caller]
    assert told(walk(setting, person, route)) == (401, "unauthenticated", None)


@pytest.mark.parametrize("route", SIGNED_IN_ROUTES, ids=str)
def test_an_account_is_its_persons_whatever_a_team_says(setting: TeamSetting, route: Route) -> None:
    for make in (suspended, foreign_owner):
        assert_in(walk(setting, make(setting), route))  # whose sessions this may end


NEEDS_NOTHING = {"GET /signing-keys"}
"""Of what is public; the others want a body, a token or a signature, and miss it here."""


@pytest.mark.parametrize("route", [route for route in ROUTES if route.is_public], ids=str)
def test_what_is_public_asks_nobody_who_they_are(
    setting: TeamSetting, outside: dict[str, Person], route: Route
) -> None:
    for person in (*outside.values(), setting.owner):
        assert walk(setting, person, route).status_code == (200 if str(route) in NEEDS_NOTHING else 422)


def test_the_walk_goes_somewhere() -> None:
    """The generated tests would pass on an empty route table."""
    assert len(TEAM_ROUTES) > 50
    assert len(SIGNED_IN_ROUTES) > 10
    assert len(PERMISSIONS) > 20
    assert {route.permission for route in TEAM_ROUTES} >= OWNER_ONLY
    assert len(ROUTES) == len(TEAM_ROUTES) + len(SIGNED_IN_ROUTES) + sum(route.is_public for route in ROUTES)
