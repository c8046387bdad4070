"""Who may see a workspace, asked for many at once."""

from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.database import transaction
from models.operations import activity
from models.queries.audiences import audiences, audiences_of
from models.tables import DeletedWorkspace, Workspace, WorkspaceMember
from tests.factories import Person, TeamSetting, drain, make_team
from tests.models.conftest import CountStatements


def make_workspace(team: TeamSetting, visibility: str, *listed: Person) -> UUID:
    with transaction() as session:
        workspace = Workspace(team_id=team.id, name="Board", visibility=visibility, created_by=team.owner.id)
        session.add(workspace)
        session.flush()
        for person in listed:
            session.add(WorkspaceMember(team_id=team.id, workspace_id=workspace.id, user_id=person.id))
        return workspace.id


def delete(team: TeamSetting, workspace_id: UUID, *could_see: Person) -> None:
    with transaction() as session:
        ids = [person.id for person in could_see]
        session.add(DeletedWorkspace(team_id=team.id, workspace_id=workspace_id, user_ids=ids))
        session.delete(session.get_one(Workspace, workspace_id))


def asked(*workspace_ids: UUID) -> dict[UUID, frozenset[UUID]]:
    with transaction() as session:
        return audiences(session, workspace_ids)


def of(*people: Person) -> frozenset[UUID]:
    return frozenset(person.id for person in people)


def test_an_open_workspace_has_no_audience_of_its_own(team: TeamSetting) -> None:
    open_one = make_workspace(team, "team", team.member)
    private = make_workspace(team, "private", team.member)
    assert asked(open_one, private, uuid7()) == {private: of(team.owner, team.member)}


def test_a_private_workspace_is_the_listeds_and_the_owners(team: TeamSetting) -> None:
    nobodys, viewers, everyones = (
        make_workspace(team, "private", *listed)
        for listed in ([], [team.viewer], [team.owner, team.admin, team.member, team.viewer])
    )
    assert asked(nobodys, viewers, everyones) == {
        nobodys: of(team.owner),
        viewers: of(team.owner, team.viewer),
        everyones: of(team.owner, team.admin, team.member, team.viewer),
    }


def test_a_deleted_one_is_theirs_who_could_see_it_and_the_present_owners(team: TeamSetting) -> None:
    gone, open_gone = make_workspace(team, "private"), make_workspace(team, "team")
    delete(team, gone, team.member)
    with transaction() as session:
        session.delete(session.get_one(Workspace, open_gone))
    assert asked(gone, open_gone) == {gone: of(team.owner, team.member)}
    with transaction() as session:
        session.execute(
            text("UPDATE teams SET owner_id = :user WHERE id = :team"),
            {"user": team.admin.id, "team": team.id},
        )
    assert asked(gone) == {gone: of(team.admin, team.member)}


def test_whoever_leaves_the_team_is_off_the_list(team: TeamSetting) -> None:
    private = make_workspace(team, "private", team.member, team.viewer)
    with transaction() as session:
        session.execute(
            text("DELETE FROM team_members WHERE team_id = :team AND user_id = :user"),
            {"team": team.id, "user": team.member.id},
        )
    assert asked(private) == {private: of(team.owner, team.viewer)}


def test_each_workspace_has_its_own_teams_people(app: Flask, team: TeamSetting) -> None:
    other = make_team(app)
    ours = make_workspace(team, "private", team.member)
    theirs = make_workspace(other, "private", other.viewer)
    assert asked(ours, theirs) == {ours: of(team.owner, team.member), theirs: of(other.owner, other.viewer)}


@pytest.mark.parametrize(("asked_for", "expected"), [(0, 0), (1, 1), (50, 1)])
def test_one_statement_for_all_and_none_for_none(
    team: TeamSetting, statements: CountStatements, asked_for: int, expected: int
) -> None:
    """One, and so one snapshot: a workspace that is deleted meanwhile can't slip between the two tables."""
    ids = [make_workspace(team, "private") for _ in range(asked_for)]
    with transaction() as session, statements() as seen:
        assert set(audiences(session, ids)) == set(ids)
    assert len(seen) == expected


def test_events_are_asked_for_by_where_they_happened(team: TeamSetting) -> None:
    drain()
    created = team.owner.post(f"{team.path}/workspaces", json={"name": "Board"}).json
    team.owner.patch(team.path, json={"name": "No workspace is concerned"})
    with transaction() as session:
        session.execute(
            text("UPDATE workspaces SET visibility = 'private' WHERE id = :id"), {"id": created["id"]}
        )
        projected = activity.project(session, limit=500)
        found = audiences_of(session, projected)
    assert {row.workspace_id for row in projected} == {None, UUID(created["id"])}
    assert found == {UUID(created["id"]): of(team.owner)}
