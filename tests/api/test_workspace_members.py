"""Workspaces that are private, and roles that hold in one workspace alone."""

from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from tests.api.routes import TEAM_ROUTES, Route
from tests.factories import Answer, Person, TeamSetting, drain, fetch, join, make_key, make_role, make_team

WORKSPACE_ROUTES = [
    route for route in TEAM_ROUTES if {"<uuid:workspace_id>", "<uuid:task_id>"} & set(route.rule.split("/"))
]


class Room:
    """A workspace with a task, made by a member."""

    def __init__(self, setting: TeamSetting, by: Person, visibility: str = "private") -> None:
        self.setting, self.by = setting, by
        made = by.post(f"{setting.path}/workspaces", json={"name": "Vault", "visibility": visibility})
        assert made.status_code == 201, made.text
        self.id, self.shown = made.json["id"], made.json
        self.path = f"{setting.path}/workspaces/{self.id}"
        task = by.post(f"{self.path}/tasks", json={"title": "Hide it"})
        self.task_id = task.json["id"]
        self.task_path = f"{setting.path}/tasks/{self.task_id}"

    def enlist(self, by: Person, person: Person, role: str | None = None) -> Answer:
        return by.put(f"{self.path}/members/{person.id}", json={"role": role})

    def put(self, person: Person, role: str | None = None) -> None:
        answer = self.enlist(self.setting.owner, person, role)
        assert answer.status_code == 200, answer.text

    def take_off(self, by: Person, person: Person) -> Answer:
        return by.delete(f"{self.path}/members/{person.id}")

    def listed(self) -> dict[str, str | None]:
        items = self.setting.owner.get(f"{self.path}/members").json["items"]
        return {row["user"]["id"]: row["role"] for row in items}

    def works_for(self, person: Person) -> set[str]:
        """What of it the person can do: harmless attempts."""
        tries = {
            "read": person.get(self.path),
            "update": person.patch(self.path, json={}),
            "delete": person.delete(self.path, headers={"If-Match": '"stale"'}),
            "read tasks": person.get(self.task_path),
            "create tasks": person.post(f"{self.path}/tasks", json={"title": "More"}),
            "delete tasks": person.delete(self.task_path, headers={"If-Match": '"stale"'}),
        }
        return {name for name, answer in tries.items() if answer.status_code not in {403, 404}}


READING = {"read", "read tasks"}
WORKING = {*READING, "update", "create tasks", "delete tasks"}
ALL = {*WORKING, "delete"}


def test_a_workspace_is_open_unless_it_is_made_private(team: TeamSetting) -> None:
    made = team.member.post(f"{team.path}/workspaces", json={"name": "A"})
    assert made.json["visibility"] == "team"
    room = Room(team, team.member)
    assert room.shown["visibility"] == "private"
    assert room.listed() == {str(team.member.id): None}  # whoever makes it stays in it
    for bad in ("open", "", None, "PRIVATE"):
        answer = team.member.post(f"{team.path}/workspaces", json={"name": "A", "visibility": bad})
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["visibility"])


def test_a_private_workspace_is_for_those_listed_and_the_owner(team: TeamSetting) -> None:
    room = Room(team, team.member)
    assert room.works_for(team.member) == WORKING
    assert room.works_for(team.owner) == ALL
    assert room.works_for(team.admin) == room.works_for(team.viewer) == set()
    room.put(team.admin)
    room.put(team.viewer)
    assert room.works_for(team.admin) == ALL
    assert room.works_for(team.viewer) == READING


def ids(answer: Answer) -> list[str]:
    assert answer.status_code == 200
    return [row["id"] for row in answer.json["items"]]


def test_lists_show_what_the_caller_may_see(team: TeamSetting) -> None:
    room = Room(team, team.member)
    drain()
    outsiders, insiders = (team.admin, team.viewer), (team.member, team.owner)
    for person in insiders:
        assert ids(person.get(f"{team.path}/workspaces")) == [str(team.workspace_id), room.id]
        assert ids(person.get(f"{room.path}/tasks")) == [room.task_id]
        log = person.get(f"{team.path}/activity").json["items"]
        assert {row["workspace_id"] for row in log} >= {room.id}
    for person in outsiders:
        assert ids(person.get(f"{team.path}/workspaces")) == [str(team.workspace_id)]
        assert ids(person.get(f"{team.path}/workspaces?limit=1")) == [str(team.workspace_id)]
        for query in (
            "",
            "?resource_type=task",
            f"?resource_id={room.id}",
            f"?resource_id={room.task_id}",
            "?q=Hide",
            "?q=Vault",
            f"?user_id={team.member.id}",
        ):
            shown = person.get(f"{team.path}/activity{query}")
            assert shown.status_code == 200
            assert room.id not in shown.text
            assert room.task_id not in shown.text
    # The numbers go on: a gap says that something happened, not what.
    owners = [row["seq"] for row in team.owner.get(f"{team.path}/activity").json["items"]]
    admins = [row["seq"] for row in team.admin.get(f"{team.path}/activity").json["items"]]
    assert set(admins) < set(owners)


@pytest.fixture(scope="module")
def hidden(shared: TeamSetting) -> Room:
    """That nobody but the owner sees, not even who is nothing in the team but this."""
    return Room(shared, shared.owner)


@pytest.mark.parametrize("body", [b"{}", b"{", b'{"name": "x", "title": "x", "role": null}'])
@pytest.mark.parametrize("role", ["admin", "member", "viewer"])
@pytest.mark.parametrize("route", WORKSPACE_ROUTES, ids=str)
def test_a_hidden_workspace_is_like_one_that_does_not_exist(
    shared: TeamSetting, hidden: Room, route: Route, role: str, body: bytes
) -> None:
    """Pitfall: existence leaks by 403 against 404."""
    person = shared.people[role]

    def told(workspace_id: UUID | str, task_id: UUID | str) -> tuple[int, dict[str, Any], dict[str, str]]:
        path = route.path(
            team_id=shared.id, workspace_id=workspace_id, task_id=task_id, user_id=shared.owner.id
        )
        answer = person.call(route.method, path, data=body)
        headers = {name: value for name, value in answer.headers.items() if name != "X-Request-Id"}
        return answer.status_code, {**answer.json, "request_id": None}, headers

    shown, absent = told(hidden.id, hidden.task_id), told(uuid7(), uuid7())
    assert shown == absent
    assert shown[0] in {403, 404, 422}


def test_there_is_something_hidden(shared: TeamSetting, hidden: Room) -> None:
    """What the comparison above stands on."""
    assert len(WORKSPACE_ROUTES) >= 12
    assert hidden.works_for(shared.owner) == ALL


def test_a_role_in_a_workspace_goes_instead_of_that_in_the_team(team: TeamSetting) -> None:
    room = Room(team, team.owner, "team")
    elsewhere = Room(team, team.owner, "team")
    assert room.works_for(team.viewer) == READING
    assert room.works_for(team.member) == WORKING
    room.put(team.viewer, "member")
    room.put(team.member, "viewer")
    assert room.works_for(team.viewer) == WORKING
    assert room.works_for(team.member) == READING
    # There, and nowhere else.
    assert elsewhere.works_for(team.viewer) == READING
    assert elsewhere.works_for(team.member) == WORKING
    assert team.viewer.post(f"{team.path}/workspaces", json={"name": "A"}).json["missing"] == (
        "workspaces:create"
    )
    # Nor does it reach past what is about workspaces and tasks.
    room.put(team.viewer, "admin")
    assert room.works_for(team.viewer) == ALL
    assert team.viewer.get(f"{team.path}/api-keys").json["missing"] == "api_keys:read"
    assert team.viewer.patch(team.path, json={"name": "A"}).json["missing"] == "teams:update"
    room.put(team.viewer)
    assert room.works_for(team.viewer) == READING


def test_a_role_that_can_not_read_the_workspace_bars_it(team: TeamSetting) -> None:
    make_role(team, "clerk", "usage:read")
    room = Room(team, team.owner, "team")
    room.put(team.member, "clerk")
    assert team.member.get(room.path).json["missing"] == "workspaces:read"
    assert team.member.get(room.task_path).json["missing"] == "tasks:read"
    assert ids(team.member.get(f"{team.path}/workspaces")) == [str(team.workspace_id)]


def test_the_owner_is_an_admin_in_every_workspace(team: TeamSetting) -> None:
    room = Room(team, team.member)
    refused = room.enlist(team.member, team.owner, "viewer")
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    assert room.enlist(team.member, team.owner).status_code == 200
    # Even if a role was given there before the ownership came.
    room.put(team.admin, "viewer")
    assert room.works_for(team.admin) == READING
    handed = team.owner.post(f"{team.path}/transfer-ownership", json={"user_id": str(team.admin.id)})
    assert handed.status_code == 200
    assert room.works_for(team.admin) == ALL


class TestPower:
    def test_nobody_grants_above_their_own_there(self, team: TeamSetting) -> None:
        room = Room(team, team.member)
        for person in (team.viewer, team.member):
            refused = room.enlist(team.member, person, "admin")
            assert (refused.status_code, refused.json["missing"]) == (403, "workspaces:delete")
        assert room.enlist(team.member, team.viewer, "member").status_code == 200
        assert room.works_for(team.member) == WORKING
        # Whoever has power in this workspace alone gives it in this workspace alone.
        assert room.enlist(team.viewer, join(team, "viewer"), "member").status_code == 200
        other = Room(team, team.member, "team")
        assert other.enlist(team.viewer, team.viewer, "member").json["missing"] == "workspaces:update"

    def test_nobody_takes_from_who_has_more_there(self, team: TeamSetting) -> None:
        room = Room(team, team.member)
        room.put(team.admin)
        assert room.enlist(team.member, team.admin, "viewer").status_code == 403
        assert room.take_off(team.member, team.admin).status_code == 403
        assert room.works_for(team.admin) == ALL
        assert room.take_off(team.owner, team.admin).status_code == 204
        assert room.works_for(team.admin) == set()

    @pytest.mark.parametrize("how", ["role", "admin", "null", "off the list"])
    def test_nobody_lifts_their_own_restriction(self, team: TeamSetting, how: str) -> None:
        make_role(team, "keeper", "workspaces:read", "workspaces:update", "tasks:read")
        room = Room(team, team.owner, "team")
        room.put(team.admin, "keeper")
        before = room.works_for(team.admin)
        assert before == {*READING, "update"}
        refused = {
            "role": lambda: room.enlist(team.admin, team.admin, "member"),
            "admin": lambda: room.enlist(team.admin, team.admin, "admin"),
            "null": lambda: room.enlist(team.admin, team.admin),
            "off the list": lambda: room.take_off(team.admin, team.admin),
        }[how]()
        assert (refused.status_code, refused.json["code"]) == (403, "permission_denied")
        assert room.works_for(team.admin) == before
        assert room.listed()[str(team.admin.id)] == "keeper"

    @pytest.mark.parametrize("how", ["null", "off the list"])
    def test_nobody_lifts_anothers_above_their_own_power(self, team: TeamSetting, how: str) -> None:
        """Without a role there, the role in the team counts again: an admin's, which a member can't give."""
        room = Room(team, team.owner, "team")
        room.put(team.admin, "viewer")
        lift = {"null": room.enlist, "off the list": room.take_off}[how]
        assert lift(team.member, team.admin).status_code == 403
        assert room.works_for(team.admin) == READING
        assert lift(team.owner, team.admin).status_code in {200, 204}
        assert room.works_for(team.admin) == ALL

    def test_a_viewer_lists_nobody(self, team: TeamSetting) -> None:
        room = Room(team, team.owner, "team")
        assert room.enlist(team.viewer, team.viewer, "viewer").json["missing"] == "workspaces:update"
        assert room.take_off(team.viewer, team.member).json["missing"] == "workspaces:update"

    def test_a_key_lists_within_its_scope(self, team: TeamSetting) -> None:
        room = Room(team, team.owner, "team")
        key = make_key(team, team.admin, "workspaces:read", "workspaces:update")
        assert room.enlist(key, team.viewer, "member").status_code == 403
        assert room.enlist(key, team.viewer).status_code == 200

    def test_a_key_takes_its_maker_off_with_the_permission_alone(self, team: TeamSetting) -> None:
        """Oneself is who comes in person: a leaked key does what it was made for."""
        room = Room(team, team.member)
        room.put(team.admin)
        weak = make_key(team, team.admin, "workspaces:read")
        assert room.take_off(weak, team.admin).json["missing"] == "workspaces:update"
        assert room.works_for(team.admin) == ALL


def test_one_leaves_the_list(team: TeamSetting) -> None:
    room = Room(team, team.member)
    room.put(team.viewer)
    assert room.take_off(team.viewer, team.viewer).status_code == 204
    assert room.works_for(team.viewer) == set()
    assert room.take_off(team.viewer, team.viewer).status_code == 404
    assert room.take_off(team.member, team.member).status_code == 204
    assert room.listed() == {}
    assert room.works_for(team.owner) == ALL


def test_a_list_is_of_members(team: TeamSetting, app: Flask) -> None:
    room = Room(team, team.member)
    other = make_team(app, owner=team.owner)
    for person in (other.viewer, other.admin):
        assert room.enlist(team.owner, person).status_code == 404
        assert room.take_off(team.owner, person).status_code == 404
    for role in ("king", "owner", "ADMIN"):
        answer = room.enlist(team.owner, team.viewer, role)
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["role"])
    assert room.listed() == {str(team.member.id): None}


def test_who_leaves_the_team_leaves_its_lists(team: TeamSetting) -> None:
    room = Room(team, team.member)
    room.put(team.viewer, "member")
    assert team.owner.delete(f"{team.path}/members/{team.viewer.id}").status_code == 204
    assert room.listed() == {str(team.member.id): None}
    back = {"user_id": str(team.viewer.id), "role": "viewer"}
    assert team.owner.post(f"{team.path}/members", json=back).status_code == 201
    assert room.works_for(team.viewer) == set()


def test_the_list_is_shown(team: TeamSetting) -> None:
    room = Room(team, team.member)
    room.put(team.viewer, "member")
    shown = room.enlist(team.member, team.viewer, "member")
    assert shown.json["user"] == {"id": str(team.viewer.id), "email": team.viewer.email, "name": "Viewer"}
    assert (set(shown.json), shown.json["role"]) == ({"user", "role", "created_at"}, "member")
    one = f"{room.path}/members/{team.viewer.id}"
    assert team.viewer.get(one).json == shown.json
    assert team.viewer.get(f"{room.path}/members/{team.admin.id}").status_code == 404
    items = team.viewer.get(f"{room.path}/members").json["items"]
    assert len(items) == 2
    pages = [team.viewer.get(f"{room.path}/members?limit=1").json]
    cursor = {"limit": 1, "cursor": pages[0]["next_cursor"]}
    pages.append(team.viewer.get(f"{room.path}/members", query_string=cursor).json)
    assert pages[0]["items"] + pages[1]["items"] == items
    stale = team.viewer.get(one).headers["ETag"]
    assert room.enlist(team.owner, team.viewer, "viewer").status_code == 200
    refused = team.owner.put(one, json={"role": None}, headers={"If-Match": stale})
    assert refused.status_code == 412
    assert team.owner.delete(one, headers={"If-Match": stale}).status_code == 412


def test_opening_and_closing(team: TeamSetting) -> None:
    room = Room(team, team.member)
    room.put(team.admin)
    assert team.admin.patch(room.path, json={"visibility": "team"}).json["visibility"] == "team"
    assert room.works_for(team.viewer) == READING
    assert room.works_for(team.admin) == ALL
    joan, ada = join(team, "member"), join(team, "admin")
    refused = joan.patch(room.path, json={"visibility": "private"})  # it would be taken from the admins
    assert (refused.status_code, refused.json["missing"]) == (403, "workspaces:delete")
    closed = ada.patch(room.path, json={"visibility": "private"})
    assert closed.json["visibility"] == "private"
    assert str(ada.id) in room.listed()  # whoever closes it stays in it
    assert room.works_for(ada) == ALL
    assert room.works_for(team.viewer) == set()
    own = joan.post(f"{team.path}/workspaces", json={"name": "Own"}).json["id"]
    mine = joan.patch(f"{team.path}/workspaces/{own}", json={"visibility": "private"})
    assert mine.json["visibility"] == "private"


def test_the_owner_who_looks_in_is_not_listed(team: TeamSetting) -> None:
    """A change of something else lists nobody: that would be a change without its event."""
    room = Room(team, team.member)
    assert team.owner.patch(room.path, json={"name": "Safe"}).status_code == 200
    assert room.listed() == {str(team.member.id): None}


def test_a_list_changes_with_an_event_that_only_insiders_see(team: TeamSetting) -> None:
    room = Room(team, team.member)
    room.put(team.viewer, "viewer")
    room.put(team.viewer, "viewer")  # again: nothing happens
    room.put(team.viewer, "member")
    assert room.take_off(team.owner, team.viewer).status_code == 204
    drain()
    rows = team.member.get(f"{team.path}/activity?limit=3").json["items"]
    assert [row["action"] for row in rows] == [
        "workspace_member_removed",
        "workspace_member_role_changed",
        "workspace_member_added",
    ]
    assert rows[1]["metadata"] == {
        "workspace_id": room.id,
        "name": "Vault",
        "user_id": str(team.viewer.id),
        "role": "member",
        "from_role": "viewer",
    }
    for person in (team.viewer, team.admin):
        assert room.id not in person.get(f"{team.path}/activity").text


def test_what_happened_in_a_private_workspace_stays_hidden_after_it(team: TeamSetting) -> None:
    room, open_room = Room(team, team.member), Room(team, team.member, "team")
    room.put(team.viewer)
    assert team.owner.delete(room.path).status_code == 204
    assert team.owner.delete(open_room.path).status_code == 204
    drain()

    def seen_by(person: Person, workspace_id: str) -> list[str]:
        rows = person.get(f"{team.path}/activity?limit=200").json["items"]
        return [row["action"] for row in rows if row["workspace_id"] == workspace_id]

    everything = [
        "workspace_deleted",
        "workspace_member_added",
        "task_created",
        "workspace_created",
    ]
    for insider in (team.owner, team.member, team.viewer):
        assert seen_by(insider, room.id) == everything
    assert seen_by(team.admin, room.id) == []
    assert len(seen_by(team.admin, open_room.id)) == 3
    # It goes with the ownership, not with the role.
    handed = team.owner.post(f"{team.path}/transfer-ownership", json={"user_id": str(team.admin.id)})
    assert handed.status_code == 200
    assert seen_by(team.admin, room.id) == everything
    assert seen_by(team.owner, room.id) == []
    (kept,) = fetch("SELECT user_ids FROM deleted_workspaces WHERE workspace_id = :id", id=room.id)
    assert set(kept.user_ids) == {team.member.id, team.viewer.id}


def test_a_tasks_assignee_gets_no_view_of_it(team: TeamSetting) -> None:
    room = Room(team, team.member)
    assigned = team.member.patch(room.task_path, json={"assignee_id": str(team.viewer.id)})
    assert assigned.status_code == 200
    assert team.viewer.get(room.task_path).status_code == 404


def test_a_key_sees_what_its_maker_sees(team: TeamSetting) -> None:
    room = Room(team, team.member)
    scope = ("workspaces:read", "tasks:read", "activity:read")
    owners, admins = (make_key(team, person, *scope) for person in (team.owner, team.admin))
    drain()
    assert room.works_for(owners) == READING
    assert room.works_for(admins) == set()
    assert ids(admins.get(f"{team.path}/workspaces")) == [str(team.workspace_id)]
    assert room.id not in admins.get(f"{team.path}/activity").text
    room.put(team.admin)
    assert room.works_for(admins) == READING
    # A role there counts for the key as for its maker.
    room.put(team.admin, "member")
    key = make_key(team, team.admin, "workspaces:read", "workspaces:delete")
    assert key.delete(room.path).json["missing"] == "workspaces:delete"
