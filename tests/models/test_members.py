"""Membership under contention: seats are exact, and the owner is always a member and an admin."""

from collections.abc import Callable
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text

from models.access.entry import enter
from models.database import transaction
from models.errors import (
    Conflict,
    DomainError,
    Invalid,
    NotFound,
    PermissionDenied,
    SeatLimitReached,
)
from models.operations import members, teams
from models.queries import members as queries
from models.queries import teams as team_queries
from models.queries import users
from tests.factories import Person, TeamSetting, make_person, make_team
from tests.models.concurrency import raised, together


def add(actor: Person, team_id: UUID, person: Person, role: str = "member") -> None:
    with transaction() as session:
        access = actor.enter(session, team_id)
        team = team_queries.get(session, access, for_update=True)
        members.add(session, access, team, user=users.get(session, person.id), role=role)


def remove(actor: Person, team_id: UUID, person: Person) -> None:
    with transaction() as session:
        access = actor.enter(session, team_id)
        team = team_queries.get(session, access, for_update=True)
        members.remove(session, access, team, queries.get(session, access, person.id))


def change_role(actor: Person, team_id: UUID, person: Person, role: str) -> None:
    with transaction() as session:
        access = actor.enter(session, team_id)
        team = team_queries.get(session, access, for_update=True)
        members.change_role(session, access, team, queries.get(session, access, person.id), role=role)


def transfer(actor: Person, team_id: UUID, heir: Person) -> None:
    with transaction() as session:
        access = actor.enter(session, team_id)
        team = team_queries.get(session, access, for_update=True)
        teams.transfer_ownership(session, access, team, user_id=heir.id)


def roles(team_id: UUID) -> dict[UUID, str]:
    with transaction() as session:
        found = session.execute(
            text("SELECT user_id, role FROM team_members WHERE team_id = :id"), {"id": team_id}
        )
        return {row.user_id: row.role for row in found}


def owner_of(team_id: UUID) -> UUID:
    """The owner, who must be a member and an admin whatever happened."""
    with transaction() as session:
        owner: UUID = session.execute(
            text("SELECT owner_id FROM teams WHERE id = :id"), {"id": team_id}
        ).scalar_one()
    assert roles(team_id)[owner] == "admin"
    return owner


def events(team_id: UUID, action: str) -> int:
    with transaction() as session:
        return int(
            session.execute(
                text(
                    "SELECT (SELECT count(*) FROM outbox WHERE team_id = :id AND action = :action)"
                    " + (SELECT count(*) FROM activity_logs WHERE team_id = :id AND action = :action)"
                ),
                {"id": team_id, "action": action},
            ).scalar_one()
        )


def test_twenty_at_once_get_the_four_seats_that_are_free(app: Flask) -> None:
    owner = make_person(app, "Owner")
    with transaction() as session:
        team_id = teams.create(session, enter(session, owner.credential), name="Small").id
    people = [make_person(app, "Guest") for _ in range(20)]
    outcomes = together(*[lambda person=person: add(owner, team_id, person) for person in people])
    assert raised(outcomes) == [SeatLimitReached] * 16
    assert len(roles(team_id)) == 5
    assert events(team_id, "member_added") == 4
    assert owner_of(team_id) == owner.id


def test_one_person_added_twice_at_once_is_one_member(team: TeamSetting, app: Flask) -> None:
    guest = make_person(app, "Guest")
    outcomes = together(*[lambda: add(team.owner, team.id, guest)] * 6)
    assert raised(outcomes) == [Conflict] * 5
    assert events(team.id, "member_added") == 4  # the setting's three and this one


def test_a_plan_never_holds_more_members_than_seats(app: Flask) -> None:
    team = make_team(app)  # four of fifty
    guests = [make_person(app, "Guest") for _ in range(4)]

    def downgrade() -> None:
        with transaction() as session:
            access = team.owner.enter(session, team.id)
            locked = team_queries.get(session, access, for_update=True)
            teams.change_plan(session, access, locked, plan="free")

    together(downgrade, *[lambda guest=guest: add(team.owner, team.id, guest) for guest in guests])
    with transaction() as session:
        seats = team_queries.get(session, team.owner.enter(session, team.id)).max_members
    assert len(roles(team.id)) <= seats


@pytest.mark.parametrize("round_", range(3))
@pytest.mark.parametrize(
    "act",
    [remove, lambda actor, team_id, person: change_role(actor, team_id, person, "viewer")],
    ids=["remove", "demote"],
)
def test_two_admins_against_each_other(
    app: Flask, round_: int, act: Callable[[Person, UUID, Person], None]
) -> None:
    team = make_team(app, roles=("admin",))
    rival = make_person(app, "Rival")
    add(team.owner, team.id, rival, "admin")
    one, other = team.admin, rival
    outcomes = together(lambda: act(one, team.id, other), lambda: act(other, team.id, one))
    assert None in outcomes
    assert set(raised(outcomes)) <= {NotFound, PermissionDenied}
    assert owner_of(team.id) == team.owner.id


@pytest.mark.parametrize("round_", range(3))
def test_handing_over_against_leaving(app: Flask, round_: int) -> None:
    team = make_team(app, roles=("member",))
    handed, left = together(
        lambda: transfer(team.owner, team.id, team.member), lambda: remove(team.member, team.id, team.member)
    )
    if handed is None:
        assert isinstance(left, Conflict)
        assert owner_of(team.id) == team.member.id
    else:
        assert (type(handed), left) == (NotFound, None)
        assert owner_of(team.id) == team.owner.id
        assert team.member.id not in roles(team.id)


def test_handing_over_to_two_at_once_leaves_one_owner(team: TeamSetting) -> None:
    outcomes = together(
        lambda: transfer(team.owner, team.id, team.member), lambda: transfer(team.owner, team.id, team.viewer)
    )
    assert raised(outcomes) == []
    assert owner_of(team.id) in {team.member.id, team.viewer.id}
    assert roles(team.id)[team.owner.id] == "admin"


def test_handing_over_against_demoting_the_heir(team: TeamSetting) -> None:
    outcomes = together(
        lambda: transfer(team.owner, team.id, team.admin),
        lambda: change_role(team.owner, team.id, team.admin, "viewer"),
    )
    assert set(raised(outcomes)) <= {Conflict}
    assert owner_of(team.id) == team.admin.id


REFUSED: dict[str, tuple[Callable[[TeamSetting], None], type[DomainError]]] = {
    "the owner leaves": (lambda team: remove(team.owner, team.id, team.owner), Conflict),
    "the owner is removed": (lambda team: remove(team.admin, team.id, team.owner), Conflict),
    "the owner is demoted": (
        lambda team: change_role(team.admin, team.id, team.owner, "member"),
        Conflict,
    ),
    "an heir from elsewhere": (
        lambda team: transfer(team.owner, team.id, make_person(team.owner.app)),
        NotFound,
    ),
    "a role that is none": (
        lambda team: add(team.owner, team.id, make_person(team.owner.app), "emperor"),
        Invalid,
    ),
    "granting above one's power": (
        lambda team: add(team.member, team.id, make_person(team.owner.app), "admin"),
        PermissionDenied,
    ),
    "raising oneself": (
        lambda team: change_role(team.member, team.id, team.member, "admin"),
        PermissionDenied,
    ),
    "demoting someone above": (
        lambda team: change_role(team.member, team.id, team.admin, "viewer"),
        PermissionDenied,
    ),
    "removing someone above": (lambda team: remove(team.member, team.id, team.admin), PermissionDenied),
}


@pytest.mark.parametrize(("act", "error"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(
    team: TeamSetting, act: Callable[[TeamSetting], None], error: type[DomainError]
) -> None:
    before = roles(team.id)
    with pytest.raises(error):
        act(team)
    assert roles(team.id) == before
    assert owner_of(team.id) == team.owner.id


def test_another_teams_own_role_is_no_role_here(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, roles=())
    with transaction() as session:
        session.execute(
            text(
                "INSERT INTO permissions (id, team_id, role, resource, action) "
                "VALUES (uuid7(), :team, 'auditor', 'activity', 'read')"
            ),
            {"team": other.id},
        )
    guest = make_person(app, "Guest")
    with pytest.raises(Invalid):
        add(team.owner, team.id, guest, "auditor")
    add(other.owner, other.id, guest, "auditor")
    with transaction() as session:
        assert guest.enter(session, other.id).permissions == {"activity:read"}


def test_who_leaves_keeps_nothing_assigned(team: TeamSetting) -> None:
    task = team.task(assignee_id=str(team.member.id))
    remove(team.owner, team.id, team.member)
    left = team.owner.get(f"{team.path}/tasks/{task['id']}").json
    assert (left["assignee_id"], left["title"]) == (None, task["title"])
