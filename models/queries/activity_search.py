"""
Which rows of a team's log match, found at a bounded price however many there are.

A search goes through the log in windows of numbers, from where it begins towards where it goes, and stops when its page is full:
what is common ends in the first, which is small, and what is rare is found by an index in those that follow. Within a window
PostgreSQL chooses the index, but not whether to use one (research/limits.md, section 2): it misjudges by far how many rows a
team's filter finds, and then sorts all of them or walks past millions.

A search that has taken PATIENCE_S, or has read WALKED rows for a pattern that no index knows, ends where it is: its page is
short, or empty, and its key leads on. So a page may be short; the end is where there is no key.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    cast,
    func,
    literal,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.access.entry import Access
from models.database import fetch_row
from models.queries.activity_filters import ActivityFilter, like, narrowed, visible, within_sight, worded
from models.tables import ActivityLog, ActivityPerson, Agent, Invitation, User

PATIENCE_S = 0.25
FIRST_SPAN, WIDER = 50_000, 8
"""How many numbers the first window of a search without text has, and each following one times as many."""
NEWEST = 2_000
"""How many rows a search for text reads before it asks the index: a common word is among them."""
WALKED = 10_000
"""How many rows a page reads at most for a pattern without three letters or digits in a row, which no trigram is of."""
MONTHS = (1, 3)
"""How many months the first windows of the index have; the last has all the others."""

# The planner's settings while a transaction searches, and where the log begins and ends. A prepared statement's plan would
# know neither pattern nor bounds.
PLANNER = {"plan_cache_mode": "force_custom_plan", "enable_sort": "off", "jit": "off"}
BEGIN = f"""
SELECT h.purged_seq + 1, h.seq, coalesce(f.seq, 0), show_trgm('ä') <> '{{}}',
       {", ".join(f"current_setting('{name}')" for name in PLANNER)},
       {", ".join(f"set_config('{name}', '{value}', true)" for name, value in PLANNER.items())}
FROM activity_heads h LEFT JOIN activity_folds f ON f.team_id = h.team_id WHERE h.team_id = %(team_id)s
"""  # noqa: S608  made of constants alone
END = text(f"SELECT {', '.join(f'set_config({name!r}, :{name}, true)' for name in PLANNER)}")
SINCE = text(
    "SELECT min(first_seq) FROM activity_days WHERE team_id = :team_id AND day >= CAST(:day AS date)"
)
UNTIL = text("""
SELECT greatest(
  (SELECT max(last_seq) FROM activity_days WHERE team_id = :team_id AND day <= CAST(:day AS date)),
  (SELECT max(seq) FROM activity_logs WHERE team_id = :team_id AND seq > :folded AND created_at <= :time),
  0)
""")
MONTHS_OF = text("""
SELECT date_trunc('month', day)::date AS month, (date_trunc('month', day) + interval '1 month')::date AS next_month,
       min(first_seq) AS first, max(last_seq) AS last
FROM activity_days WHERE team_id = :team_id AND last_seq >= :first AND first_seq <= :last GROUP BY 1, 2 ORDER BY 1
""")


@dataclass(frozen=True, slots=True)
class Extent:
    """The numbers from `first` to `last`, both included; none where `last` is smaller."""

    first: int
    last: int

    def __bool__(self) -> bool:
        return self.first <= self.last

    def within(self, other: "Extent") -> "Extent":
        return Extent(max(self.first, other.first), min(self.last, other.last))

    def divided(self, size: int, *, forwards: bool) -> tuple["Extent", "Extent"]:
        """The `size` numbers that come first in a direction, and the rest."""
        if forwards:
            end = min(self.last, self.first + size - 1)
            return Extent(self.first, end), Extent(end + 1, self.last)
        end = max(self.first, self.last - size + 1)
        return Extent(end, self.last), Extent(self.first, end - 1)


@dataclass(frozen=True, slots=True)
class Log:
    """A team's log as a search finds it."""

    team_id: UUID
    whole: Extent
    folded: int
    """How far its days are known (models.operations.activity_counts)."""
    foreign_letters: bool
    """Whether letters beyond ASCII are letters to the index: the database's locale decides it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Where to look next: numbers, and if the index of words is to be asked, the days of their rows as far as they are known."""

    numbers: Extent
    by_words: bool = False
    since: date | None = None
    until: date | None = None


class Match(NamedTuple):
    seq: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """Matching rows in the search's direction, and the number to go on after; None when there is nothing more."""

    matches: Sequence[Match]
    go_on_after: int | None


@contextmanager
def searching(session: Session, team_id: UUID, *, last: bool = False) -> Iterator[Log]:
    """
    The team's log, and plans for the bounds and patterns at hand, until the block ends; or the transaction, of which a search
    is the `last` that it does.
    """
    row = fetch_row(session, BEGIN, {"team_id": team_id})
    if row is None:  # a team without any event
        yield Log(team_id, Extent(1, 0), 0, foreign_letters=False)
        return
    first, newest, folded, foreign_letters, *rest = row
    yield Log(team_id, Extent(first, newest), folded, foreign_letters)
    if not last:
        session.execute(END, dict(zip(PLANNER, rest, strict=False)))


def search(
    session: Session,
    access: Access,
    log: Log,
    wanted: ActivityFilter,
    extent: Extent,
    *,
    limit: int,
    forwards: bool = False,
) -> Found:
    """Up to `limit` matching rows that the caller may see: the oldest of the extent if `forwards`, else the newest."""
    extent = _in_time(session, log, wanted, extent.within(log.whole))
    deadline = time.monotonic() + PATIENCE_S
    conditions = [*_visible(access, wanted), *narrowed(replace(wanted, action=()))]
    if wanted.q:
        conditions.append(_says(session, log, wanted.q))
        windows = _text_windows(session, log, wanted.q, extent, forwards)
    else:
        windows = _spans(extent, forwards)
    found: list[Match] = []
    left = extent
    for window in windows:
        statement = _by_words if window.by_words else _in_order
        more = limit + 1 - len(found)
        found += [
            Match(*row)
            for row in session.execute(statement(conditions, wanted.action, window, forwards, more))
        ]
        if len(found) > limit:
            return Found(found[:limit], found[limit - 1].seq)
        numbers = window.numbers
        left = Extent(numbers.last + 1, left.last) if forwards else Extent(left.first, numbers.first - 1)
        if time.monotonic() > deadline:
            break
    edge = left.first - 1 if forwards else left.last + 1
    return Found(found, edge if left else None)


Conditions = list[ColumnElement[bool]]


def _visible(access: Access, wanted: ActivityFilter) -> Conditions:
    """As `visible`; of one workspace it is asked once, and not of each of its rows."""
    if wanted.workspace_id is None:
        return visible(access)
    return [ActivityLog.team_id == access.team_id, *within_sight(access, literal(wanted.workspace_id))]


def _in_order(
    conditions: Conditions, actions: Sequence[str], window: Window, forwards: bool, limit: int
) -> Select[int, datetime]:
    """In the order of an index, as far as the limit. Of several actions each: together they are in no index's order."""
    within = ActivityLog.seq.between(window.numbers.first, window.numbers.last)
    statement = select(ActivityLog.seq, ActivityLog.created_at).where(*conditions, within)
    if len(actions) <= 1:
        one = statement.where(*(ActivityLog.action == action for action in actions))
        return one.order_by(_order(ActivityLog.seq, forwards)).limit(limit)
    each = (
        func.unnest(cast(list(set(actions)), ARRAY(Text))).table_valued("action").render_derived(name="each")
    )
    of_one = statement.where(ActivityLog.action == each.c.action).order_by(_order(ActivityLog.seq, forwards))
    of_each = of_one.limit(limit).lateral("of_each")
    return (
        select(of_each.c.seq, of_each.c.created_at)
        .select_from(each.join(of_each, true()))
        .order_by(_order(of_each.c.seq, forwards))
        .limit(limit)
    )


def _by_words(
    conditions: Conditions, actions: Sequence[str], window: Window, forwards: bool, limit: int
) -> Select[int, datetime]:
    """By bitmaps alone: an index in the rows' order looks cheap to the planner, as it expects to meet a match soon."""
    within = (ActivityLog.seq + 0).between(window.numbers.first, window.numbers.last)  # of no index
    statement = select(ActivityLog.seq, ActivityLog.created_at).where(*conditions, within)
    if actions:
        statement = statement.where(ActivityLog.action.in_(actions))
    if window.since is not None:
        statement = statement.where(ActivityLog.created_at >= _midnight(window.since))
    if window.until is not None:
        statement = statement.where(ActivityLog.created_at < _midnight(window.until))
    found = statement.cte("found").prefix_with("MATERIALIZED")
    return select(found.c.seq, found.c.created_at).order_by(_order(found.c.seq, forwards)).limit(limit)


def _order(column: ColumnElement[int] | InstrumentedAttribute[int], forwards: bool) -> ColumnElement[int]:
    return column.asc() if forwards else column.desc()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _in_time(session: Session, log: Log, wanted: ActivityFilter, extent: Extent) -> Extent:
    """The extent without the ends that have no row of the wanted time; rows of one time lie close together, but not in its order."""
    first, last = extent.first, extent.last
    if wanted.since is not None:
        begins = session.scalar(SINCE, {"team_id": log.team_id, "day": wanted.since.date()})
        first = max(first, begins if begins is not None else log.folded + 1)
    if wanted.until is not None:
        given = {
            "team_id": log.team_id,
            "folded": log.folded,
            "time": wanted.until,
            "day": wanted.until.date(),
        }
        last = min(last, session.scalar(UNTIL, given) or 0)
    return Extent(first, last)


# Windows


def _spans(extent: Extent, forwards: bool) -> Iterator[Window]:
    size = FIRST_SPAN
    while extent:
        numbers, extent = extent.divided(size, forwards=forwards)
        yield Window(numbers)
        size *= WIDER


def _text_windows(
    session: Session, log: Log, pattern: str, extent: Extent, forwards: bool
) -> Iterator[Window]:
    """The first rows one by one; then by the index, as far as it can help, and else a bounded number one by one."""
    if not extent:
        return
    numbers, extent = extent.divided(NEWEST, forwards=forwards)
    yield Window(numbers)
    if not extent:
        return
    if _has_trigram(pattern, log):
        yield from _months(session, log, extent, forwards)
    else:
        yield Window(extent.divided(WALKED - NEWEST, forwards=forwards)[0])


def _has_trigram(pattern: str, log: Log) -> bool:
    """Whether the index knows any three characters of it: whatever is neither letter nor digit parts them (pg_trgm)."""
    run = 0
    for character in pattern:
        run = run + 1 if character.isalnum() and (log.foreign_letters or character.isascii()) else 0
        if run == 3:
            return True
    return False


def _months(session: Session, log: Log, extent: Extent, forwards: bool) -> Iterator[Window]:
    """The extent by months, few and then all that are left; what is not folded yet, of whatever month, by itself."""
    folded = extent.within(Extent(1, log.folded))
    unfolded = extent.within(Extent(log.folded + 1, extent.last))
    parts = [
        _folded_months(session, log.team_id, folded, forwards) if folded else iter(()),
        iter([Window(unfolded, by_words=True)] if unfolded else ()),
    ]
    for part in parts if forwards else reversed(parts):
        yield from part


def _folded_months(session: Session, team_id: UUID, extent: Extent, forwards: bool) -> Iterator[Window]:
    given = {"team_id": team_id, "first": extent.first, "last": extent.last}
    months = session.execute(MONTHS_OF, given).all()
    left = months if forwards else months[::-1]
    for count in (*MONTHS, len(months)):
        left = left[count:]
        if not left:
            numbers, extent = extent, Extent(1, 0)
        elif (
            forwards
        ):  # up to the first row of the months that are left: two months overlap where their rows do
            numbers, extent = extent.divided(min(month.first for month in left) - extent.first, forwards=True)
        else:
            numbers, extent = extent.divided(extent.last - max(month.last for month in left), forwards=False)
        of = [month for month in months if month.first <= numbers.last and month.last >= numbers.first]
        if numbers and of:
            since, until = min(month.month for month in of), max(month.next_month for month in of)
            yield Window(numbers, by_words=True, since=since, until=until)
        if not extent:
            return


# Names


def _says(session: Session, log: Log, pattern: str) -> ColumnElement[bool]:
    """Whether the row says it, or names someone who is called so today: names are not in the row, so that they can be erased."""
    people, agents, invitations = _called(session, log, pattern)
    return or_(
        worded(pattern),
        *([ActivityLog.user_id.in_(people)] if people else ()),
        *([_about("user", people)] if people else ()),
        *([ActivityLog.agent_id.in_(agents)] if agents else ()),
        *([_about("invitation", invitations)] if invitations else ()),
    )


def _about(resource_type: str, ids: Sequence[UUID]) -> ColumnElement[bool]:
    return and_(ActivityLog.resource_type == resource_type, ActivityLog.resource_id.in_(ids))


def _called(session: Session, log: Log, pattern: str) -> tuple[list[UUID], list[UUID], list[UUID]]:
    """Whom of the team's log the pattern names: people, agents and invitations."""
    says = like(pattern)
    # The names first and by themselves: else the planner would look through those of all persons of the product.
    persons = select(User.id, User.name).where(User.id.in_(_people(log)))
    names = persons.cte("names").prefix_with("MATERIALIZED")
    statement = union_all(
        select(literal("user").label("kind"), names.c.id).where(func.lower(names.c.name).like(says)),
        select(literal("agent"), Agent.id).where(
            Agent.team_id == log.team_id, func.lower(Agent.name).like(says)
        ),
        select(literal("invitation"), Invitation.id).where(
            Invitation.team_id == log.team_id, func.lower(Invitation.email).like(says)
        ),
    )
    found: dict[str, list[UUID]] = {"user": [], "agent": [], "invitation": []}
    for kind, id_ in session.execute(statement):
        found[kind].append(id_)
    return found["user"], found["agent"], found["invitation"]


def _people(log: Log) -> Select[UUID]:
    """Who is named in the log, what is not folded yet included."""
    known = select(ActivityPerson.user_id).where(ActivityPerson.team_id == log.team_id)
    if log.folded >= log.whole.last:
        return known
    new = select(ActivityLog).where(ActivityLog.team_id == log.team_id, ActivityLog.seq > log.folded)
    both = union_all(
        known,
        new.with_only_columns(ActivityLog.user_id),
        new.where(ActivityLog.resource_type == "user").with_only_columns(ActivityLog.resource_id),
    ).subquery()
    return select(both.c.user_id)
