"""A team's API keys."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.queries.paging import Page, Slice, keyset
from models.tables import ApiKey


def in_team(session: Session, access: Access, page: Page) -> Slice[ApiKey]:
    """The keys, newest first, expired ones included."""
    statement = select(ApiKey).where(ApiKey.team_id == access.team_id)
    return keyset(session, statement, page, ApiKey.id, descending=True)


def counts_by_agent(session: Session, access: Access) -> dict[UUID, int]:
    """How many keys in force each agent has; agents without any are left out."""
    statement = (
        select(ApiKey.agent_id, func.count())
        .where(ApiKey.team_id == access.team_id, ApiKey.agent_id.is_not(None), ApiKey.expires_at > func.now())
        .group_by(ApiKey.agent_id)
    )
    return {agent_id: count for agent_id, count in session.execute(statement) if agent_id}


def get(session: Session, access: Access, api_key_id: UUID, *, for_update: bool = False) -> ApiKey:
    """One key of the team; raises NotFound."""
    statement = select(ApiKey).where(ApiKey.team_id == access.team_id, ApiKey.id == api_key_id)
    found = session.scalar(statement.with_for_update() if for_update else statement)
    if found is None:
        raise NotFound("API key")
    return found
