"""Members: seating, roles, removing and leaving; the seat limit, and that nobody grants above their own power."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.access.permissions import BUILT_IN_ROLES, Permission
from tests.factories import Answer, Person, TeamSetting, join, make_person, make_role


def add(setting: TeamSetting, by: Person, person: Person, role: str = "viewer") -> tuple[int, str | None]:
    answer = by.post(f"{setting.path}/members", json={"user_id": str(person.id), "role": role})
    return answer.status_code, answer.json.get("code")


def give(setting: TeamSetting, person: Person, role: str) -> None:
    answer = setting.owner.patch(f"{setting.path}/members/{person.id}", json={"role": role})
    assert answer.status_code == 200


def test_a_member_is_added_by_id_or_address(app: Flask, team: TeamSetting) -> None:
    by_id, by_email = make_person(app, "Ann"), make_person(app, "Bob")
    path = f"{team.path}/members"
    added = team.admin.post(path, json={"user_id": str(by_id.id), "role": "member"})
    assert added.status_code == 201
    assert added.json["user"] == {"id": str(by_id.id), "email": by_id.email, "name": "Ann"}
    assert (added.json["role"], set(added.json)) == ("member", {"user", "role", "joined_at", "suspended_at"})
    assert team.viewer.get(f"{path}/{by_id.id}").json == added.json
    shouted = {"email": by_email.email.upper(), "role": "viewer"}
    assert team.admin.post(path, json=shouted).json["user"]["id"] == str(by_email.id)
    assert by_email.get(team.path).json["role"] == "viewer"
    listed = [row["user"]["id"] for row in team.viewer.get(path).json["items"]]
    assert listed[-2:] == [str(by_id.id), str(by_email.id)]
    assert len(listed) == 6


def test_who_may_not_adds_nobody(app: Flask, team: TeamSetting) -> None:
    person = make_person(app)
    path, body = f"{team.path}/members", {"user_id": str(person.id), "role": "viewer"}
    for caller in (team.member, team.viewer):
        assert caller.post(path, json=body).json["missing"] == "members:create"
    assert person.get(team.path).status_code == 404
    assert team.admin.post(path, json=body).status_code == 201


def test_an_unknown_user_is_404(team: TeamSetting) -> None:
    path = f"{team.path}/members"
    for unknown in ({"user_id": str(uuid7())}, {"email": f"{uuid7().hex}@example.com"}):
        answer = team.owner.post(path, json={**unknown, "role": "member"})
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_one_user_is_named_one_way(app: Flask, team: TeamSetting) -> None:
    person = make_person(app)
    for named in ({}, {"user_id": str(person.id), "email": person.email}):
        answer = team.owner.post(f"{team.path}/members", json={**named, "role": "member"})
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["user_id"])


def test_a_member_is_added_once(app: Flask, team: TeamSetting) -> None:
    person = make_person(app)
    assert add(team, team.owner, person, "member") == (201, None)
    assert add(team, team.owner, person, "viewer") == (409, "conflict")
    assert person.get(team.path).json["role"] == "member"


@pytest.mark.parametrize("role", ["owner", "nobody", "ADMIN"])
def test_a_role_that_does_not_exist_is_422(app: Flask, team: TeamSetting, role: str) -> None:
    added = team.owner.post(f"{team.path}/members", json={"user_id": str(make_person(app).id), "role": role})
    changed = team.owner.patch(f"{team.path}/members/{team.viewer.id}", json={"role": role})
    for answer in (added, changed):
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["role"])


def test_the_free_plan_seats_five(app: Flask, free_team: TeamSetting) -> None:
    owner = free_team.owner
    people = [make_person(app) for _ in range(5)]
    assert [add(free_team, owner, person) for person in people] == [(201, None)] * 4 + [
        (409, "seat_limit_reached")
    ]
    assert len(owner.get(f"{free_team.path}/members").json["items"]) == 5
    refused = owner.post(f"{free_team.path}/members", json={"user_id": str(people[4].id), "role": "viewer"})
    assert (refused.json["limit"], refused.json["used"]) == (5, 5)
    assert people[4].get(free_team.path).status_code == 404
    # A seat that is given up can be taken, and the next plan has more.
    assert owner.delete(f"{free_team.path}/members/{people[0].id}").status_code == 204
    assert add(free_team, owner, people[4]) == (201, None)
    assert add(free_team, owner, people[0]) == (409, "seat_limit_reached")
    assert owner.put(f"{free_team.path}/plan", json={"plan": "pro"}).status_code == 200
    assert add(free_team, owner, people[0]) == (201, None)


def test_the_last_seat_is_taken_once(app: Flask, free_team: TeamSetting) -> None:
    owner = free_team.owner
    for _ in range(3):
        assert add(free_team, owner, make_person(app)) == (201, None)

    def add_one(person: Person) -> int:
        caller = Person(app, owner.id, owner.email, owner.name, owner.token)  # with a client of its own
        return add(free_team, caller, person)[0]

    people = [make_person(app) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(add_one, people)) == [201, 409, 409, 409]
    assert len(owner.get(f"{free_team.path}/members").json["items"]) == 5


def test_a_role_is_changed(team: TeamSetting) -> None:
    path = f"{team.path}/members/{team.viewer.id}"
    assert team.member.patch(path, json={"role": "member"}).json["missing"] == "members:update"
    changed = team.admin.patch(path, json={"role": "member"})
    assert (changed.status_code, changed.json["role"]) == (200, "member")
    assert changed.json == team.viewer.get(path).json
    assert team.viewer.get(team.path).json["role"] == "member"
    assert team.admin.patch(path, json={"role": "member"}).json == changed.json  # again: nothing happens


def test_the_owner_stays_an_admin_and_a_member(team: TeamSetting) -> None:
    path = f"{team.path}/members/{team.owner.id}"
    for person in (team.admin, team.owner):
        assert person.patch(path, json={"role": "viewer"}).json["code"] == "conflict"
        assert person.delete(path).json["code"] == "conflict"
    assert team.owner.get(team.path).json["role"] == "admin"
    handed = team.owner.post(f"{team.path}/transfer-ownership", json={"user_id": str(team.admin.id)})
    assert handed.status_code == 200
    assert team.owner.delete(path).status_code == 204
    assert team.owner.get(team.path).status_code == 404


def test_a_member_is_removed_or_leaves(team: TeamSetting) -> None:
    viewer, member = (f"{team.path}/members/{person.id}" for person in (team.viewer, team.member))
    assert team.viewer.delete(member).json["missing"] == "members:delete"
    assert team.viewer.get(team.path).status_code == 200
    left = team.viewer.delete(viewer)
    assert (left.status_code, left.data) == (204, b"")
    assert team.viewer.get(team.path).status_code == 404
    assert team.admin.delete(member).status_code == 204
    assert team.member.get(team.path).status_code == 404
    assert team.admin.delete(member).status_code == 404
    assert team.admin.get(member).status_code == 404


def test_another_teams_member_is_no_member(app: Flask, team: TeamSetting) -> None:
    path = f"{team.path}/members/{make_person(app).id}"
    assert [team.owner.get(path).status_code, team.owner.delete(path).status_code] == [404, 404]
    assert team.owner.patch(path, json={"role": "member"}).status_code == 404


def test_nobody_grants_above_their_own_power(app: Flask, team: TeamSetting) -> None:
    """A recruiter has what a viewer has, and the members' verbs: enough for viewers, too little for members and admins."""
    recruiter = make_person(app)
    make_role(
        team,
        "recruiter",
        *BUILT_IN_ROLES["viewer"],
        Permission.members_create,
        Permission.members_update,
        Permission.members_delete,
    )
    assert add(team, team.owner, recruiter, "recruiter") == (201, None)

    people = {role: make_person(app) for role in ("viewer", "recruiter", "member", "admin")}
    assert [add(team, recruiter, person, role) for role, person in people.items()] == [
        (201, None),
        (201, None),
        (403, "permission_denied"),
        (403, "permission_denied"),
    ]
    raised = recruiter.patch(f"{team.path}/members/{team.viewer.id}", json={"role": "member"})
    assert (raised.status_code, raised.json["missing"]) == (403, "realtime:publish")
    own = recruiter.patch(f"{team.path}/members/{recruiter.id}", json={"role": "admin"})
    assert own.status_code == 403
    # Nor do they take from those who have more.
    above = f"{team.path}/members/{team.admin.id}"
    assert recruiter.patch(above, json={"role": "viewer"}).status_code == 403
    assert recruiter.delete(above).status_code == 403
    assert recruiter.delete(f"{team.path}/members/{team.viewer.id}").status_code == 204
    assert team.admin.get(team.path).json["role"] == "admin"


def test_a_permission_that_the_role_lacks_is_asked_for_first(app: Flask, team: TeamSetting) -> None:
    make_role(team, "doorman", Permission.members_create)
    give(team, team.viewer, "doorman")
    person = make_person(app)
    assert add(team, team.viewer, person, "doorman") == (201, None)
    refused = team.viewer.delete(f"{team.path}/members/{person.id}")
    assert (refused.status_code, refused.json["missing"]) == (403, "members:delete")
    assert team.viewer.get(f"{team.path}/members").json["missing"] == "members:read"


POWER = {
    "viewer": set(BUILT_IN_ROLES["viewer"]),
    "member": set(BUILT_IN_ROLES["member"]),
    "recruiter": {*BUILT_IN_ROLES["viewer"], Permission.members_update, Permission.members_delete},
    "admin": set(BUILT_IN_ROLES["admin"]),
}
VERBS: dict[str, tuple[Permission, Callable[[Person, str], Answer]]] = {
    "demote": (Permission.members_update, lambda by, path: by.patch(path, json={"role": "guest"})),
    "remove": (Permission.members_delete, lambda by, path: by.delete(path)),
    "suspend": (Permission.members_update, lambda by, path: by.post(f"{path}/suspend")),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("caller", POWER)
def test_what_counts_is_the_callers_power_over_the_target(team: TeamSetting, caller: str, verb: str) -> None:
    """Pitfalls: the target's role is checked instead of the caller's; a guard that only runs when the two are the same."""
    make_role(team, "recruiter", *POWER["recruiter"])
    make_role(team, "guest", Permission.teams_read)
    permission, act = VERBS[verb]
    by = join(team, caller)
    for target in (*POWER, "owner"):
        person = team.owner if target == "owner" else join(team, target)
        answer = act(by, f"{team.path}/members/{person.id}")
        if permission not in POWER[caller]:
            assert (answer.status_code, answer.json["missing"]) == (403, permission.value), target
        elif target == "owner":
            assert answer.status_code == 409
        elif POWER[target] <= POWER[caller]:
            assert answer.status_code in {200, 204}, target
            continue
        else:
            assert answer.status_code == 403, target
        kept = team.owner.get(f"{team.path}/members/{person.id}").json
        assert (kept["role"], kept["suspended_at"]) == ("admin" if target == "owner" else target, None)
