"""What pages of people read besides the API's lists: counts and last acts, within what the reader may see."""

from datetime import datetime
from uuid import UUID

import pytest
from flask import Flask

from models.database import transaction
from models.queries import activity, teams, workspaces
from tests.factories import Person, TeamSetting, drain, make_team


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    return make_team(app)


def private_workspace(team: TeamSetting, *listed: Person) -> str:
    made = team.owner.post(f"{team.path}/workspaces", json={"name": "Cellar", "visibility": "private"})
    workspace_id: str = made.json["id"]
    for person in listed:
        answer = team.owner.put(f"{team.path}/workspaces/{workspace_id}/members/{person.id}", json={})
        assert answer.status_code in {200, 201}, answer.text
    return workspace_id


def counts(team: TeamSetting, reader: Person) -> dict[UUID, int]:
    ids = [team.owner.id, team.admin.id, team.member.id]
    with transaction() as session:
        access = reader.enter(session, team.id)
        owner_id = teams.get(session, access).owner_id
        return workspaces.counts_by_member(session, access, ids, owner_id)


def last_acts(team: TeamSetting, reader: Person, *people: Person) -> dict[UUID, datetime]:
    with transaction() as session:
        return activity.last_acts(
            session, reader.enter(session, team.id), [UUID(str(each.id)) for each in people]
        )


def test_a_private_workspace_counts_for_whom_it_lists_and_the_owner(team: TeamSetting) -> None:
    private_workspace(team, team.owner, team.admin)
    private_workspace(team, team.member)
    assert counts(team, team.owner) == {team.owner.id: 3, team.admin.id: 2, team.member.id: 2}


def test_a_workspace_that_the_reader_does_not_see_counts_for_nobody(team: TeamSetting) -> None:
    private_workspace(team, team.admin)
    assert counts(team, team.viewer) == {team.owner.id: 1, team.admin.id: 1, team.member.id: 1}
    assert counts(team, team.admin) == {team.owner.id: 2, team.admin.id: 2, team.member.id: 1}


def test_the_last_act_is_the_newest_and_nobody_elses(team: TeamSetting) -> None:
    path = f"{team.path}/workspaces/{team.workspace_id}/tasks"
    for title in ("One", "Two"):
        assert team.member.post(path, json={"title": title}).status_code == 201
    drain()
    found = last_acts(team, team.owner, team.member, team.viewer)
    rows = team.owner.get(f"{team.path}/activity?user_id={team.member.id}").json["items"]
    assert {user_id: at.isoformat().replace("+00:00", "Z") for user_id, at in found.items()} == {
        UUID(str(team.member.id)): rows[0]["created_at"]
    }


def test_an_act_in_a_workspace_that_is_hidden_from_the_reader_is_none(team: TeamSetting) -> None:
    workspace_id = private_workspace(team, team.member)
    answer = team.member.post(f"{team.path}/workspaces/{workspace_id}/tasks", json={"title": "Quiet"})
    assert answer.status_code == 201, answer.text
    drain()
    assert last_acts(team, team.viewer, team.member) == {}
    assert len(last_acts(team, team.owner, team.member)) == 1
