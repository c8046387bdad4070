"""
Refused attempts, bounded: the first of an actor for one missing permission is logged at once, its repeats are counted and
logged as one event a minute. A refusal rolls its request back, so it is noted in a transaction of its own, and counted in
PostgreSQL before it is answered: no crash of ours forgets it.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from models.access.actor import Named, Origin, System
from models.events.catalogue import AttemptRefused, RefusalsSummed
from models.events.record import record
from models.tables import RefusedAttempt

SUMMED_FOR = timedelta(minutes=1)
MOST_NAMED = 100
"""Pairs of actor and permission that a team's log names at a time; what is refused besides is counted without a name. So a
minute brings a team two hundred events of refusals at the most, and one for the rest."""
NOBODY = UUID(int=0)

COUNT_REPEAT = text("""
UPDATE refused_attempts
SET repeats = repeats + :count, method = :method, route = :route, request_id = :request_id,
    ip_address = CAST(:ip_address AS inet), user_agent = :user_agent
WHERE team_id = :team_id AND actor_id = :actor_id AND permission = :permission
RETURNING true
""")
# Before who is next is looked at, in a statement of its own and so with a later snapshot: under it the limit is exact.
ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended(:team, 11))")
NAME = text("""
INSERT INTO refused_attempts AS r (team_id, actor_id, permission, user_id, agent_id, api_key_id, method, route, repeats,
                                   ip_address, user_agent, request_id)
SELECT :team_id, :actor_id, :permission, :user_id, :agent_id, :api_key_id, :method, :route, 0,
       CAST(:ip_address AS inet), :user_agent, :request_id
WHERE (SELECT count(*) FROM refused_attempts WHERE team_id = :team_id AND actor_id <> :nobody) < :most
ON CONFLICT (team_id, actor_id, permission) DO UPDATE SET repeats = r.repeats + :count
RETURNING repeats = 0
""")
COUNT_NAMELESS = text("""
INSERT INTO refused_attempts AS r (team_id, actor_id, permission, method, route, repeats)
VALUES (:team_id, :nobody, '', '', '', :count)
ON CONFLICT (team_id, actor_id, permission) DO UPDATE SET repeats = r.repeats + :count
""")


def note(session: Session, by: Named, missing: str, *, method: str, route: str, count: int = 1) -> None:
    """
    Notes that somebody of a team was refused, `count` times at once, for want of `missing`; a repeat is one small statement.
    `route` is the route's template: what stands in a path is the caller's choice, and no template.
    """
    said = {
        "team_id": by.team_id,
        "actor_id": by.api_key_id or by.user_id,
        "permission": missing,
        "user_id": by.user_id,
        "agent_id": by.agent_id,
        "api_key_id": by.api_key_id,
        "method": method,
        "route": route,
        "ip_address": by.origin.ip_address,
        "user_agent": by.origin.user_agent,
        "request_id": by.origin.request_id,
        "count": count,
        "nobody": NOBODY,
    }
    if session.scalar(COUNT_REPEAT, said):
        return
    session.execute(ONE_AT_A_TIME, {"team": str(by.team_id)})
    first = session.scalar(NAME, {**said, "most": MOST_NAMED})
    if first is None:
        session.execute(COUNT_NAMELESS, said)
    elif first:
        event = AttemptRefused(
            team_id=by.team_id, permission=missing, method=method, route=route, count=count
        )
        record(session, by, event)


def fold(session: Session, limit: int) -> int:
    """
    Logs what was counted for a minute, of up to `limit` actors and permissions, and forgets who was refused nothing more
    since; how many it looked at. Any number of workers may run it at once.
    """
    due = list(
        session.scalars(
            select(RefusedAttempt)
            .where(RefusedAttempt.since <= func.now() - SUMMED_FOR)
            .order_by(RefusedAttempt.since)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )
    for row in due:
        if row.repeats:
            _record_sum(session, row)
            row.repeats, row.since = 0, func.now()
        else:
            session.delete(row)
    session.flush()
    return len(due)


def _record_sum(session: Session, row: RefusedAttempt) -> None:
    if row.user_id is None:
        record(session, System(row.team_id), RefusalsSummed(team_id=row.team_id, count=row.repeats))
        return
    by = Named(row.team_id, row.user_id, row.agent_id, row.api_key_id, _origin(row))
    event = AttemptRefused(
        team_id=row.team_id,
        permission=row.permission,
        method=row.method,
        route=row.route,
        count=row.repeats,
    )
    record(session, by, event)


def _origin(row: RefusedAttempt) -> Origin:
    address = None if row.ip_address is None else str(row.ip_address)
    return Origin(address, row.user_agent, row.request_id)
