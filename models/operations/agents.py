"""
Agents: non-human members that take no seat. An agent acts for the person who made the key that it presents; what it may do
is what its own role, the key and that person's present power have in common (models/access/power.py).
"""

from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from models.access.entry import Access, reenter
from models.access.permissions import Permission
from models.events.catalogue import AgentCreated, AgentDeleted, AgentUpdated
from models.events.record import record
from models.operations.changes import apply_changes
from models.operations.members import refuse_role_above
from models.tables import Agent, ApiKey, Team


def create(
    session: Session, access: Access, team: Team, *, name: str, role: str, description: str | None = None
) -> Agent:
    """
    A new agent; the caller has locked the team, whose roles it names.

    Raises Conflict for a name that is taken, Invalid for a role that does not exist here, and PermissionDenied for a role that
    grants more than the actor has.
    """
    access = reenter(session, access, Permission.api_keys_create)
    refuse_role_above(session, access, role)
    agent = Agent(team_id=team.id, name=name, role=role, description=description, created_by=access.user_id)
    session.add(agent)
    session.flush()  # a taken name speaks up here
    record(session, access, AgentCreated(agent_id=agent.id, name=agent.name, role=agent.role))
    return agent


def update(session: Session, access: Access, team: Team, agent: Agent, **values: Any) -> None:
    """Changes `name`, `description` and `role`, as given; the role it had and the one it gets within the actor's power."""
    access = reenter(session, access, Permission.api_keys_create)
    if values.get("role", agent.role) != agent.role:
        refuse_role_above(session, access, agent.role)
        refuse_role_above(session, access, values["role"])
    if changes := apply_changes(session, agent, values):
        record(
            session,
            access,
            AgentUpdated(agent_id=agent.id, name=agent.name, role=agent.role, changes=changes),
        )


def delete(session: Session, access: Access, agent: Agent) -> None:
    """Deletes the agent with its keys, which are refused from then on. The caller has locked the team, then the agent."""
    access = reenter(session, access, Permission.api_keys_delete)
    session.refresh(agent, ["role"], with_for_update=True)  # waits for a key that is just being made
    revoked = session.execute(
        delete_rows(ApiKey)
        .where(ApiKey.team_id == agent.team_id, ApiKey.agent_id == agent.id)
        .returning(ApiKey.id)
    ).all()
    session.delete(agent)
    session.flush()  # in the lock's order, before the event
    record(
        session,
        access,
        AgentDeleted(agent_id=agent.id, name=agent.name, role=agent.role, api_keys_revoked=len(revoked)),
    )
