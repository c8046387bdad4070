"""Agents: what they may do is what their role, their key and their person have in common, at that moment."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.access.permissions import BUILT_IN_ROLES, Permission
from tests.factories import (
    Answer,
    KeyHolder,
    Person,
    TeamSetting,
    drain,
    fetch,
    join,
    make_agent,
    make_key,
    make_person,
    make_role,
    make_team,
)

FIELDS = {"id", "team_id", "name", "description", "role", "created_by", "created_at", "updated_at"}
WORKING = ("workspaces:read", "workspaces:create", "tasks:read", "tasks:create")


def agents_key(setting: TeamSetting, agent: dict[str, Any], by: Person, *permissions: str) -> KeyHolder:
    return make_key(setting, by, *permissions, agent_id=agent["id"])


def test_an_agent_is_made_changed_and_deleted(team: TeamSetting) -> None:
    made = team.admin.post(
        f"{team.path}/agents", json={"name": " Scout ", "role": "member", "description": "Looks ahead"}
    )
    assert (made.status_code, set(made.json)) == (201, FIELDS)
    assert (made.json["name"], made.json["role"], made.json["created_by"]) == (
        "Scout",
        "member",
        str(team.admin.id),
    )
    path = f"{team.path}/agents/{made.json['id']}"
    assert team.owner.get(path).json == made.json
    assert team.owner.get(f"{team.path}/agents").json["items"] == [made.json]
    assert team.member.get(path).json["missing"] == "api_keys:read"
    changed = team.owner.patch(path, json={"name": "Ranger", "description": None, "role": "viewer"})
    assert (changed.json["name"], changed.json["description"], changed.json["role"]) == (
        "Ranger",
        None,
        "viewer",
    )
    assert team.owner.patch(path, json={}).json == changed.json
    assert team.owner.delete(path).status_code == 204
    assert team.owner.get(path).status_code == team.owner.delete(path).status_code == 404


def test_a_name_is_an_agents_own(team: TeamSetting, app: Flask) -> None:
    make_agent(team, name="Scout")
    other = make_agent(team, name="Ranger")
    taken = team.owner.post(f"{team.path}/agents", json={"name": "Scout", "role": "viewer"})
    assert (taken.status_code, taken.json["code"]) == (409, "conflict")
    renamed = team.owner.patch(f"{team.path}/agents/{other['id']}", json={"name": "Scout"})
    assert renamed.status_code == 409
    make_agent(make_team(app, roles=()), name="Scout")


def test_an_agent_takes_no_seat(free_team: TeamSetting, app: Flask) -> None:
    for _ in range(4):
        join(free_team, "viewer")
    agent = make_agent(free_team)
    assert agents_key(free_team, agent, free_team.owner, "teams:read").get(free_team.path).status_code == 200
    body = {"user_id": str(make_person(app).id), "role": "viewer"}
    full = free_team.owner.post(f"{free_team.path}/members", json=body)
    assert (full.json["code"], full.json["used"]) == ("seat_limit_reached", 5)
    assert len(free_team.owner.get(f"{free_team.path}/members").json["items"]) == 5


def test_nobody_makes_an_agent_above_their_own_power(team: TeamSetting) -> None:
    make_role(team, "smith", "api_keys:read", "api_keys:create", "tasks:read")
    smith = join(team, "smith")
    above = make_agent(team, "admin", "Chief")
    own = make_agent(team, "smith", by=smith)
    for role in ("admin", "member", "viewer"):
        made = smith.post(f"{team.path}/agents", json={"name": role, "role": role})
        raised = smith.patch(f"{team.path}/agents/{own['id']}", json={"role": role})
        assert (made.status_code, raised.status_code) == (403, 403)
    lowered = smith.patch(f"{team.path}/agents/{above['id']}", json={"role": "smith"})
    assert lowered.status_code == 403
    for role in ("king", "owner"):
        answer = team.owner.post(f"{team.path}/agents", json={"name": "A", "role": role})
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["role"])


def test_a_powerful_agent_lends_nobody_its_power(team: TeamSetting) -> None:
    """Pitfall: an agent that is worth more than whoever holds it."""
    make_role(team, "smith", "api_keys:read", "api_keys:create", "tasks:read")
    smith, chief = join(team, "smith"), make_agent(team, "admin", "Chief")
    key = agents_key(team, chief, smith, "tasks:read", "api_keys:read")
    tasks = f"{team.path}/workspaces/{team.workspace_id}/tasks"
    assert key.get(tasks).status_code == 200
    assert key.post(tasks, json={"title": "A"}).json["missing"] == "tasks:create"
    refused = smith.post(
        f"{team.path}/api-keys",
        json={"name": "A", "permissions": ["members:create"], "agent_id": chief["id"]},
    )
    assert (refused.status_code, refused.json["missing"]) == (403, "members:create")


ROLES = {name: {each.value for each in granted} for name, granted in BUILT_IN_ROLES.items()}
TRIES: dict[str, Callable[[Person, TeamSetting], Answer]] = {
    "workspaces:read": lambda caller, team: caller.get(f"{team.path}/workspaces"),
    "workspaces:create": lambda caller, team: caller.post(f"{team.path}/workspaces", json={"name": "A"}),
    "tasks:create": lambda caller, team: caller.post(
        f"{team.path}/workspaces/{team.workspace_id}/tasks", json={"title": "A"}
    ),
    "members:create": lambda caller, team: caller.get(f"{team.path}/invitations"),
    "api_keys:read": lambda caller, team: caller.get(f"{team.path}/api-keys"),
}


@pytest.mark.parametrize("person_role", ROLES)
@pytest.mark.parametrize("agent_role", ROLES)
@pytest.mark.parametrize("scope", ["workspaces:read", "workspaces:create", "members:create"])
def test_an_agents_power_is_what_all_three_have_in_common(
    team: TeamSetting, agent_role: str, person_role: str, scope: str
) -> None:
    person, agent = join(team, "admin"), make_agent(team, agent_role)
    key = agents_key(team, agent, person, scope)
    changed = team.owner.patch(f"{team.path}/members/{person.id}", json={"role": person_role})
    assert changed.status_code == 200
    for permission, attempt in TRIES.items():
        may = permission == scope and permission in ROLES[agent_role] & ROLES[person_role]
        assert (attempt(key, team).status_code < 300) is may, permission


def test_whatever_shrinks_shrinks_the_running_agent(team: TeamSetting) -> None:
    """Pitfall: an agent goes on with the power that its person has lost."""
    person, agent = join(team, "admin"), make_agent(team, "admin")
    key = agents_key(team, agent, person, *WORKING)
    attempt = TRIES["workspaces:create"]
    member, own = f"{team.path}/members/{person.id}", f"{team.path}/agents/{agent['id']}"
    assert attempt(key, team).status_code == 201
    for path, role, status in (
        (member, "viewer", 403),
        (member, "member", 201),
        (own, "viewer", 403),
        (own, "member", 201),
    ):
        assert team.owner.patch(path, json={"role": role}).status_code == 200
        assert attempt(key, team).status_code == status, (path, role)
    assert team.owner.post(f"{member}/suspend").status_code == 200
    assert attempt(key, team).json["missing"] == "membership"
    assert team.owner.post(f"{member}/reactivate").status_code == 200
    assert attempt(key, team).status_code == 201
    assert team.owner.delete(member).status_code == 204
    assert attempt(key, team).status_code == 401
    assert team.owner.get(own).status_code == 200  # the agent is the team's


def test_a_role_in_a_workspace_counts_for_the_agents_person(team: TeamSetting) -> None:
    agent = make_agent(team, "admin")
    key = agents_key(team, agent, team.admin, *WORKING)
    attempt, listed = TRIES["tasks:create"], f"{team.path}/workspaces/{team.workspace_id}/members"
    assert attempt(key, team).status_code == 201
    assert team.owner.put(f"{listed}/{team.admin.id}", json={"role": "viewer"}).status_code == 200
    assert attempt(key, team).json["missing"] == "tasks:create"


def test_the_log_names_the_agent_and_its_person(team: TeamSetting) -> None:
    """Pitfall: a log that can't tell an agent from a human."""
    agent = make_agent(team, name="Scout")
    key = agents_key(team, agent, team.admin, *WORKING)
    assert key.post(f"{team.path}/workspaces", json={"name": "Answers"}).status_code == 201
    drain()
    path = f"{team.path}/activity?action=workspace_created&limit=1"
    (row,) = team.viewer.get(path).json["items"]
    assert (row["user_id"], row["agent_id"], row["api_key_id"]) == (
        str(team.admin.id),
        agent["id"],
        key.key_id,
    )
    assert row["summary"] == "Scout for Admin created the workspace Answers"
    assert len(team.viewer.get(f"{team.path}/activity?q=scout").json["items"]) == 2  # it was made, and worked
    # Whoever is gone is still known to have been an agent.
    assert team.owner.delete(f"{team.path}/agents/{agent['id']}").status_code == 204
    (row,) = team.viewer.get(path).json["items"]
    assert row["agent_id"] == agent["id"]
    assert row["summary"] == "An agent for Admin created the workspace Answers"


def test_deleting_an_agent_kills_its_keys(team: TeamSetting) -> None:
    agent, other = make_agent(team), make_agent(team, name="Ranger")
    keys = [agents_key(team, agent, person, "teams:read") for person in (team.owner, team.admin)]
    kept = [agents_key(team, other, team.owner, "teams:read"), make_key(team, team.owner, "teams:read")]
    assert team.owner.delete(f"{team.path}/agents/{agent['id']}").status_code == 204
    assert [key.get(team.path).status_code for key in keys] == [401, 401]
    assert [key.get(team.path).status_code for key in kept] == [200, 200]
    assert fetch("SELECT id FROM api_keys WHERE agent_id = :id", id=agent["id"]) == []
    drain()
    (row,) = team.owner.get(f"{team.path}/activity?action=agent_deleted").json["items"]
    assert row["summary"] == "Owner deleted the agent Scout with its 2 keys"


def test_an_agent_is_no_owner_and_makes_no_keys(team: TeamSetting) -> None:
    key = agents_key(team, make_agent(team, "admin"), team.owner, *Permission)
    assert key.delete(team.path).json["missing"] == "owner"
    body = {"name": "A", "permissions": ["teams:read"]}
    assert key.post(f"{team.path}/api-keys", json=body).json["missing"] == "session"


def test_another_teams_agent_is_absent(team: TeamSetting, app: Flask) -> None:
    other = make_team(app, owner=team.owner, roles=())
    agent = make_agent(other)
    path = f"{team.path}/agents/{agent['id']}"
    key = team.owner.post(
        f"{team.path}/api-keys", json={"name": "A", "permissions": ["teams:read"], "agent_id": agent["id"]}
    )
    answers = [team.owner.get(path), team.owner.patch(path, json={}), team.owner.delete(path), key]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 404]
    absent = team.owner.post(
        f"{team.path}/api-keys", json={"name": "A", "permissions": ["teams:read"], "agent_id": str(uuid7())}
    )
    assert absent.json["detail"] == key.json["detail"]
