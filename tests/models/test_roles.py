"""Roles under contention: nobody is left with a role that does not exist, or with more than who gave it had."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask

from models.errors import Conflict, Invalid, PermissionDenied
from tests.factories import Person, TeamSetting, make_person, make_team
from tests.models.membership import (
    accept,
    add,
    change_role,
    create_agent,
    create_role,
    delete_agent,
    delete_role,
    demote,
    enlist,
    expel,
    expire,
    fetch,
    invite,
    membership,
    put,
    race,
    resend,
    rounds,
    run,
    update_agent,
    update_role,
)

READ = ["members:read", "tasks:read", "workspaces:read"]


@pytest.fixture(scope="module")
def arena(app: Flask) -> TeamSetting:
    """A team for many rounds; each puts it as it needs it."""
    return make_team(app)


@pytest.fixture(scope="module")
def guest(app: Flask) -> Person:
    return make_person(app, "Guest")


def stage(team: TeamSetting, **roles: list[str]) -> None:
    """The team as it was, with these roles of its own and no others, which nobody has."""
    expel(team.id, besides=[team.owner])
    put(team.id, team.admin, "admin")
    put(team.id, team.member, "member")
    run("DELETE FROM agents WHERE team_id = :id", id=team.id)
    run("DELETE FROM permissions WHERE team_id = :id", id=team.id)
    for name, permissions in roles.items():
        run(
            "INSERT INTO permissions (id, team_id, role, resource, action) "
            "SELECT uuid7(), :id, :role, split_part(p, ':', 1), split_part(p, ':', 2) "
            "FROM unnest(CAST(:permissions AS text[])) AS p",
            id=team.id,
            role=name,
            permissions=permissions,
        )


GIVEN: dict[str, Callable[[TeamSetting, Person], Any]] = {
    "a new member": lambda team, guest: add(team.owner, team.id, guest, "auditor"),
    "a member": lambda team, _: change_role(team.owner, team.id, team.member, "auditor"),
    "an invitation": lambda team, guest: invite(team.owner, team.id, guest.email, "auditor"),
    "an agent": lambda team, _: create_agent(team.owner, team.id, "Scout", "auditor"),
    "a member of a workspace": lambda team, _: enlist(
        team.owner, team.id, team.workspace_id, team.member, "auditor"
    ),
}


@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("replacement", [None, "viewer"])
def test_a_role_is_deleted_while_it_is_given(
    arena: TeamSetting,
    guest: Person,
    give: Callable[[TeamSetting, Person], Any],
    replacement: str | None,
) -> None:
    for _ in rounds(ways=4):
        stage(arena, auditor=READ)
        outcomes = race(
            arena.id,
            partial(give, arena, guest),
            partial(delete_role, arena.admin, arena.id, "auditor", replacement),
        )
        given, deleted = outcomes.won
        if replacement is None:  # the one who comes first is the only one
            assert given != deleted
            assert outcomes.refusals == [Conflict if given else Invalid]
        else:
            assert deleted
            assert set(outcomes.refusals) <= {Invalid}


def test_a_role_is_deleted_while_it_is_the_replacement(arena: TeamSetting) -> None:
    for _ in rounds():
        stage(arena, auditor=READ, reader=READ)
        put(arena.id, arena.member, "auditor")
        outcomes = race(
            arena.id,
            partial(delete_role, arena.owner, arena.id, "auditor", "reader"),
            partial(delete_role, arena.admin, arena.id, "reader", "auditor"),
        )
        assert outcomes.refusals == [Invalid]
        assert membership(arena.id)[arena.member.id] == ("reader" if outcomes.won[0] else "auditor")


def test_an_invitation_is_accepted_while_its_role_goes(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds():
        stage(arena, auditor=READ)
        invited = invite(arena.owner, arena.id, guest.email, "auditor")
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(delete_role, arena.admin, arena.id, "auditor", "viewer"),
        )
        assert outcomes.refusals == []
        assert membership(arena.id)[guest.id] == "viewer"


def test_an_expired_invitation_comes_back_while_its_role_goes(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds(ways=2):
        stage(arena, auditor=READ)
        invited = invite(arena.owner, arena.id, guest.email, "auditor")
        expire(invited.invitation.id)
        run("UPDATE invitations SET status = 'expired' WHERE id = :id", id=invited.invitation.id)
        outcomes = race(
            arena.id,
            partial(resend, arena.owner, arena.id, invited.invitation.id),
            partial(delete_role, arena.admin, arena.id, "auditor"),
        )
        sent, deleted = outcomes.won
        assert sent != deleted
        assert outcomes.refusals == [Conflict if sent else Invalid]


def test_a_role_is_renamed_while_it_is_given(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds():
        stage(arena, auditor=READ)
        outcomes = race(
            arena.id,
            partial(add, arena.owner, arena.id, guest, "auditor"),
            partial(update_role, arena.admin, arena.id, "auditor", name="inspector"),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {Invalid}
        assert membership(arena.id).get(guest.id) == ("inspector" if outcomes.won[0] else None)


def test_one_name_is_taken_once(arena: TeamSetting) -> None:
    for _ in rounds():
        stage(arena, auditor=READ)
        outcomes = race(
            arena.id,
            partial(create_role, arena.owner, arena.id, "Reader", READ),
            partial(create_role, arena.admin, arena.id, "reader", ["tasks:read"]),
            partial(update_role, arena.admin, arena.id, "auditor", name="READER"),
        )
        assert outcomes.refusals == [Conflict] * 2


def test_a_role_grows_while_somebody_gives_it(arena: TeamSetting, guest: Person) -> None:
    """A recruiter gives a role that is within their power, and it grows beyond: who was given it had it from the owner."""
    for _ in rounds():
        stage(arena, recruiter=["members:create", *READ], auditor=READ)
        put(arena.id, arena.member, "recruiter")
        outcomes = race(
            arena.id,
            partial(add, arena.member, arena.id, guest, "auditor"),
            partial(update_role, arena.owner, arena.id, "auditor", permissions=[*READ, "billing:update"]),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {PermissionDenied}
        if outcomes.won[0]:
            assert outcomes.actions == ["member_added", "role_updated"]


def test_a_granter_shrinks_while_they_give(arena: TeamSetting, guest: Person) -> None:
    """The recruiter's own role is cut down, or taken, at the moment at which they give what it had."""
    for _ in rounds():
        stage(arena, recruiter=["members:create", *READ], auditor=READ)
        put(arena.id, arena.member, "recruiter")
        outcomes = race(
            arena.id,
            partial(add, arena.member, arena.id, guest, "auditor"),
            partial(update_role, arena.owner, arena.id, "recruiter", permissions=["members:create"]),
            partial(demote, arena.admin, arena.id, arena.member),
        )
        assert outcomes.won[1:] == [True, True]
        assert set(outcomes.refusals) <= {PermissionDenied}
        if outcomes.won[0]:
            assert outcomes.actions[0] == "member_added"


def test_two_who_edit_roles_against_each_other(arena: TeamSetting) -> None:
    """Each takes the permission to edit roles from the other's role: one is left with it."""
    for _ in rounds():
        power = ["roles:update", *READ]
        stage(arena, left=power, right=power)
        put(arena.id, arena.admin, "left")
        put(arena.id, arena.member, "right")
        outcomes = race(
            arena.id,
            partial(update_role, arena.admin, arena.id, "right", permissions=READ),
            partial(update_role, arena.member, arena.id, "left", permissions=READ),
        )
        assert outcomes.refusals == [PermissionDenied]
        able = fetch("SELECT role FROM permissions WHERE team_id = :id AND resource = 'roles'", id=arena.id)
        assert [each.role for each in able] == ["left" if outcomes.won[0] else "right"]


def test_an_agents_role_goes_while_it_is_changed(arena: TeamSetting) -> None:
    for _ in rounds(ways=2):
        stage(arena, auditor=READ)
        agent_id = create_agent(arena.owner, arena.id, "Scout", "viewer")
        outcomes = race(
            arena.id,
            partial(update_agent, arena.owner, arena.id, agent_id, "auditor"),
            partial(delete_role, arena.admin, arena.id, "auditor"),
        )
        changed, deleted = outcomes.won
        assert changed != deleted
        assert outcomes.refusals == [Conflict if changed else Invalid]


def test_who_was_demoted_meanwhile_deletes_no_agent(arena: TeamSetting) -> None:
    for _ in rounds(ways=2):
        stage(arena)
        agent_id = create_agent(arena.owner, arena.id, "Scout", "viewer")
        outcomes = race(
            arena.id,
            partial(delete_agent, arena.admin, arena.id, agent_id),
            partial(demote, arena.owner, arena.id, arena.admin),
        )
        assert outcomes.won[1]
        if outcomes.won[0]:
            assert outcomes.actions == ["agent_deleted", "member_role_changed"]
        else:
            assert outcomes.refusals == [PermissionDenied]
