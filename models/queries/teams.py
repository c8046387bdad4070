"""Teams, as those see them who are in them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select
from sqlalchemy.orm import Session

from models.access.actor import Actor
from models.access.entry import Access
from models.database import Prepared, columns_of
from models.errors import NotFound
from models.plans import PLANS
from models.queries.paging import Page, Slice, parse_key
from models.tables import Team, TeamMember

RESTORABLE_FOR = timedelta(days=30)
"""So long after its deletion the owner can bring a team back."""


@dataclass(frozen=True, slots=True)
class TeamView:
    """A team with the role that the caller has in it."""

    team: Team
    """Or its columns under the same names."""
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
    (after,) = parse_key(page.after, (Team.id,)) if page.after is not None else (FIRST,)
    rows = (MY_DELETED if deleted else MINE).rows(
        session, user_id=actor.user_id, after=after, limit=page.limit + 1
    )
    shown = [TeamView(row, row.my_role) for row in rows[: page.limit]]
    return Slice(shown, (shown[-1].team.id,) if len(rows) > page.limit else None)


FIRST = UUID(int=0)
_MINE = (
    select(*columns_of(Team), TeamMember.role.label("my_role"))
    .join(TeamMember, TeamMember.team_id == Team.id)
    .where(
        TeamMember.user_id == bindparam("user_id"),
        TeamMember.suspended_at.is_(None),
        Team.suspended_at.is_(None),
        Team.id > bindparam("after"),
    )
    .order_by(Team.id)
    .limit(bindparam("limit"))
)
MINE = Prepared(_MINE.where(Team.deleted_at.is_(None)))
MY_DELETED = Prepared(_MINE.where(restorable(), Team.owner_id == bindparam("user_id")))


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
