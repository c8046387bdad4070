"""
How long a team's log is kept: choosing it, the legal hold, and purging what is older.

A purge takes rows from the log's beginning alone, and only once a signed checkpoint covers them: what is left chains to the
hash of the last row purged, and verifies. A period that gets shorter, by choice or by a smaller plan, counts 30 days later.
"""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from models.access.actor import System
from models.access.entry import Access, reenter
from models.access.permissions import Permission
from models.errors import Invalid, NotFound
from models.events.catalogue import ActivityPurged, LegalHoldPlaced, LegalHoldReleased
from models.events.record import record
from models.operations import activity, checkpoints
from models.operations.checkpoints import Unverifiable
from models.plans import PLANS, SHORTEST_RETENTION_DAYS
from models.queries.teams import retention_days
from models.signing import keyring
from models.tables import ActivityHead, ActivityLog, Team

SHORTENED_AFTER = timedelta(days=30)
"""So long what held before holds on, for whoever shortened it by mistake, or lost a plan, or had it shortened by another."""
TEAMS_AT_ONCE = 500

# Of the next rows from the log's beginning: the last before the first that is young enough to stay.
POINT = text("""
SELECT coalesce(min(seq) FILTER (WHERE created_at >= now() - make_interval(days => :days)) - 1, max(seq))
FROM (
  SELECT seq, created_at FROM activity_logs WHERE team_id = :team_id AND seq > :purged_seq ORDER BY seq LIMIT :at_most
) AS oldest
""")
DROP_EMPTY = text("SELECT drop_empty_activity_partitions()")


class Due(NamedTuple):
    """Teams whose log may begin with rows to purge; `last` was looked at last, None once there are no more."""

    team_ids: list[UUID]
    last: UUID | None


def refuse_above_plan(team: Team, days: int | None) -> None:
    """Raises Invalid for more than the team's plan has."""
    plan = PLANS[team.plan]
    if days is not None and days > plan.longest_retention_days:
        message = f"The {plan.name} plan keeps the log for {plan.longest_retention_days} days at the most."
        raise Invalid({"retention_days": [message]})


def keep_on(session: Session, team: Team, before: int) -> None:
    """The team's choice or plan has just changed: what held `before`, in days, holds on for a while if it was longer."""
    if PLANS[team.plan].retention(team.retention_days) < before:
        team.longer_retention_days, team.longer_retention_until = before, func.now() + SHORTENED_AFTER
        session.flush()  # the time comes back


def hold(session: Session, access: Access, team: Team, *, reason: str) -> None:
    """
    Places a legal hold, or changes its reason: nothing of the team is purged until it is released, the team itself included.
    The caller has locked the team.
    """
    access = reenter(session, access, Permission.teams_delete)
    if team.hold_reason == reason:
        return
    team.held_at, team.hold_reason = team.held_at or func.now(), reason
    session.flush()  # in the lock's order, before the event
    record(session, access, LegalHoldPlaced(team_id=team.id, name=team.name, reason=reason))


def release(session: Session, access: Access, team: Team) -> None:
    """Ends the legal hold; NotFound if there is none. The caller has locked the team."""
    access = reenter(session, access, Permission.teams_delete)
    reason = team.hold_reason
    if reason is None:
        raise NotFound("legal hold")
    team.held_at = team.hold_reason = None
    session.flush()  # in the lock's order, before the event
    record(session, access, LegalHoldReleased(team_id=team.id, name=team.name, reason=reason))


def due(session: Session, after: UUID) -> Due:
    """Of the next teams after this id, those whose log begins with a row that is older than they keep it."""
    found = session.execute(
        select(Team, ActivityLog.created_at, func.now())
        .join(ActivityHead, ActivityHead.team_id == Team.id)
        .join(
            ActivityLog, (ActivityLog.team_id == Team.id) & (ActivityLog.seq == ActivityHead.purged_seq + 1)
        )
        .where(
            Team.id > after,
            Team.held_at.is_(None),
            ActivityLog.created_at < func.now() - timedelta(days=SHORTEST_RETENTION_DAYS),
        )
        .order_by(Team.id)
        .limit(TEAMS_AT_ONCE)
    ).all()
    old = [team.id for team, oldest, now in found if oldest < now - timedelta(days=retention_days(team))]
    return Due(old, found[-1][0].id if len(found) == TEAMS_AT_ONCE else None)


def prune(session: Session, team_id: UUID, at_most: int) -> int:
    """
    Purges rows that are older than the team keeps them, from the log's beginning and at most so many; how many.

    Nothing under a legal hold, which can't be placed meanwhile, and nothing that no checkpoint covers: without a key to sign one,
    what was signed before. Raises checkpoints.Unverifiable for a log that is not what it was. Any number of workers may do it at once, and die at any point:
    the rows, what is kept of the last one and the event go together.
    """
    team = session.scalar(
        select(Team)
        .where(Team.id == team_id, Team.held_at.is_(None))
        .with_for_update(read=True)
        .execution_options(populate_existing=True)
    )
    if team is None:
        return 0
    head = session.scalars(
        select(ActivityHead).where(ActivityHead.team_id == team_id).with_for_update()
    ).one()
    days, purged = retention_days(team), head.purged_seq
    where = {"team_id": team_id, "purged_seq": purged, "days": days, "at_most": at_most}
    up_to = session.scalar(POINT, where)
    if up_to is not None:
        up_to = min(up_to, _covered(session, team_id, up_to, at_most))
    if up_to is None or up_to <= purged:
        return 0
    rows = activity.purge(session, team_id, up_to=up_to, at_most=at_most)
    event = ActivityPurged(team_id=team_id, from_seq=purged + 1, to_seq=up_to, rows=rows, days=days)
    record(session, System(team_id), event)
    return rows


def _covered(session: Session, team_id: UUID, up_to: int, at_most: int) -> int:
    """The number up to which a checkpoint of our keys covers the log; signs one if the newest does not reach `up_to`."""
    newest = checkpoints.newest(session, team_id)
    if newest is None or newest.seq < up_to:
        newest = checkpoints.sign(session, team_id, at_most=at_most) or newest
    if newest is None:
        return 0
    if not keyring().vouches_for(newest):
        raise Unverifiable(team_id, newest.seq, "its checkpoint is not of our keys")
    return newest.seq


def drop_empty_partitions(session: Session) -> int:
    """Drops the log's partitions of past months that hold nothing; how many. What somebody is just using, it leaves."""
    return session.scalar(DROP_EMPTY) or 0
