"""Teams, as those see them who are in them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from models.access.actor import Actor
from models.access.entry import Access
from models.errors import NotFound
from models.plans import PLANS
from models.queries.paging import Page, Slice, keyset
from models.tables import Team, TeamMember

RESTORABLE_FOR = timedelta(days=30)
"""So long after its deletion the owner can bring a team back."""


@dataclass(frozen=True, slots=True)
class TeamView:
    """A team with the role that the caller has in it."""

    team: Team
    role: str

    @property
    def updated_at(self) -> datetime:
        return self.team.updated_at

    @property
    def retention_days_in_force(self) -> int:
        return retention_days(self.team)

    @property
    def retention_shortens_at(self) -> datetime | None:
        """When the shorter period that was set begins to count; None if none waits."""
        waits = self.retention_days_in_force > _retention_set(self.team)
        return self.team.longer_retention_until if waits else None


def _retention_set(team: Team) -> int:
    return PLANS[team.plan].retention(team.retention_days)


def retention_days(team: Team) -> int:
    """For how many days the team's log is kept now: as was set, or longer for a while after that was shortened."""
    until = team.longer_retention_until
    longer = team.longer_retention_days if until is not None and until > datetime.now(UTC) else None
    return max(_retention_set(team), longer or 0)


def restorable() -> ColumnElement[bool]:
    """Of a deleted team: whether its owner can bring it back. Under a legal hold it is not purged, and so stays restorable."""
    return and_(
        Team.deleted_at.is_not(None),
        or_(Team.deleted_at > func.now() - RESTORABLE_FOR, Team.held_at.is_not(None)),
    )


def mine(session: Session, actor: Actor | Access, page: Page, *, deleted: bool = False) -> Slice[TeamView]:
    """The teams that the actor is a member of and not suspended in, and that are not suspended themselves, oldest first; or their own that can be restored."""
    statement = (
        select(Team, TeamMember.role)
        .join(TeamMember, TeamMember.team_id == Team.id)
        .where(
            TeamMember.user_id == actor.user_id,
            TeamMember.suspended_at.is_(None),
            Team.suspended_at.is_(None),
        )
    )
    if deleted:
        statement = statement.where(restorable(), Team.owner_id == actor.user_id)
    else:
        statement = statement.where(Team.deleted_at.is_(None))
    found = keyset(session, statement, page, Team.id)
    return Slice([TeamView(team, role) for team, role in found.items], found.next_key)


def get(session: Session, access: Access, *, for_update: bool = False) -> Team:
    """The entered team; with its row locked, which is what every change of its membership takes first."""
    if for_update:
        team = lock(session, access.team_id)
    else:
        team = session.scalar(select(Team).where(Team.id == access.team_id, Team.deleted_at.is_(None)))
    if team is None:
        raise NotFound("team")
    return team


def lock(session: Session, team_id: UUID) -> Team | None:
    """The team with its row locked, for whoever is not in it (yet); None if it is absent or deleted."""
    # A team's own key never changes, so rows that only refer to it (tasks, events) need not wait for this lock.
    return session.scalar(
        select(Team)
        .where(Team.id == team_id, Team.deleted_at.is_(None))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
