"""
The ledger: usage is written in the transaction of what it counts, under a key that is unique for ever, and folded into
`usage_stats` by a statement that can run any number of times.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.entry import Access
from models.errors import Invalid, QuotaExceeded
from models.operations import alerts
from models.operations.alerts import Alert
from models.queries import teams, workspaces
from models.queries.ledger import EXTERNAL
from models.tables.usage import Metric, TokenPart

CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead of ours a reporter's clock may run before `occurred_at` counts as in the future."""

# What callers bring, a column each.
UNITS = """
SELECT * FROM unnest(CAST(:team_ids AS uuid[]), CAST(:keys AS text[]), CAST(:metrics AS text[]), CAST(:quantitys AS bigint[]),
                     CAST(:occurred_ats AS timestamptz[]), CAST(:user_ids AS uuid[]), CAST(:agent_ids AS uuid[]),
                     CAST(:api_key_ids AS uuid[]), CAST(:workspace_ids AS uuid[]), CAST(:models AS text[]),
                     CAST(:parts AS text[]), CAST(:reversess AS uuid[]), CAST(:reasons AS text[]), CAST(:set_ids AS uuid[]))
"""


def appending(source: str) -> TextClause:
    """
    The statement that takes into the ledger what `source` selects: team_id, key, metric, quantity, occurred_at (NULL: now),
    user_id, agent_id, api_key_id, workspace_id, model, part, reverses, reason and set_id. It answers how many rows it took,
    and of every hard limit that counts them its metric, where it stood before, where it stands now, and its maximum; or NULL.
    """
    # The pending rows come from what the ledger took in: a key that it knows already adds nothing anywhere. Hard limits are
    # counted with it (count_quotas: migrations/versions/20261126_0402_limits.py), for the transaction to be rolled back if one is
    # passed; late usage of an earlier month has none.
    return text(f"""
WITH taken AS (
  INSERT INTO usage_ledger (team_id, key, metric, quantity, occurred_at, user_id, agent_id, api_key_id, workspace_id, model,
                            part, reverses, reason, set_id)
  SELECT e.team_id, e.key, e.metric, e.quantity, coalesce(e.occurred_at, now()), e.user_id, e.agent_id, e.api_key_id,
         e.workspace_id, e.model, e.part, e.reverses, e.reason, e.set_id
  FROM ({source}) AS e (team_id, key, metric, quantity, occurred_at, user_id, agent_id, api_key_id, workspace_id, model, part,
                        reverses, reason, set_id)
  ORDER BY e.team_id, e.key
  ON CONFLICT (team_id, key) DO NOTHING
  RETURNING *, (occurred_at AT TIME ZONE 'UTC')::date AS date
), pending AS (
  INSERT INTO usage_pending (ledger_id, team_id, date, metric, quantity, user_id, agent_id, api_key_id, workspace_id, model, part)
  SELECT id, team_id, date, metric, quantity, user_id, agent_id, api_key_id, workspace_id, model, part FROM taken
)
SELECT (SELECT count(*) FROM taken),
       (SELECT count_quotas(array_agg(team_id), array_agg(metric), array_agg(month), array_agg(quantity))
        FROM (SELECT team_id, metric, date_trunc('month', date::timestamp)::date AS month, sum(quantity) AS quantity
              FROM taken GROUP BY 1, 2, 3) AS counted)
""")  # noqa: S608  `source` is a constant of ours


APPEND = appending(UNITS)
_SUMS = ", ".join(
    f"coalesce(sum(quantity) FILTER (WHERE metric = '{metric}'), 0) AS {metric}" for metric in Metric
)
_COLUMNS = ", ".join(Metric)
BREAKDOWN_KEY = "team_id, date, metric, user_id, agent_id, api_key_id, workspace_id, model, part"
# Disjoint sets for any number of folders (SKIP LOCKED), deleted and added together or not at all; sorted, so that two
# folders take the days' locks in one order.
FOLD = text(f"""
WITH taken AS (
  DELETE FROM usage_pending WHERE ledger_id IN (
    SELECT ledger_id FROM usage_pending ORDER BY ledger_id LIMIT :limit FOR UPDATE SKIP LOCKED
  ) RETURNING {BREAKDOWN_KEY}, quantity
), days AS (
  SELECT team_id, date, count(*) AS rows, {_SUMS} FROM taken GROUP BY team_id, date
), folded AS (
  INSERT INTO usage_stats AS s (team_id, date, {_COLUMNS})
  SELECT team_id, date, {_COLUMNS} FROM days ORDER BY team_id, date
  ON CONFLICT (team_id, date) DO UPDATE SET {", ".join(f"{metric} = s.{metric} + excluded.{metric}" for metric in Metric)}
), broken_down AS (
  INSERT INTO usage_breakdowns AS b ({BREAKDOWN_KEY}, quantity)
  SELECT {BREAKDOWN_KEY}, sum(quantity) FROM taken GROUP BY {BREAKDOWN_KEY} ORDER BY {BREAKDOWN_KEY}
  ON CONFLICT ON CONSTRAINT uq_usage_breakdowns_whose DO UPDATE SET quantity = b.quantity + excluded.quantity
)
SELECT coalesce(sum(rows), 0),
       coalesce(array_agg(DISTINCT team_id) FILTER (WHERE is_this_month), '{{}}'),
       coalesce(array_agg(DISTINCT team_id) FILTER (WHERE is_this_month AND storage_bytes <> 0), '{{}}')
FROM (SELECT *, date >= date_trunc('month', now() AT TIME ZONE 'UTC')::date AS is_this_month FROM days) AS these
""")  # noqa: S608  made of constants alone
# The lowest level that any day closes with, once the batch's changes are added.
LOWEST_LEVEL = text("""
SELECT min(level) FROM (
  SELECT sum(sum(quantity)) OVER (ORDER BY date) AS level FROM (
    SELECT date, storage_bytes AS quantity FROM usage_stats WHERE team_id = :team_id
    UNION ALL
    SELECT date, quantity FROM usage_pending WHERE team_id = :team_id AND metric = 'storage_bytes'
    UNION ALL
    SELECT * FROM unnest(CAST(:dates AS date[]), CAST(:changes AS numeric[]))
  ) AS changes GROUP BY date
) AS levels
""")
CALLS_LEFT = text("""
SELECT maximum, CASE WHEN period >= date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN used ELSE 0 END AS used
FROM usage_quotas WHERE team_id = :team_id AND metric = 'api_calls'
""")
KNOWN = text("SELECT key FROM usage_ledger WHERE team_id = :team_id AND key = ANY(CAST(:keys AS text[]))")


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What a reporter sends. `quantity` is positive, except for storage, whose level changes by it."""

    external_id: str
    metric: Metric
    quantity: int
    occurred_at: datetime | None = None
    workspace_id: UUID | None = None
    model: str | None = None
    part: TokenPart | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """A row for the ledger, of whoever the actor is."""

    key: str
    metric: Metric
    quantity: int
    occurred_at: datetime | None = None
    workspace_id: UUID | None = None
    model: str | None = None
    part: TokenPart | None = None
    reverses: UUID | None = None
    reason: str | None = None
    set_id: UUID | None = None


class Caller(NamedTuple):
    """Whose usage it is."""

    team_id: UUID
    user_id: UUID | None = None
    agent_id: UUID | None = None
    api_key_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    accepted: int
    duplicates: int


def count(
    session: Session,
    access: Access,
    quantities: Mapping[Metric, int],
    *,
    key: str,
    workspace_id: UUID | None = None,
    tokens: Mapping[TokenPart, int] | None = None,
    model: str | None = None,
) -> None:
    """
    Counts what is being done in this transaction, and the tokens of a model call by their part; a quantity of zero leaves no
    row. Raises QuotaExceeded for what a hard limit of the plan does not leave room for.
    """
    units = [
        Unit(
            f"{key}:{metric}",
            metric,
            quantity,
            workspace_id=workspace_id,
            model=model if metric is Metric.llm_tokens_used else None,
        )
        for metric, quantity in quantities.items()
        if quantity
    ]
    units += [
        Unit(
            f"{key}:tokens:{part}",
            Metric.llm_tokens_used,
            quantity,
            workspace_id=workspace_id,
            model=model,
            part=part,
        )
        for part, quantity in (tokens or {}).items()
        if quantity
    ]
    append(session, access, units)


def report(session: Session, access: Access, events: Sequence[UsageEvent]) -> Reported:
    """
    Takes in a batch, whole or not at all. An `external_id` that the team ever sent before counts as a duplicate.

    Raises Invalid for times in the future and workspaces that the actor can't see, by the index of each event, and for storage
    that would fall below zero.
    """
    check(session, access, events)
    first_of_each = list({event.external_id: event for event in reversed(events)}.values())
    _check_storage(session, access, first_of_each)
    units = [
        Unit(
            EXTERNAL + event.external_id,
            event.metric,
            event.quantity,
            occurred_at=event.occurred_at,
            workspace_id=event.workspace_id,
            model=event.model,
            part=event.part,
        )
        for event in first_of_each
    ]
    accepted = append(session, access, units)
    return Reported(accepted=accepted, duplicates=len(events) - accepted)


def check(session: Session, access: Access, events: Sequence[UsageEvent]) -> None:
    """
    Raises Invalid, by the index of each event, for times in the future and for workspaces that the actor can't see. What the
    ledger has already is a duplicate, whatever became of its workspace since.
    """
    latest = datetime.now(UTC) + CLOCK_TOLERANCE
    errors: dict[str, dict[str, list[str]]] = {
        str(index): {"occurred_at": ["This is in the future."]}
        for index, event in enumerate(events)
        if event.occurred_at and event.occurred_at > latest
    }
    named = {event.workspace_id for event in events if event.workspace_id}
    if hidden := named - workspaces.visible(session, access, named):
        astray = [(index, event) for index, event in enumerate(events) if event.workspace_id in hidden]
        known = _known(session, access, [event for _, event in astray])
        for index, event in astray:
            if EXTERNAL + event.external_id not in known:
                errors.setdefault(str(index), {})["workspace_id"] = ["There is no such workspace here."]
    if errors:
        raise Invalid({"events": errors})


def count_api_calls(session: Session, calls: Mapping[Caller, int], *, batch: str) -> None:
    """
    Counts API calls by who called, under the batch's name; the same batch again, after a lost answer, adds nothing. They
    happened: no limit refuses them any more.
    """
    units = [
        (caller, Unit(f"api:{batch}:{number}", Metric.api_calls, quantity))
        for number, (caller, quantity) in enumerate(calls.items())
    ]
    session.execute(APPEND, _parameters(units))


def fold(session: Session, limit: int) -> int:
    """
    Folds up to `limit` pending rows into `usage_stats`, and tells the teams what of their plan is used up by it; how many rows it
    took. Safe to repeat, to kill and to run twice at once.
    """
    rows, team_ids, with_storage = session.execute(FOLD, {"limit": limit}).one()
    alerts.after_fold(session, team_ids, with_storage)
    return int(rows)


def append(session: Session, caller: Access | Caller, units: Sequence[Unit], *, limited: bool = True) -> int:
    """
    How many of the units the ledger did not know and took in, as the caller's; raises QuotaExceeded as `count` does, unless
    they are not `limited`: what was used before anybody could refuse it is counted whatever the plan says.
    """
    if not units:
        return 0
    caller = Caller(caller.team_id, caller.user_id, caller.agent_id, caller.api_key_id)
    parameters = _parameters([(caller, unit) for unit in units])
    taken, quotas = session.execute(APPEND, parameters).one()
    if quotas:
        keep_to(session, caller.team_id, quotas, limited=limited)
    return int(taken)


def take_call(session: Session, access: Access) -> None:
    """
    Counts the request as an API call where the plan limits them hard, in the request's own transaction and as the last thing in it;
    raises QuotaExceeded if none is left, and so all that the request did is undone.
    """
    append(session, access, [Unit(f"api:{uuid7()}", Metric.api_calls, 1)])


def refuse_call(session: Session, access: Access) -> None:
    """Raises QuotaExceeded if no API call is left of a hard limit, before anything is done for it."""
    quota = session.execute(CALLS_LEFT, {"team_id": access.team_id}).one_or_none()
    if quota is not None and quota.used >= quota.maximum:
        raise _exceeded(Metric.api_calls, quota.used, quota.maximum)


def keep_to(
    session: Session, team_id: UUID, quotas: Sequence[tuple[str, int, int, int]], *, limited: bool = True
) -> None:
    """
    Of what count_quotas answers: raises QuotaExceeded for a hard limit that was passed, if it is a limit for this; else tells the
    thresholds that were reached.
    """
    for metric, before, after, maximum in quotas:
        if limited and maximum < after > before:
            raise _exceeded(metric, before, maximum)
    month = datetime.now(UTC).date().replace(day=1)
    alerts.tell(
        session,
        [
            Alert(team_id, metric, month, threshold, Decimal(after), Decimal(maximum))
            for metric, before, after, maximum in quotas
            for threshold in alerts.thresholds_between(before, after, maximum)
        ],
    )


def _exceeded(metric: str, used: int, limit: int) -> QuotaExceeded:
    resets_at = None if metric == Metric.storage_bytes else next_month(datetime.now(UTC))
    return QuotaExceeded(metric=metric, used=int(used), limit=int(limit), resets_at=resets_at)


def lowest_level(session: Session, team_id: UUID, changes: Mapping[date, int]) -> int:
    """
    The lowest level of storage in bytes that any day closes with, once these days' changes are added; 0 if there was never
    any. The caller has locked the team, which serialises those who change it.
    """
    parameters = {"team_id": team_id, "dates": list(changes), "changes": list(changes.values())}
    return int(session.scalar(LOWEST_LEVEL, parameters) or 0)


def _parameters(units: Sequence[tuple[Caller, Unit]]) -> dict[str, list[Any]]:
    """A column each, for APPEND to unnest."""
    callers, rows = zip(*units, strict=True)
    parameters = {f"{name}s": [getattr(caller, name) for caller in callers] for name in Caller._fields}
    for name in Unit.__slots__:
        parameters[f"{name}s"] = [getattr(row, name) for row in rows]
    return parameters


def next_month(now: datetime) -> datetime:
    """When the month after this one begins, UTC: then every quota is whole again."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _check_storage(session: Session, access: Access, events: Sequence[UsageEvent]) -> None:
    """Refuses what would bring the level of any day below zero; the team's row serialises those who change it."""
    changes = [event for event in events if event.metric is Metric.storage_bytes]
    if not changes:
        return
    teams.get(session, access, for_update=True)
    known = _known(session, access, changes)
    now = datetime.now(UTC)
    by_day: Counter[date] = Counter()
    for event in changes:
        if EXTERNAL + event.external_id not in known:
            by_day[(event.occurred_at or now).astimezone(UTC).date()] += event.quantity
    if (lowest := lowest_level(session, access.team_id, by_day)) < 0:
        raise Invalid(
            {"events": {"_schema": [f"The storage level would fall to {lowest}; it can't be below zero."]}}
        )


def _known(session: Session, access: Access, events: Sequence[UsageEvent]) -> set[str]:
    """The keys of those that the ledger has."""
    keys = [EXTERNAL + event.external_id for event in events]
    return set(session.scalars(KNOWN, {"team_id": access.team_id, "keys": keys}))
