"""A team's own roles: made and given within one's own power, in force on the next request, and gone from everywhere at once."""

from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.access.permissions import BUILT_IN_ROLES, Permission
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    drain,
    execute,
    invite,
    join,
    make_agent,
    make_key,
    make_person,
    make_role,
    make_team,
)

MANAGING = ("roles:read", "roles:create", "roles:update", "roles:delete", "members:update", "tasks:read")


def role_path(setting: TeamSetting, name: str) -> str:
    return f"{setting.path}/roles/{quote(name)}"


def create(setting: TeamSetting, by: Person, name: str, *permissions: str) -> Answer:
    return by.post(f"{setting.path}/roles", json={"name": name, "permissions": permissions})


def give(setting: TeamSetting, person: Person, role: str) -> None:
    answer = setting.owner.patch(f"{setting.path}/members/{person.id}", json={"role": role})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def manager(team: TeamSetting) -> Person:
    """Manages roles, and is no admin."""
    make_role(team, "manager", *MANAGING)
    return join(team, "manager", "Mia")


def test_the_built_in_roles_come_first_with_what_they_grant(team: TeamSetting) -> None:
    made = make_role(team, "auditor", "activity:read", "usage:read", "activity:read")
    assert made == {
        "name": "auditor",
        "built_in": False,
        "permissions": ["activity:read", "usage:read"],
        "members": 0,
    }
    give(team, team.member, "auditor")
    items = team.viewer.get(f"{team.path}/roles").json["items"]
    assert [(row["name"], row["built_in"], row["members"]) for row in items] == [
        ("admin", True, 2),
        ("member", True, 0),
        ("viewer", True, 1),
        ("auditor", False, 1),
    ]
    assert [set(row["permissions"]) for row in items[:3]] == [
        set(BUILT_IN_ROLES[name]) for name in ("admin", "member", "viewer")
    ]
    assert team.viewer.get(role_path(team, "auditor")).json == items[3]
    first = team.viewer.get(f"{team.path}/roles?limit=2").json
    rest = team.viewer.get(
        f"{team.path}/roles", query_string={"limit": 2, "cursor": first["next_cursor"]}
    ).json
    assert first["items"] + rest["items"] == items
    assert rest["next_cursor"] is None


def test_a_role_counts_from_the_next_request_on(team: TeamSetting) -> None:
    make_role(team, "scribe", "workspaces:read")
    give(team, team.viewer, "scribe")
    workspace = f"{team.path}/workspaces"
    assert team.viewer.get(workspace).status_code == 200
    assert team.viewer.post(workspace, json={"name": "A"}).json["missing"] == "workspaces:create"
    path = role_path(team, "scribe")
    changed = team.owner.patch(path, json={"permissions": ["workspaces:create"]})
    assert (changed.status_code, changed.json["permissions"]) == (200, ["workspaces:create"])
    assert team.viewer.post(workspace, json={"name": "A"}).status_code == 201
    assert team.viewer.get(workspace).json["missing"] == "workspaces:read"


class TestPower:
    """Pitfalls: a ceiling by rank, or by the word "admin", breaks with custom roles."""

    def test_a_role_is_made_within_ones_power(self, team: TeamSetting, manager: Person) -> None:
        for permissions in (list(Permission), ["tasks:read", "tasks:update"], ["billing:read"]):
            refused = create(team, manager, "helper", *permissions)
            assert (refused.status_code, refused.json["code"]) == (403, "permission_denied")
        assert refused.json["missing"] == "billing:read"
        assert create(team, manager, "helper", "tasks:read", "members:update").status_code == 201
        assert create(team, manager, "equal", *MANAGING).status_code == 201

    def test_no_role_is_widened_beyond_ones_power(self, team: TeamSetting, manager: Person) -> None:
        assert create(team, manager, "helper", "tasks:read").status_code == 201
        path = role_path(team, "helper")
        refused = manager.patch(path, json={"permissions": ["tasks:read", "tasks:delete"]})
        assert (refused.status_code, refused.json["missing"]) == (403, "tasks:delete")
        own = manager.patch(role_path(team, "manager"), json={"permissions": [*MANAGING, "members:delete"]})
        assert (own.status_code, own.json["missing"]) == (403, "members:delete")
        assert manager.get(path).json["permissions"] == ["tasks:read"]
        assert manager.patch(path, json={"permissions": ["members:update"]}).status_code == 200

    @pytest.mark.parametrize("body", [{"permissions": ["tasks:read"]}, {"name": "harmless"}])
    def test_a_role_above_is_not_touched(
        self, team: TeamSetting, manager: Person, body: dict[str, Any]
    ) -> None:
        make_role(team, "deputy", "tasks:read", "tasks:delete")
        path = role_path(team, "deputy")
        refused = manager.patch(path, json=body)
        assert (refused.status_code, refused.json["missing"]) == (403, "tasks:delete")
        assert manager.delete(path).json["missing"] == "tasks:delete"
        assert team.owner.get(path).json["permissions"] == ["tasks:delete", "tasks:read"]

    def test_nobody_replaces_a_role_by_one_above(self, team: TeamSetting, manager: Person) -> None:
        assert create(team, manager, "helper", "tasks:read").status_code == 201
        give(team, team.viewer, "helper")
        for above in ("admin", "member", "viewer"):
            refused = manager.delete(f"{role_path(team, 'helper')}?replacement={above}")
            assert refused.status_code == 403
        assert team.viewer.get(team.path).json["missing"] == "teams:read"
        assert manager.delete(f"{role_path(team, 'helper')}?replacement=manager").status_code == 204

    def test_a_role_called_like_an_admin_gives_nothing(self, team: TeamSetting, manager: Person) -> None:
        assert create(team, manager, "administrator", "tasks:read").status_code == 201
        give(team, team.viewer, "administrator")
        assert team.viewer.patch(team.path, json={"name": "Mine"}).json["missing"] == "teams:update"
        raised = manager.patch(f"{team.path}/members/{team.member.id}", json={"role": "administrator"})
        assert raised.status_code == 403  # whose role grants more than the manager's

    def test_an_admin_by_another_name_is_one(self, team: TeamSetting) -> None:
        make_role(team, "everything", *Permission)
        deputy = join(team, "everything")
        assert create(team, deputy, "more", *Permission).status_code == 201
        demoted = deputy.patch(f"{team.path}/members/{team.admin.id}", json={"role": "viewer"})
        assert demoted.status_code == 200
        assert deputy.delete(team.path).json["missing"] == "owner"

    def test_a_key_makes_roles_within_its_scope(self, team: TeamSetting) -> None:
        key = make_key(team, team.admin, "roles:create", "tasks:read")
        assert create(team, key, "helper", "tasks:update").json["missing"] == "tasks:update"
        assert create(team, key, "helper", "tasks:read").status_code == 201


@pytest.mark.parametrize(
    "name",
    [
        "Admin", "ADMIN", "member", "VIEWER", "owner", "Owner", "\uff21\uff24\uff2d\uff29\uff2e",
        "\uff4f\uff57\uff4e\uff45\uff52", "Auditor", "AUDITOR", " auditor ", "\uff41uditor", "Stra\u00dfe", "STRASSE",
    ],
)  # fmt: skip
def test_a_name_that_people_would_take_for_another_is_taken(team: TeamSetting, name: str) -> None:
    """Pitfall: a custom role that is named like a built-in one."""
    make_role(team, "auditor", "activity:read")
    make_role(team, "strasse", "activity:read")
    make_role(team, "other", "activity:read")
    for answer in (
        create(team, team.owner, name, "activity:read"),
        team.owner.patch(role_path(team, "other"), json={"name": name}),
    ):
        assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert len(team.owner.get(f"{team.path}/roles").json["items"]) == 6


def test_a_role_may_change_how_its_own_name_is_spelt(team: TeamSetting) -> None:
    make_role(team, "auditor", "activity:read")
    give(team, team.viewer, "auditor")
    renamed = team.owner.patch(role_path(team, "auditor"), json={"name": "Auditor"})
    assert (renamed.status_code, renamed.json["name"], renamed.json["members"]) == (200, "Auditor", 1)
    assert team.owner.get(role_path(team, "auditor")).status_code == 404


@pytest.mark.parametrize("name", ["Lead-dev 2.0", "Prüferin", "審計員", "a", "x" * 50, "1_a"])
def test_a_name_stands_in_a_path(team: TeamSetting, name: str) -> None:
    made = create(team, team.owner, name, "teams:read")
    assert (made.status_code, made.json["name"]) == (201, name)
    path = role_path(team, name)
    assert team.owner.get(path).json == made.json
    assert team.owner.patch(path, json={"permissions": ["tasks:read"]}).status_code == 200
    give(team, team.viewer, name)
    assert team.viewer.get(f"{team.path}/workspaces/{team.workspace_id}/tasks").status_code == 200
    assert team.owner.delete(f"{path}?replacement=viewer").status_code == 204
    assert team.owner.get(path).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "x" * 51,
        "a/b",
        "..",
        ".",
        "-a",
        "a?b",
        "a#b",
        "a%b",
        "a\u200bb",
        "a\u202eb",
        "a\nb",
        "<b>",
        "a;b",
    ],
)
def test_a_name_that_could_not_is_refused(team: TeamSetting, name: str) -> None:
    answer = create(team, team.owner, name, "teams:read")
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["name"])


def test_a_decomposed_name_is_composed(team: TeamSetting) -> None:
    made = create(team, team.owner, "Pru\u0308ferin", "teams:read")
    assert made.json["name"] == "Pr\u00fcferin"
    assert create(team, team.owner, "Pr\u00fcferin", "teams:read").status_code == 409


@pytest.mark.parametrize("name", ["%00", "%FF", "a%2Fb", "x" * 2_000, "..", "%F0%9F%8C%8A"])
def test_a_path_that_names_no_role_is_404(team: TeamSetting, name: str) -> None:
    path = f"{team.path}/roles/{name}"
    for answer in (
        team.owner.get(path),
        team.owner.patch(path, json={"permissions": ["teams:read"]}),
        team.owner.delete(path),
    ):
        assert answer.status_code == 404, answer.text


@pytest.mark.parametrize(
    "permissions", [[], ["teams:raed"], ["teams"], ["*"], ["teams:read", "x:y"], ["TEAMS:READ"], "teams:read"]
)
def test_a_permission_that_does_not_exist_is_422(team: TeamSetting, permissions: Any) -> None:
    for answer in (
        team.owner.post(f"{team.path}/roles", json={"name": "auditor", "permissions": permissions}),
        team.owner.patch(role_path(team, "viewer"), json={"permissions": permissions}),
    ):
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["permissions"])


@pytest.mark.parametrize("name", BUILT_IN_ROLES)
def test_a_built_in_role_stays_as_it_is(team: TeamSetting, name: str) -> None:
    path = role_path(team, name)
    before = team.owner.get(path).json
    for answer in (
        team.owner.patch(path, json={"permissions": ["teams:read"]}),
        team.owner.patch(path, json={"name": "renamed"}),
        team.owner.delete(path),
        team.owner.delete(f"{path}?replacement=admin"),
    ):
        assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert team.owner.get(path).json == before
    assert make_team(team.owner.app).viewer.get(team.path).status_code == 404  # who is one elsewhere


class Everywhere:
    """A role in use in every place that can name one."""

    def __init__(self, setting: TeamSetting, role: str) -> None:
        self.setting = setting
        self.person = join(setting, role)
        self.invitation = invite(setting, f"{uuid7().hex}@example.com", role)
        self.agent = make_agent(setting, role)
        self.listed = f"{setting.path}/workspaces/{setting.workspace_id}/members/{setting.member.id}"
        assert setting.owner.put(self.listed, json={"role": role}).status_code == 200

    def roles(self) -> dict[str, str]:
        get, path = self.setting.owner.get, self.setting.path
        return {
            "members": get(f"{path}/members/{self.person.id}").json["role"],
            "invitations": get(f"{path}/invitations/{self.invitation['id']}").json["role"],
            "agents": get(f"{path}/agents/{self.agent['id']}").json["role"],
            "workspace_members": get(self.listed).json["role"],
        }


def test_a_renamed_role_is_renamed_everywhere(team: TeamSetting) -> None:
    make_role(team, "scribe", "tasks:read", "workspaces:read")
    over = invite(team, f"{uuid7().hex}@example.com", "scribe")
    assert team.owner.delete(f"{team.path}/invitations/{over['id']}").status_code == 204
    used = Everywhere(team, "scribe")
    other = make_team(team.owner.app)
    make_role(other, "scribe", "tasks:read", "workspaces:read")
    elsewhere = Everywhere(other, "scribe")
    renamed = team.owner.patch(role_path(team, "scribe"), json={"name": "writer"})
    assert (renamed.status_code, renamed.json["permissions"]) == (200, ["tasks:read", "workspaces:read"])
    assert set(used.roles().values()) == {"writer"}
    assert used.person.get(f"{team.path}/workspaces").status_code == 200
    assert set(elsewhere.roles().values()) == {"scribe"}
    # What is over keeps what it said.
    assert team.owner.get(f"{team.path}/invitations/{over['id']}").json["role"] == "scribe"
    assert elsewhere.person.get(f"{other.path}/workspaces").status_code == 200
    drain()
    (row,) = team.owner.get(f"{team.path}/activity?action=role_updated").json["items"]
    assert row["metadata"]["changes"] == {"name": ["scribe", "writer"]}


def test_a_role_in_use_needs_a_replacement(team: TeamSetting) -> None:
    make_role(team, "scribe", "tasks:read", "workspaces:read")
    used = Everywhere(team, "scribe")
    path = role_path(team, "scribe")
    refused = team.owner.delete(path)
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    assert refused.json["in_use"] == {"members": 1, "workspace_members": 1, "invitations": 1, "agents": 1}
    for replacement in ("scribe", "king", "owner", "%00"):
        answer = team.owner.delete(f"{path}?replacement={replacement}")
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["replacement"])
    assert set(used.roles().values()) == {"scribe"}
    assert team.owner.delete(f"{path}?replacement=viewer").status_code == 204
    assert set(used.roles().values()) == {"viewer"}
    assert used.person.get(team.path).json["role"] == "viewer"
    drain()
    (row,) = team.owner.get(f"{team.path}/activity?action=role_deleted").json["items"]
    assert (row["metadata"]["name"], row["metadata"]["replacement"]) == ("scribe", "viewer")


@pytest.mark.parametrize("place", ["members", "workspace_members", "invitations", "agents"])
def test_each_place_counts_as_use(team: TeamSetting, place: str) -> None:
    make_role(team, "scribe", "tasks:read", "workspaces:read")
    if place == "members":
        join(team, "scribe")
    elif place == "invitations":
        invite(team, f"{uuid7().hex}@example.com", "scribe")
    elif place == "agents":
        make_agent(team, "scribe")
    else:
        listed = f"{team.path}/workspaces/{team.workspace_id}/members/{team.viewer.id}"
        assert team.owner.put(listed, json={"role": "scribe"}).status_code == 200
    refused = team.owner.delete(role_path(team, "scribe"))
    assert refused.status_code == 409
    assert {name: count for name, count in refused.json["in_use"].items() if count} == {place: 1}


def test_what_is_over_is_no_use(team: TeamSetting, app: Flask) -> None:
    make_role(team, "scribe", "tasks:read")
    person = make_person(app)
    made = invite(team, person.email, "scribe")
    assert team.owner.delete(f"{team.path}/invitations/{made['id']}").status_code == 204
    assert team.owner.delete(role_path(team, "scribe")).status_code == 204
    assert team.owner.get(f"{team.path}/invitations/{made['id']}").json["role"] == "scribe"
    # Its name can be used again, and gives nothing to what was over before.
    make_role(team, "scribe", "tasks:delete")
    assert person.post("/invitations/accept", json={"token": made["token"]}).status_code == 409


def test_an_unused_role_is_deleted(team: TeamSetting) -> None:
    make_role(team, "scribe", "tasks:read")
    path = role_path(team, "scribe")
    assert team.viewer.delete(path).json["missing"] == "roles:delete"
    assert team.owner.delete(path).status_code == 204
    assert team.owner.get(path).status_code == 404
    assert team.owner.delete(path).status_code == 404
    added = team.owner.patch(f"{team.path}/members/{team.viewer.id}", json={"role": "scribe"})
    assert (added.status_code, list(added.json["errors"])) == (422, ["role"])


def test_roles_of_one_name_in_two_teams_do_not_mix(team: TeamSetting, app: Flask) -> None:
    """Pitfall: a role looked up by its name alone."""
    other = make_team(app, owner=team.owner)
    make_role(team, "scribe", "tasks:read")
    make_role(other, "scribe", "workspaces:read", "workspaces:create")
    person = join(team, "scribe")
    added = other.owner.post(f"{other.path}/members", json={"user_id": str(person.id), "role": "scribe"})
    assert added.status_code == 201
    assert person.get(f"{team.path}/workspaces").json["missing"] == "workspaces:read"
    assert person.get(f"{other.path}/workspaces").status_code == 200
    assert team.owner.get(role_path(team, "scribe")).json["permissions"] == ["tasks:read"]
    assert team.owner.get(role_path(team, "scribe")).json["members"] == 1
    assert (
        other.owner.patch(role_path(other, "scribe"), json={"permissions": ["usage:read"]}).status_code == 200
    )
    assert team.owner.get(role_path(team, "scribe")).json["permissions"] == ["tasks:read"]
    assert team.owner.delete(f"{role_path(team, 'scribe')}?replacement=viewer").status_code == 204
    assert other.owner.get(role_path(other, "scribe")).json["members"] == 1
    assert person.get(f"{other.path}/usage").status_code == 200


def test_another_teams_role_is_absent(team: TeamSetting, app: Flask) -> None:
    other = make_team(app, owner=team.owner, roles=())
    make_role(other, "scribe", "tasks:read")
    path = role_path(team, "scribe")
    for answer in (
        team.owner.get(path),
        team.owner.patch(path, json={"permissions": ["teams:read"]}),
        team.owner.delete(path),
    ):
        assert answer.status_code == 404
    assert other.owner.get(role_path(other, "scribe")).status_code == 200


def test_a_stale_change_changes_nothing(team: TeamSetting) -> None:
    make_role(team, "scribe", "tasks:read")
    path = role_path(team, "scribe")
    stale = team.owner.get(path).headers["ETag"]
    changed = team.admin.patch(path, json={"permissions": ["usage:read"]})
    assert changed.headers["ETag"] != stale
    for answer in (
        team.owner.patch(path, json={"permissions": ["teams:read"]}, headers={"If-Match": stale}),
        team.owner.delete(path, headers={"If-Match": stale}),
    ):
        assert (answer.status_code, answer.json["code"]) == (412, "precondition_failed")
    assert team.owner.get(path).json == changed.json
    assert team.owner.delete(path, headers={"If-Match": changed.headers["ETag"]}).status_code == 204


def test_nothing_changed_is_no_event(team: TeamSetting) -> None:
    made = make_role(team, "scribe", "tasks:read", "usage:read")
    path = role_path(team, "scribe")
    for body in ({}, {"name": "scribe"}, {"permissions": ["usage:read", "tasks:read", "usage:read"]}):
        assert team.owner.patch(path, json=body).json == made
    drain()
    assert team.owner.get(f"{team.path}/activity?action=role_updated").json["items"] == []


def test_a_grant_that_is_not_allowed_is_none(team: TeamSetting) -> None:
    make_role(team, "scribe", "tasks:read")
    execute(
        "INSERT INTO permissions (id, team_id, role, resource, action, allowed)"
        " VALUES (:id, :team_id, 'scribe', 'tasks', 'delete', false)",
        id=uuid7(),
        team_id=team.id,
    )
    assert team.owner.get(role_path(team, "scribe")).json["permissions"] == ["tasks:read"]
    give(team, team.viewer, "scribe")
    assert team.viewer.delete(f"{team.path}/tasks/{uuid7()}").json["missing"] == "tasks:delete"
