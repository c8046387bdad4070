"""A team's agents."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.queries.paging import Page, Slice, keyset
from models.tables import Agent


def in_team(session: Session, access: Access, page: Page) -> Slice[Agent]:
    """The agents, oldest first."""
    return keyset(session, select(Agent).where(Agent.team_id == access.team_id), page, Agent.id)


def get(session: Session, access: Access, agent_id: UUID, *, for_update: bool = False) -> Agent:
    """One agent of the team; raises NotFound."""
    statement = select(Agent).where(Agent.team_id == access.team_id, Agent.id == agent_id)
    found = session.scalar(statement.with_for_update(key_share=True) if for_update else statement)
    if found is None:
        raise NotFound("agent")
    return found
