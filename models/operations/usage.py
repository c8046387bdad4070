"""
The ledger: usage is written in the transaction of what it counts, under a key that is unique for ever, and folded into
`usage_stats` by a statement that can run any number of times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import Invalid
from models.queries import teams
from models.tables.usage import Metric

EXTERNAL = "external:"
"""Keeps a reporter's ids apart from the keys that we derive."""
CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead of ours a reporter's clock may run before `occurred_at` counts as in the future."""

# The pending rows come from what the ledger took in: a key that it knows already adds nothing anywhere.
APPEND = text("""
WITH taken AS (
  INSERT INTO usage_ledger (team_id, key, metric, quantity, user_id, occurred_at)
  SELECT e.team_id, e.key, e.metric, e.quantity, e.user_id, coalesce(e.occurred_at, now())
  FROM unnest(CAST(:team_ids AS uuid[]), CAST(:keys AS text[]), CAST(:metrics AS text[]), CAST(:quantities AS bigint[]),
              CAST(:user_ids AS uuid[]), CAST(:times AS timestamptz[]))
       AS e (team_id, key, metric, quantity, user_id, occurred_at)
  ORDER BY e.team_id, e.key
  ON CONFLICT (team_id, key) DO NOTHING
  RETURNING id, team_id, (occurred_at AT TIME ZONE 'UTC')::date AS date, metric, quantity
), pending AS (
  INSERT INTO usage_pending (ledger_id, team_id, date, metric, quantity)
  SELECT id, team_id, date, metric, quantity FROM taken
)
SELECT count(*) FROM taken
""")
_SUMS = ", ".join(
    f"coalesce(sum(quantity) FILTER (WHERE metric = '{metric}'), 0) AS {metric}" for metric in Metric
)
_COLUMNS = ", ".join(Metric)
# Disjoint sets for any number of folders (SKIP LOCKED), deleted and added together or not at all; sorted, so that two
# folders take the days' locks in one order.
FOLD = text(f"""
WITH taken AS (
  DELETE FROM usage_pending WHERE ledger_id IN (
    SELECT ledger_id FROM usage_pending ORDER BY ledger_id LIMIT :limit FOR UPDATE SKIP LOCKED
  ) RETURNING team_id, date, metric, quantity
), days AS (
  SELECT team_id, date, count(*) AS rows, {_SUMS} FROM taken GROUP BY team_id, date
), folded AS (
  INSERT INTO usage_stats AS s (team_id, date, {_COLUMNS})
  SELECT team_id, date, {_COLUMNS} FROM days ORDER BY team_id, date
  ON CONFLICT (team_id, date) DO UPDATE SET {", ".join(f"{metric} = s.{metric} + excluded.{metric}" for metric in Metric)}
)
SELECT coalesce(sum(rows), 0) FROM days
""")  # noqa: S608  made of constants alone
# The lowest level that any day closes with, once the batch's changes are added.
LOWEST_LEVEL = text("""
SELECT min(level) FROM (
  SELECT sum(sum(quantity)) OVER (ORDER BY date) AS level FROM (
    SELECT date, storage_bytes AS quantity FROM usage_stats WHERE team_id = :team_id
    UNION ALL
    SELECT date, quantity FROM usage_pending WHERE team_id = :team_id AND metric = 'storage_bytes'
    UNION ALL
    SELECT * FROM unnest(CAST(:dates AS date[]), CAST(:changes AS bigint[]))
  ) AS changes GROUP BY date
) AS levels
""")
KNOWN = text("SELECT key FROM usage_ledger WHERE team_id = :team_id AND key = ANY(CAST(:keys AS text[]))")


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What a reporter sends. `quantity` is positive, except for storage, whose level changes by it."""

    external_id: str
    metric: Metric
    quantity: int
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    accepted: int
    duplicates: int


def count(session: Session, access: Access, quantities: Mapping[Metric, int], *, key: str) -> None:
    """Counts what is being done in this transaction; a quantity of zero leaves no row."""
    events = [
        UsageEvent(f"{key}:{metric}", metric, quantity) for metric, quantity in quantities.items() if quantity
    ]
    _append(session, access, events)


def report(session: Session, access: Access, events: Sequence[UsageEvent]) -> Reported:
    """
    Takes in a batch, whole or not at all. An `external_id` that the team ever sent before counts as a duplicate.

    Raises Invalid for times in the future, by the index of each event, and for storage that would fall below zero.
    """
    latest = datetime.now(UTC) + CLOCK_TOLERANCE
    errors = {
        str(index): {"occurred_at": ["This is in the future."]}
        for index, event in enumerate(events)
        if event.occurred_at and event.occurred_at > latest
    }
    if errors:
        raise Invalid({"events": errors})
    first_of_each = list({event.external_id: event for event in reversed(events)}.values())
    _check_storage(session, access, first_of_each)
    accepted = _append(session, access, first_of_each, prefix=EXTERNAL)
    return Reported(accepted=accepted, duplicates=len(events) - accepted)


def count_api_calls(session: Session, calls: Mapping[UUID, int], *, batch: str) -> None:
    """Counts API calls per team under the batch's name; the same batch again, after a lost answer, adds nothing."""
    team_ids = list(calls)
    _execute_append(
        session,
        team_ids=team_ids,
        keys=[f"api:{batch}"] * len(team_ids),
        metrics=[Metric.api_calls.value] * len(team_ids),
        quantities=list(calls.values()),
        user_ids=[None] * len(team_ids),
        times=[None] * len(team_ids),
    )


def fold(session: Session, limit: int) -> int:
    """Folds up to `limit` pending rows into `usage_stats`; how many it took. Safe to repeat, to kill and to run twice at once."""
    return int(session.execute(FOLD, {"limit": limit}).scalar_one())


def _append(session: Session, access: Access, events: Sequence[UsageEvent], *, prefix: str = "") -> int:
    if not events:
        return 0
    return _execute_append(
        session,
        team_ids=[access.team_id] * len(events),
        keys=[prefix + event.external_id for event in events],
        metrics=[event.metric.value for event in events],
        quantities=[event.quantity for event in events],
        user_ids=[access.user_id] * len(events),
        times=[event.occurred_at for event in events],
    )


def _execute_append(session: Session, **columns: list[Any]) -> int:
    return int(session.execute(APPEND, columns).scalar_one())


def _check_storage(session: Session, access: Access, events: Sequence[UsageEvent]) -> None:
    """Refuses what would bring the level of any day below zero; the team's row serialises those who change it."""
    changes = [event for event in events if event.metric is Metric.storage_bytes]
    if not changes:
        return
    teams.get(session, access, for_update=True)
    keys = [EXTERNAL + event.external_id for event in changes]
    known = set(session.scalars(KNOWN, {"team_id": access.team_id, "keys": keys}))
    new = [event for event, key in zip(changes, keys, strict=True) if key not in known]
    now = datetime.now(UTC)
    lowest = session.scalar(
        LOWEST_LEVEL,
        {
            "team_id": access.team_id,
            "dates": [(event.occurred_at or now).astimezone(UTC).date() for event in new],
            "changes": [event.quantity for event in new],
        },
    )
    if lowest is not None and lowest < 0:
        raise Invalid(
            {"events": {"_schema": [f"The storage level would fall to {lowest}; it can't be below zero."]}}
        )
