"""Workspaces under contention: who is listed is a member, and who is taken off the list stays off it."""

from functools import partial
from uuid import UUID

import pytest
from flask import Flask

from models.errors import Conflict, NotFound, PermissionDenied
from tests.factories import TeamSetting, make_team
from tests.models.membership import (
    create_workspace,
    crown,
    delete_workspace,
    enlist,
    fetch,
    in_workspace,
    put,
    race,
    remove,
    rounds,
    run,
    transfer,
    unlist,
    update_workspace,
)


@pytest.fixture(scope="module")
def arena(app: Flask) -> TeamSetting:
    """A team for many rounds; each puts it as it needs it."""
    return make_team(app)


def stage(team: TeamSetting, visibility: str = "team") -> None:
    """The team as it was, and nobody listed in its workspace."""
    put(team.id, team.admin, "admin")
    put(team.id, team.member, "member")
    run("DELETE FROM workspace_members WHERE team_id = :id", id=team.id)
    run("UPDATE workspaces SET visibility = :v WHERE id = :id", id=team.workspace_id, v=visibility)


def listed(team: TeamSetting) -> dict[UUID, str | None]:
    rows = fetch("SELECT user_id, role FROM workspace_members WHERE workspace_id = :id", id=team.workspace_id)
    return {row.user_id: row.role for row in rows}


def test_a_member_is_removed_while_they_are_listed(arena: TeamSetting) -> None:
    for _ in rounds():
        stage(arena)
        outcomes = race(
            arena.id,
            partial(enlist, arena.admin, arena.id, arena.workspace_id, arena.member, "viewer"),
            partial(remove, arena.owner, arena.id, arena.member),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {NotFound}
        assert listed(arena) == {}


def test_a_member_is_listed_by_two_at_once(arena: TeamSetting) -> None:
    for _ in rounds():
        stage(arena)
        outcomes = race(
            arena.id,
            partial(enlist, arena.admin, arena.id, arena.workspace_id, arena.member, "viewer"),
            partial(enlist, arena.owner, arena.id, arena.workspace_id, arena.member, "admin"),
        )
        assert outcomes.refusals == []
        assert outcomes.actions == ["workspace_member_added", "workspace_member_role_changed"]
        assert listed(arena)[arena.member.id] in {"viewer", "admin"}


def test_whoever_closes_a_workspace_is_removed_meanwhile(arena: TeamSetting) -> None:
    """Closing lists whoever does it, which a removal must neither trip over nor leave behind."""
    for _ in rounds():
        stage(arena)
        outcomes = race(
            arena.id,
            partial(update_workspace, arena.admin, arena.id, arena.workspace_id, visibility="private"),
            partial(create_workspace, arena.admin, arena.id, "private"),
            partial(remove, arena.owner, arena.id, arena.admin),
        )
        assert outcomes.won[2]
        assert set(outcomes.refusals) <= {NotFound}
        assert listed(arena) == {}
        assert not fetch("SELECT FROM workspace_members WHERE team_id = :id", id=arena.id)


def test_who_is_taken_off_the_list_stays_off_it(arena: TeamSetting) -> None:
    """A change of a private workspace that waited for the lock does not bring its maker back."""
    for n in rounds():
        stage(arena, "private")
        enlist(arena.owner, arena.id, arena.workspace_id, arena.member)
        outcomes = race(
            arena.id,
            partial(update_workspace, arena.member, arena.id, arena.workspace_id, name=f"Room {n}"),
            partial(unlist, arena.owner, arena.id, arena.workspace_id, arena.member),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {NotFound}
        assert arena.member.id not in listed(arena)
        if outcomes.won[0]:
            assert outcomes.actions[0] == "workspace_updated"


def test_the_owner_changes_a_private_workspace_without_joining_it(arena: TeamSetting) -> None:
    stage(arena, "private")
    update_workspace(arena.owner, arena.id, arena.workspace_id, name="Looked after")
    assert listed(arena) == {}
    stage(arena)
    update_workspace(arena.owner, arena.id, arena.workspace_id, visibility="private")
    assert listed(arena) == {arena.owner.id: None}


def test_who_loses_their_role_there_changes_nothing_more(arena: TeamSetting) -> None:
    for _ in rounds():
        stage(arena)
        outcomes = race(
            arena.id,
            partial(enlist, arena.admin, arena.id, arena.workspace_id, arena.member, "admin"),
            partial(enlist, arena.owner, arena.id, arena.workspace_id, arena.admin, "viewer"),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {PermissionDenied}
        if outcomes.won[0]:
            assert [event.user_id for event in outcomes.events] == [arena.admin.id, arena.owner.id]


def test_an_heir_gets_no_role_there_while_they_inherit(arena: TeamSetting) -> None:
    for _ in rounds(ways=2):
        crown(arena.id, arena.owner)
        stage(arena)
        outcomes = race(
            arena.id,
            partial(transfer, arena.owner, arena.id, arena.member),
            partial(enlist, arena.admin, arena.id, arena.workspace_id, arena.member, "viewer"),
        )
        assert outcomes.won[0]
        assert set(outcomes.refusals) <= {Conflict}
        with in_workspace(arena.member, arena.id, arena.workspace_id) as (_, access, _, _):
            assert "workspaces:delete" in access.permissions
    crown(arena.id, arena.owner)


def test_a_member_goes_while_a_workspace_with_their_tasks_goes(arena: TeamSetting) -> None:
    """Both reach the same rows, of tasks and of the list, in orders of their own: the team's lock comes before."""
    for _ in rounds():
        stage(arena)
        workspace_id = create_workspace(arena.owner, arena.id, "team")
        enlist(arena.owner, arena.id, workspace_id, arena.member, "viewer")
        run(
            "INSERT INTO tasks (id, team_id, workspace_id, title, created_by, assignee_id) "
            "SELECT uuid7(), :team, :workspace, 'T', :owner, :member FROM generate_series(1, 30)",
            team=arena.id,
            workspace=workspace_id,
            owner=arena.owner.id,
            member=arena.member.id,
        )
        outcomes = race(
            arena.id,
            partial(delete_workspace, arena.admin, arena.id, workspace_id),
            partial(remove, arena.owner, arena.id, arena.member),
        )
        assert outcomes.refusals == []
