"""
What people do to a team's membership, each in a transaction of its own and with the locks that a route takes, and what
must hold of a team whenever nobody is at it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from models.access.credentials import Credential
from models.access.entry import Access, enter, enter_team
from models.access.permissions import Permission
from models.database import engine, transaction
from models.errors import DomainError, Unavailable
from models.operations import agents, api_keys, invitations, members, roles, teams, workspaces
from models.operations.invitations import Invited, Wanted
from models.queries import agents as agent_queries
from models.queries import api_keys as api_key_queries
from models.queries import invitations as invitation_queries
from models.queries import members as member_queries
from models.queries import roles as role_queries
from models.queries import teams as team_queries
from models.queries import users
from models.queries import workspaces as workspace_queries
from models.tables import Team, Workspace
from tests.factories import Person
from tests.models.concurrency import together

ROUNDS = int(os.environ.get("BARRIER_ROUNDS", "30"))
"""How often each race is run: few here, as most invariants have several; BARRIER_ROUNDS=1000 before a release."""


def rounds(*, ways: int = 1) -> range:
    """The rounds of one race; of one way of it, if it is run in several."""
    return range(max(1, ROUNDS // ways))


class Caller(Protocol):
    """Somebody with a credential: a person, or one of their keys."""

    @property
    def credential(self) -> Credential: ...


class Keyed(NamedTuple):
    """An API key at work."""

    secret: str

    @property
    def credential(self) -> Credential:
        return Credential(self.secret)


@cache
def bookkeeping() -> Connection:
    """A connection for what a test does and asks between rounds: past the ORM and in no transaction, so that rounds are cheap."""
    return engine().execution_options(isolation_level="AUTOCOMMIT").connect()


def run(statement: str, **parameters: object) -> None:
    bookkeeping().execute(_compiled(statement), parameters)


def fetch(statement: str, **parameters: object) -> Sequence[Any]:
    return bookkeeping().execute(_compiled(statement), parameters).all()


_compiled = cache(text)


@contextmanager
def under_lock(
    actor: Caller, team_id: UUID, *, leaving: UUID | None = None
) -> Iterator[tuple[Session, Access, Team]]:
    with transaction() as session:
        access = enter_team(session, actor.credential, team_id, leaving=leaving)
        yield session, access, team_queries.get(session, access, for_update=True)


# Members


def add(actor: Caller, team_id: UUID, person: Person, role: str = "member") -> None:
    with under_lock(actor, team_id) as (session, access, team):
        members.add(session, access, team, user=users.get(session, person.id), role=role)


def _to_member(operation: Callable[..., None]) -> Callable[..., None]:
    def act(actor: Caller, team_id: UUID, person: Person, **values: Any) -> None:
        with under_lock(actor, team_id) as (session, access, team):
            operation(session, access, team, member_queries.get(session, access, person.id), **values)

    return act


def remove(actor: Caller, team_id: UUID, person: Person) -> None:
    with under_lock(actor, team_id, leaving=person.id) as (session, access, team):
        members.remove(session, access, team, member_queries.get(session, access, person.id))


suspend = _to_member(members.suspend)
reactivate = _to_member(members.reactivate)


def change_role(actor: Caller, team_id: UUID, person: Person, role: str) -> None:
    _to_member(members.change_role)(actor, team_id, person, role=role)


def demote(actor: Caller, team_id: UUID, person: Person) -> None:
    change_role(actor, team_id, person, "viewer")


def transfer(actor: Caller, team_id: UUID, heir: Person) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        members.transfer_ownership(session, access, team, user_id=heir.id)


# Invitations


def invite(actor: Caller, team_id: UUID, email: str, role: str = "member") -> Invited:
    with under_lock(actor, team_id) as (session, access, team):
        return invitations.create(session, access, team, email=email, role=role)


def invite_each(actor: Caller, team_id: UUID, *wanted: tuple[str, str]) -> list[Invited | DomainError]:
    with under_lock(actor, team_id) as (session, access, team):
        return invitations.create_each(session, access, team, [Wanted(*each) for each in wanted])


def resend(actor: Caller, team_id: UUID, invitation_id: UUID) -> Invited:
    with under_lock(actor, team_id) as (session, access, team):
        invitation = invitation_queries.get(session, access, invitation_id, for_update=True)
        return invitations.resend(session, access, team, invitation)


def revoke(actor: Caller, team_id: UUID, invitation_id: UUID) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        invitation = invitation_queries.get(session, access, invitation_id, for_update=True)
        invitations.revoke(session, access, team, invitation)


def accept(person: Person, token: str) -> None:
    with transaction() as session:
        invitations.accept(session, enter(session, person.credential), token=token)


def accept_waiting(person: Person, invitation_id: UUID) -> None:
    with transaction() as session:
        invitations.accept_waiting(session, enter(session, person.credential), invitation_id)


def decline(person: Person, invitation_id: UUID) -> None:
    with transaction() as session:
        invitations.decline(session, enter(session, person.credential), invitation_id)


def expire(invitation_id: UUID) -> None:
    run("UPDATE invitations SET expires_at = now() - interval '1 s' WHERE id = :id", id=invitation_id)


# Roles


def create_role(actor: Caller, team_id: UUID, name: str, permissions: Sequence[str]) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        roles.create(session, access, team, name=name, permissions=permissions)


def update_role(actor: Caller, team_id: UUID, role: str, **values: Any) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        roles.update(session, access, team, role_queries.get(session, access, role), **values)


def delete_role(actor: Caller, team_id: UUID, role: str, replacement: str | None = None) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        roles.delete(session, access, team, role_queries.get(session, access, role), replacement=replacement)


# Workspaces


def create_workspace(actor: Caller, team_id: UUID, visibility: str) -> UUID:
    with transaction() as session:
        access = enter_team(session, actor.credential, team_id, Permission.workspaces_create)
        return workspaces.create(session, access, name="Room", visibility=visibility).id


@contextmanager
def in_workspace(
    actor: Caller, team_id: UUID, workspace_id: UUID
) -> Iterator[tuple[Session, Access, Team, Workspace]]:
    with transaction() as session:
        access = enter_team(session, actor.credential, team_id, workspace_id=workspace_id)
        team = team_queries.get(session, access, for_update=True)
        yield session, access, team, workspace_queries.get(session, access, workspace_id, for_update=True)


def update_workspace(actor: Caller, team_id: UUID, workspace_id: UUID, **values: Any) -> None:
    with in_workspace(actor, team_id, workspace_id) as (session, access, _, workspace):
        workspaces.update(session, access, workspace, **values)


def delete_workspace(actor: Caller, team_id: UUID, workspace_id: UUID) -> None:
    with in_workspace(actor, team_id, workspace_id) as (session, access, _, workspace):
        workspaces.delete(session, access, workspace)


def enlist(actor: Caller, team_id: UUID, workspace_id: UUID, person: Person, role: str | None = None) -> None:
    with in_workspace(actor, team_id, workspace_id) as (session, access, team, workspace):
        member = member_queries.get(session, access, person.id)
        workspaces.set_member(session, access, team, workspace, member, role=role)


def unlist(actor: Caller, team_id: UUID, workspace_id: UUID, person: Person) -> None:
    with in_workspace(actor, team_id, workspace_id) as (session, access, team, workspace):
        member = member_queries.get(session, access, person.id)
        workspaces.remove_member(session, access, team, workspace, member)


# Keys and agents


class MadeKey(NamedTuple):
    id: UUID
    secret: str


def create_key(
    actor: Caller, team_id: UUID, permissions: Sequence[str], agent_id: UUID | None = None
) -> MadeKey:
    with transaction() as session:
        access = enter_team(session, actor.credential, team_id, Permission.api_keys_create)
        agent = agent_queries.get(session, access, agent_id) if agent_id else None
        made = api_keys.create(session, access, name="Key", permissions=permissions, agent=agent)
        return MadeKey(made.row.id, made.key)


def revoke_key(actor: Caller, team_id: UUID, api_key_id: UUID) -> None:
    with transaction() as session:
        access = enter_team(session, actor.credential, team_id, Permission.api_keys_delete)
        api_keys.revoke(session, access, api_key_queries.get(session, access, api_key_id, for_update=True))


def create_agent(actor: Caller, team_id: UUID, name: str, role: str) -> UUID:
    with under_lock(actor, team_id) as (session, access, team):
        return agents.create(session, access, team, name=name, role=role).id


def update_agent(actor: Caller, team_id: UUID, agent_id: UUID, role: str) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        agents.update(
            session, access, team, agent_queries.get(session, access, agent_id, for_update=True), role=role
        )


def delete_agent(actor: Caller, team_id: UUID, agent_id: UUID) -> None:
    with under_lock(actor, team_id) as (session, access, _):
        agents.delete(session, access, agent_queries.get(session, access, agent_id, for_update=True))


# The team


def change_plan(actor: Caller, team_id: UUID, plan: str) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        teams.change_plan(session, access, team, plan=plan)


def delete_team(actor: Caller, team_id: UUID) -> None:
    with under_lock(actor, team_id) as (session, access, team):
        teams.delete(session, access, team)


def restore_team(person: Person, team_id: UUID) -> None:
    with transaction() as session:
        teams.restore(session, enter(session, person.credential), team_id)


# What came of it

AT_REST = """
WITH named(role, at) AS (
  SELECT role, 'member' FROM team_members WHERE team_id = :id
  UNION ALL SELECT role, 'workspace member' FROM workspace_members WHERE team_id = :id AND role IS NOT NULL
  UNION ALL SELECT role, 'agent' FROM agents WHERE team_id = :id
  UNION ALL SELECT role, 'invitation' FROM invitations WHERE team_id = :id AND status = 'pending'
), waiting AS (
  SELECT * FROM invitations WHERE team_id = :id AND status = 'pending' AND expires_at > now()
)
SELECT
  t.max_members - (SELECT count(*) FROM team_members WHERE team_id = :id) - (SELECT count(*) FROM waiting) AS free_seats,
  o.role AS owner_role,
  o.suspended_at IS NOT NULL AS owner_suspended,
  ARRAY(SELECT n.at || ' ' || n.role FROM named n WHERE NOT EXISTS (
    SELECT FROM permissions p WHERE p.role = n.role AND (p.team_id IS NULL OR p.team_id = :id))) AS roles_that_are_none,
  ARRAY(SELECT w.email FROM waiting w JOIN users u USING (email_normalized)
        JOIN team_members m ON m.user_id = u.id AND m.team_id = :id) AS invited_members
FROM teams t LEFT JOIN team_members o ON o.team_id = t.id AND o.user_id = t.owner_id
WHERE t.id = :id
"""


def check_at_rest(team_id: UUID) -> None:
    """
    Members and pending invitations fit into the seats; the owner is a member, an admin and not suspended; every role that is
    named anywhere exists; and no invitation waits for a member.
    """
    (found,) = fetch(AT_REST, id=team_id)
    assert found.free_seats >= 0, found
    assert (found.owner_role, found.owner_suspended) == ("admin", False), found
    assert not found.roles_that_are_none, found
    assert not found.invited_members, found


def membership(team_id: UUID) -> dict[UUID, str]:
    """Who is a member, and in which role."""
    return dict(map(tuple, fetch("SELECT user_id, role FROM team_members WHERE team_id = :id", id=team_id)))


def owner_of(team_id: UUID) -> UUID:
    owner: UUID = fetch("SELECT owner_id FROM teams WHERE id = :id", id=team_id)[0].owner_id
    return owner


def happened(team_id: UUID, since: int = 0) -> Sequence[Any]:
    """The team's events that wait in the outbox after this id, in its order: that of the changes."""
    return fetch(
        "SELECT * FROM outbox WHERE team_id = :id AND id > :since ORDER BY id", id=team_id, since=since
    )


def latest_event(team_id: UUID) -> int:
    return int(fetch("SELECT coalesce(max(id), 0) FROM outbox WHERE team_id = :id", id=team_id)[0][0])


class Race(NamedTuple):
    outcomes: list[Any]
    """What each call returned, or the refusal that it raised."""
    events: Sequence[Any]
    """What happened, in the order of the changes."""

    @property
    def actions(self) -> list[str]:
        return [event.action for event in self.events]

    @property
    def refusals(self) -> list[type[Exception]]:
        return [type(each) for each in self.outcomes if isinstance(each, Exception)]

    @property
    def won(self) -> list[bool]:
        return [not isinstance(each, Exception) for each in self.outcomes]


def race(team_id: UUID, *calls: Callable[[], Any]) -> Race:
    """
    All calls at one moment. Whatever comes of it: a refusal is the domain's own (a deadlock would come out as
    Unavailable), every change that committed has one event and nothing else has one, and the team is at rest afterwards.
    """
    since = latest_event(team_id)
    outcomes = together(*calls)
    for each in outcomes:
        if isinstance(each, Exception) and (
            not isinstance(each, DomainError) or isinstance(each, Unavailable)
        ):
            raise each
    events = happened(team_id, since)
    assert len(events) == sum(map(_changes, outcomes)), (outcomes, events)
    check_at_rest(team_id)
    return Race(outcomes, events)


def _changes(outcome: Any) -> int:
    """How many changes a call made: none if it was refused, one for each invitation of a bulk, else one."""
    each = outcome if isinstance(outcome, list) else [outcome]
    return sum(not isinstance(one, Exception) for one in each)


def put(team_id: UUID, person: Person, role: str) -> None:
    """Between rounds: makes the person a member in this role, active and listed nowhere, whatever they were; without an event."""
    run(
        "INSERT INTO team_members (id, team_id, user_id, role) VALUES (uuid7(), :team, :user, :role) "
        "ON CONFLICT (team_id, user_id) DO UPDATE SET role = :role, suspended_at = NULL",
        team=team_id,
        user=person.id,
        role=role,
    )


def expel(team_id: UUID, *, besides: Sequence[Person], invitations_besides: Sequence[UUID] = ()) -> None:
    """Between rounds: leaves these members alone, and no invitation but these, which wait again; without events."""
    run(
        "DELETE FROM invitations WHERE team_id = :team AND id <> ALL(:keep)",
        team=team_id,
        keep=list(invitations_besides),
    )
    run(
        "UPDATE invitations SET status = 'pending', expires_at = now() + interval '7 days' WHERE team_id = :team",
        team=team_id,
    )
    run(
        "DELETE FROM team_members WHERE team_id = :team AND user_id <> ALL(:keep)",
        team=team_id,
        keep=[person.id for person in besides],
    )


def crown(team_id: UUID, person: Person) -> None:
    """Between rounds: makes the person the owner, and a deleted team a living one; without an event."""
    put(team_id, person, "admin")
    run("UPDATE teams SET owner_id = :user, deleted_at = NULL WHERE id = :team", team=team_id, user=person.id)
