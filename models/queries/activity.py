"""The activity log, read: pages for people, ranges by `seq` for sockets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Select, Uuid, any_, bindparam, func, literal, select, true
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.database import Prepared, columns_of
from models.events.catalogue import CATALOGUE
from models.queries.activity_filters import ActivityFilter, Actor, Subject, visible
from models.queries.activity_search import Extent, Log, Match, search, searching
from models.queries.paging import Page, TwoWaySlice, parse_key
from models.tables import (
    ActivityHead,
    ActivityLog,
    Agent,
    Invitation,
)

LATEST = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ActivityView:
    """A row of the log with the names of the persons in it, as they are called today."""

    row: ActivityLog
    """Or its columns under the same names."""
    actor_name: str | None
    agent_name: str | None
    subject_name: str | None
    """Of the person, or the invited address, that it happened to."""

    @property
    def resource_name(self) -> str | None:
        return self.row.resource_name or self.subject_name

    @property
    def summary(self) -> str:
        """What happened, in one sentence of the event catalogue."""
        actor = self.actor_name
        if self.row.agent_id is not None:
            actor = f"{self.agent_name or 'An agent'} for {actor}"
        return summarize(self.row.action, self.row.details, actor=actor, resource=self.resource_name)


def summarize(action: str, details: Mapping[str, Any], *, actor: str | None, resource: str | None) -> str:
    """The catalogue's sentence for an event; the bare action for a type that this release does not know (any more)."""
    declared = CATALOGUE.get(action)
    if declared is None:
        return action
    names = {"actor": actor or "The system", "resource": resource or declared.resource_type}
    try:
        return declared.sentence.format_map({**details, **names})
    except (KeyError, IndexError):  # a row that an older release wrote, with another payload
        return f"{names['actor']}: {action} {names['resource']}"


def in_team(
    session: Session,
    access: Access,
    wanted: ActivityFilter,
    page: Page,
    *,
    at: datetime | None = None,
    last: bool = False,
) -> TwoWaySlice[ActivityView]:
    """
    The team's log, newest first: what matches every given filter. It begins at the newest row, after or (backwards) before
    the page's key, or at the newest row not after `at`. A page may be short (models.queries.activity_search). Who asks nothing
    else in this transaction says that it is the `last`, which saves a round trip.
    """
    with searching(session, access.team_id, last=last) as log:
        newest = log.whole.last
        look = partial(search, session, access, log, wanted, limit=page.limit)
        if page.after is not None:
            (key,) = parse_key(page.after, (ActivityLog.seq,))
            key = max(0, min(key, newest + 1))
            if page.backwards:
                found = look(Extent(key + 1, newest), forwards=True)
                items = _views(session, access.team_id, found.matches)
                return TwoWaySlice(items, (key + 1,), _key(found.go_on_after))
            start = key - 1
        else:
            start = newest if at is None else _newest_at(session, access, log, wanted, at)
        found = look(Extent(1, start))
        previous = None if page.after is None and at is None else (start,)
        return TwoWaySlice(_views(session, access.team_id, found.matches), _key(found.go_on_after), previous)


def _newest_at(session: Session, access: Access, log: Log, wanted: ActivityFilter, at: datetime) -> int:
    """The number of the newest matching row that is not after `at`."""
    bound = min(at, LATEST) + timedelta(microseconds=1)
    until = min(bound, wanted.until or bound)
    found = search(session, access, log, replace(wanted, until=until), log.whole, limit=1)
    return found.matches[0].seq if found.matches else (found.go_on_after or 1) - 1


def _key(number: int | None) -> tuple[int] | None:
    return None if number is None else (number,)


def _views(session: Session, team_id: UUID, matches: Sequence[Match]) -> list[ActivityView]:
    """The rows, newest first."""
    if not matches:
        return []
    times = [match.created_at for match in matches]  # which tell the partitions
    rows = NUMBERED.rows(
        session, team_id=team_id, seqs=[match.seq for match in matches], since=min(times), until=max(times)
    )
    return [ActivityView(row, row.actor_name, row.agent_name, row.subject_name) for row in rows]


def last_acts(session: Session, access: Access, user_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """When each of these persons last did something that the caller may see, themselves or by an agent or a key."""
    people = select(func.unnest(literal(list(user_ids), ARRAY(Uuid))).label("user_id")).subquery()
    last = (
        select(ActivityLog.created_at)
        .where(*visible(access), ActivityLog.user_id == people.c.user_id)
        .order_by(ActivityLog.seq.desc())
        .limit(1)
        .correlate(people)
        .lateral()
    )
    found = session.execute(select(people.c.user_id, last.c.created_at).join(last, true()))
    return {row.user_id: row.created_at for row in found}


def named(statement: Select[ActivityLog]) -> Select[*tuple[Any, ...]]:
    """Rows of the log, each with what an ActivityView adds to it: actor, agent, and whom it happened to."""
    return (
        statement.add_columns(
            Actor.name.label("actor_name"),
            Agent.name.label("agent_name"),
            func.coalesce(Subject.name, Invitation.email).label("subject_name"),
        )
        .outerjoin(Actor, Actor.id == ActivityLog.user_id)
        .outerjoin(Agent, Agent.id == ActivityLog.agent_id)
        .outerjoin(
            Invitation,
            (ActivityLog.resource_type == "invitation") & (Invitation.id == ActivityLog.resource_id),
        )
        .outerjoin(Subject, (ActivityLog.resource_type == "user") & (Subject.id == ActivityLog.resource_id))
    )


NUMBERED = Prepared(
    named(
        select(*columns_of(ActivityLog)).where(
            ActivityLog.team_id == bindparam("team_id"),
            ActivityLog.seq == any_(bindparam("seqs", type_=ARRAY(BigInteger))),
            ActivityLog.created_at.between(bindparam("since"), bindparam("until")),
        )
    ).order_by(ActivityLog.seq.desc())
)
"""The rows of these numbers, newest first, all but what of them only searches look at."""


def after(session: Session, team_id: UUID, seq: int, limit: int) -> list[ActivityLog]:
    """The team's rows that follow `seq`, in order: what a socket replays. For callers that have entered the team."""
    statement = (
        select(ActivityLog)
        .where(ActivityLog.team_id == team_id, ActivityLog.seq > seq)
        .order_by(ActivityLog.seq)
        .limit(limit)
    )
    return list(session.scalars(statement))


def heads(session: Session, team_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The last `seq` of each team's log."""
    statement = select(ActivityHead.team_id, ActivityHead.seq).where(ActivityHead.team_id.in_(team_ids))
    return {row.team_id: row.seq for row in session.execute(statement)}
