"""Teams, as those see them who are in them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.access.actor import Actor
from models.access.entry import Access
from models.errors import NotFound
from models.queries.paging import Page, Slice, keyset
from models.tables import Team, TeamMember


@dataclass(frozen=True, slots=True)
class TeamView:
    """A team with the role that the caller has in it."""

    team: Team
    role: str

    @property
    def updated_at(self) -> datetime:
        return self.team.updated_at


def mine(session: Session, actor: Actor, page: Page) -> Slice[TeamView]:
    """The teams that the actor is a member of, oldest first."""
    statement = (
        select(Team, TeamMember.role)
        .join(TeamMember, TeamMember.team_id == Team.id)
        .where(TeamMember.user_id == actor.user_id, Team.deleted_at.is_(None))
    )
    found = keyset(session, statement, page, Team.id)
    return Slice([TeamView(team, role) for team, role in found.items], found.next_key)


def get(session: Session, access: Access, *, for_update: bool = False) -> Team:
    """The entered team; with its row locked, which is what every change of its membership takes first."""
    statement = select(Team).where(Team.id == access.team_id, Team.deleted_at.is_(None))
    if for_update:
        # A team's own key never changes, so rows that only refer to it (tasks, events) need not wait for this lock.
        statement = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    team = session.scalar(statement)
    if team is None:
        raise NotFound("team")
    return team
