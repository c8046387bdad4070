"""Entering: one statement, and everyone who must be refused."""

import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import enter, enter_team
from models.access.permissions import BUILT_IN_ROLES, OWNER_ONLY, Permission
from models.database import engine, transaction
from models.errors import DomainError, NotFound, PermissionDenied, Unauthenticated, Unavailable
from models.operations import members, sessions, teams
from models.queries import members as member_queries
from models.queries import teams as team_queries
from tests.factories import Person, TeamSetting, make_person, make_team
from tests.models.conftest import CountStatements


def run(statement: str, **parameters: object) -> None:
    with transaction() as session:
        session.execute(text(statement), parameters)


def entered(person: Person, team_id: UUID, permission: Permission | None = None) -> frozenset[str]:
    with transaction() as session:
        return enter_team(session, person.credential, team_id, permission).permissions


def refusal(call: Callable[[], object]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        call()
    return caught.value


def test_entering_takes_one_statement(team: TeamSetting, statements: CountStatements) -> None:
    with transaction() as session, statements() as seen:
        enter(session, team.member.credential)
    assert len(seen) == 1
    with transaction() as session, statements() as seen:
        access = enter_team(session, team.member.credential, team.id, Permission.tasks_create)
    assert len(seen) == 1
    assert (access.team_id, access.user_id, access.role, access.is_owner) == (
        team.id,
        team.member.id,
        "member",
        False,
    )


@pytest.mark.parametrize("role", BUILT_IN_ROLES)
def test_a_role_carries_what_its_seeds_say(team: TeamSetting, role: str) -> None:
    assert entered(team.people[role], team.id) == {p.value for p in BUILT_IN_ROLES[role]}


def test_each_permission_is_granted_or_refused_by_name(team: TeamSetting) -> None:
    for permission in Permission:
        entered(team.owner, team.id, permission)
        for role in ("admin", "member", "viewer"):
            person = team.people[role]
            if permission in BUILT_IN_ROLES[role] and permission not in OWNER_ONLY:
                entered(person, team.id, permission)
                continue
            with pytest.raises(PermissionDenied) as refused:
                entered(person, team.id, permission)
            assert refused.value.missing == ("owner" if permission in OWNER_ONLY else permission.value)


@pytest.mark.parametrize("secret", ["", "ahq_unknown", "x" * 201, "schlüssel", "\ud800", "\x00"], ids=ascii)
def test_what_is_no_credential_is_unauthenticated(team: TeamSetting, secret: str) -> None:
    def knock(secret: str) -> None:
        with transaction() as session:
            enter(session, Credential(secret))

    def knock_at_the_team(secret: str) -> None:
        with transaction() as session:
            enter_team(session, Credential(secret), team.id)

    for call in (knock, knock_at_the_team):
        call(team.owner.token)
        assert isinstance(refusal(lambda call=call: call(secret)), Unauthenticated)  # type: ignore[misc]


def test_an_expired_session_is_unauthenticated(team: TeamSetting) -> None:
    entered(team.member, team.id)
    run("UPDATE sessions SET expires_at = now() WHERE user_id = :id", id=team.member.id)
    assert isinstance(refusal(lambda: entered(team.member, team.id)), Unauthenticated)
    with transaction() as session:
        assert isinstance(refusal(lambda: enter(session, team.member.credential)), Unauthenticated)


def test_an_ended_session_is_refused_at_once(team: TeamSetting) -> None:
    with transaction() as session:
        actor = enter(session, team.member.credential)
        sessions.end(session, actor, actor.session_id)
    assert isinstance(refusal(lambda: entered(team.member, team.id)), Unauthenticated)


def test_a_strangers_team_answers_like_an_absent_one(app: Flask, team: TeamSetting) -> None:
    stranger = make_person(app, "Stranger")
    theirs = make_team(app, owner=stranger, roles=())
    entered(stranger, theirs.id)
    foreign = refusal(lambda: entered(stranger, team.id, Permission.teams_delete))
    absent = refusal(lambda: entered(stranger, uuid7(), Permission.teams_delete))
    assert (type(foreign), foreign.detail) == (NotFound, absent.detail)


def test_a_deleted_team_is_not_there_even_for_its_owner(team: TeamSetting) -> None:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        teams.delete(session, access, team_queries.get(session, access, for_update=True))
    for person in (team.owner, team.member):
        assert isinstance(refusal(lambda person=person: entered(person, team.id)), NotFound)  # type: ignore[misc]


def test_a_removed_member_and_a_changed_role_count_at_once(team: TeamSetting) -> None:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        locked = team_queries.get(session, access, for_update=True)
        members.change_role(
            session, access, locked, member_queries.get(session, access, team.admin.id), role="viewer"
        )
        members.remove(session, access, locked, member_queries.get(session, access, team.member.id))
    assert entered(team.admin, team.id) == {p.value for p in BUILT_IN_ROLES["viewer"]}
    assert isinstance(refusal(lambda: entered(team.member, team.id)), NotFound)


def test_another_teams_rows_of_the_same_role_grant_nothing(app: Flask, team: TeamSetting) -> None:
    other = make_team(app)
    grant = (
        "INSERT INTO permissions (id, team_id, role, resource, action, allowed) "
        "VALUES (uuid7(), :team, 'viewer', 'tasks', :action, :allowed)"
    )
    run(grant, team=other.id, action="delete", allowed=True)
    run(grant, team=other.id, action="update", allowed=False)
    assert Permission.tasks_delete in entered(other.viewer, other.id)
    assert Permission.tasks_update not in entered(other.viewer, other.id)
    assert Permission.tasks_delete not in entered(team.viewer, team.id)


def last_used(person: Person) -> datetime:
    with transaction() as session:
        used: datetime = session.execute(
            text("SELECT last_used_at FROM sessions WHERE user_id = :id"), {"id": person.id}
        ).scalar_one()
        return used


def set_last_used(person: Person, age: str) -> datetime:
    run(
        "UPDATE sessions SET last_used_at = now() - CAST(:age AS interval) WHERE user_id = :id",
        age=age,
        id=person.id,
    )
    return last_used(person)


def test_last_used_is_written_every_five_minutes_at_the_most(team: TeamSetting) -> None:
    recent = set_last_used(team.member, "4 minutes 50 seconds")
    entered(team.member, team.id)
    assert last_used(team.member) == recent
    old = set_last_used(team.member, "5 minutes 10 seconds")
    entered(team.member, team.id)
    touched = last_used(team.member)
    assert (touched - old).total_seconds() >= 300
    entered(team.member, team.id)
    assert last_used(team.member) == touched


def test_a_locked_session_row_holds_nobody_up(team: TeamSetting) -> None:
    old = set_last_used(team.member, "1 hour")
    with engine().connect() as other, other.begin():
        other.execute(text("SELECT FROM sessions WHERE user_id = :id FOR UPDATE"), {"id": team.member.id})
        started = time.monotonic()
        entered(team.member, team.id)
        assert time.monotonic() - started < 2
    assert last_used(team.member) == old


def test_the_access_carries_the_requests_origin(team: TeamSetting) -> None:
    origin = Origin("192.0.2.7", "curl", "r-1")
    with transaction() as session:
        access = enter_team(session, Credential(team.owner.token, origin), team.id)
        actor = enter(session, Credential(team.owner.token, origin))
    assert access.origin == actor.origin == origin
    assert access.is_owner


def test_a_connection_that_dies_meanwhile_is_unavailable_and_the_next_one_is_not(team: TeamSetting) -> None:
    def enter_over_a_dead_connection() -> None:
        with transaction() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            with engine().connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            enter_team(session, team.owner.credential, team.id)

    for _ in range(2):
        assert isinstance(refusal(enter_over_a_dead_connection), Unavailable)
        entered(team.owner, team.id)
