"""
The projections, made anew from what they are projected from: the usage of each day from the ledger, the counts of the log from
the log. What is not folded yet stays so. Each call is one team's, and nobody folds that team meanwhile, or counts for its hard limits.
"""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.operations.usage import BREAKDOWN_KEY
from models.tables.usage import Metric

# Folds wait, or give up and come again with the next tick (models/database.py, lock_timeout).
LOCK_USAGE = text("LOCK TABLE usage_stats, usage_breakdowns IN SHARE ROW EXCLUSIVE MODE")
LOCK_COUNTS = text("SELECT seq FROM activity_folds WHERE team_id = :team_id FOR UPDATE")
LOCK_QUOTAS = text(
    "SELECT pg_advisory_xact_lock(7404, quota_bucket(:team_id))"
    " WHERE EXISTS (SELECT FROM usage_quotas WHERE team_id = :team_id)"
)
# A month that is over counts as nothing used; one that began by somebody's clock alone is left to come.
QUOTAS = text("""
SELECT metric, maximum, CASE WHEN metric = 'storage_bytes' OR period = month THEN used ELSE 0 END AS used
FROM usage_quotas, date_trunc('month', now() AT TIME ZONE 'UTC') AS month
WHERE team_id = :team_id AND (period <= month OR metric = 'storage_bytes') ORDER BY metric
""")
COUNT_QUOTAS = text(
    "SELECT set_quotas(:team_id, array_agg(metric::text), array_agg(maximum)) FROM usage_quotas WHERE team_id = :team_id"
    " HAVING count(*) > 0"
)
LONGER = text("SET LOCAL statement_timeout = '15min'")
_COLUMNS = ", ".join(Metric)
_SUMS = ", ".join(
    f"coalesce(sum(quantity) FILTER (WHERE metric = '{metric}'), 0) AS {metric}" for metric in Metric
)
_FOLDED = """
  SELECT l.team_id, (l.occurred_at AT TIME ZONE 'UTC')::date AS date, l.metric, l.quantity, l.user_id, l.agent_id, l.api_key_id,
         l.workspace_id, l.model, l.part
  FROM usage_ledger l
  WHERE l.team_id = :team_id AND NOT EXISTS (SELECT FROM usage_pending p WHERE p.ledger_id = l.id)
"""
_DAYS = f"SELECT team_id, date, {_SUMS} FROM ({_FOLDED}) AS folded GROUP BY team_id, date"  # noqa: S608
_PARTS = (
    f"SELECT {BREAKDOWN_KEY}, sum(quantity) AS quantity FROM ({_FOLDED}) AS folded GROUP BY {BREAKDOWN_KEY}"  # noqa: S608
)
_KEPT_DAYS = f"SELECT team_id, date, {_COLUMNS} FROM usage_stats WHERE team_id = :team_id"  # noqa: S608
_KEPT_PARTS = f"SELECT {BREAKDOWN_KEY}, quantity FROM usage_breakdowns WHERE team_id = :team_id"  # noqa: S608

_LOG = """
  SELECT l.team_id, l.seq, l.created_at AT TIME ZONE 'UTC' AS at, l.workspace_id, l.action, l.user_id, l.agent_id,
         l.resource_type, l.resource_id
  FROM activity_folds f JOIN activity_logs l ON l.team_id = f.team_id AND l.seq <= f.seq WHERE f.team_id = :team_id
"""
_COUNTS = f"""
SELECT l.team_id, date_trunc('month', l.at)::date AS month, l.workspace_id, d.dimension, d.value, count(*) AS n
FROM ({_LOG}) AS l CROSS JOIN LATERAL (
  VALUES ('action', l.action::text), ('user', l.user_id::text), ('agent', l.agent_id::text)
) AS d (dimension, value)
WHERE d.value IS NOT NULL GROUP BY 1, 2, 3, 4, 5
"""  # noqa: S608
_KEPT_COUNTS = """
SELECT team_id, month, workspace_id, dimension::text, value::text, n FROM activity_counts WHERE team_id = :team_id AND n > 0
"""
_DATES = f"SELECT team_id, at::date AS day, min(seq) AS first_seq, max(seq) AS last_seq FROM ({_LOG}) AS l GROUP BY 1, 2"  # noqa: S608
_PEOPLE = f"""
SELECT DISTINCT l.team_id, u.id AS user_id FROM ({_LOG}) AS l
CROSS JOIN LATERAL (VALUES (l.user_id), (CASE WHEN l.resource_type = 'user' THEN l.resource_id END)) AS p (id)
JOIN users u ON u.id = p.id
"""  # noqa: S608


def _differing(right: str, kept: str) -> str:
    """SQL: the rows that are on one side alone; NULLs are equal to each other."""
    return (
        f"SELECT 'right' AS side, to_jsonb(r) AS row FROM (({right}) EXCEPT ALL ({kept})) AS r "  # noqa: S608
        f"UNION ALL SELECT 'kept', to_jsonb(k) FROM (({kept}) EXCEPT ALL ({right})) AS k"
    )


class Projection(NamedTuple):
    """A table that is folded, the statement that says what it ought to hold, and what differs."""

    table: str
    columns: str
    right: str
    differing: str


# Of a purged log the days and the people may be more than there are, which costs a search time and nothing else: what is
# there has to lie within.
USAGE = (
    Projection("usage_stats", f"team_id, date, {_COLUMNS}", _DAYS, _differing(_DAYS, _KEPT_DAYS)),
    Projection("usage_breakdowns", f"{BREAKDOWN_KEY}, quantity", _PARTS, _differing(_PARTS, _KEPT_PARTS)),
)
ACTIVITY = (
    Projection(
        "activity_counts",
        "team_id, month, workspace_id, dimension, value, n",
        _COUNTS,
        _differing(_COUNTS, _KEPT_COUNTS),
    ),
    Projection(
        "activity_days",
        "team_id, day, first_seq, last_seq",
        _DATES,
        f"SELECT 'right' AS side, to_jsonb(r) AS row FROM ({_DATES}) AS r WHERE NOT EXISTS (SELECT FROM activity_days d "  # noqa: S608
        "WHERE d.team_id = r.team_id AND d.day = r.day AND d.first_seq <= r.first_seq AND d.last_seq >= r.last_seq)",
    ),
    Projection(
        "activity_people",
        "team_id, user_id",
        _PEOPLE,
        f"SELECT 'right' AS side, to_jsonb(r) AS row FROM ({_PEOPLE}) AS r WHERE NOT EXISTS ("  # noqa: S608
        "SELECT FROM activity_people p WHERE p.team_id = r.team_id AND p.user_id = r.user_id)",
    ),
)


class Difference(NamedTuple):
    """A row that a projection ought to hold and does not (`right`), or holds and ought not to (`kept`)."""

    table: str
    side: str
    row: dict[str, Any]


def replay_usage(session: Session, team_id: UUID, *, rebuild: bool) -> list[Difference]:
    """What the usage of the team's days differed in from its ledger; with `rebuild`, it is made anew where it did."""
    session.execute(LONGER)
    session.execute(LOCK_USAGE)
    return _replay(session, team_id, USAGE, rebuild=rebuild)


def replay_quotas(session: Session, team_id: UUID, *, rebuild: bool) -> list[Difference]:
    """What is used of the team's hard limits by their counts, and ought to be by its usage; they are made anew with `rebuild`."""
    where = {"team_id": team_id}
    session.execute(LOCK_QUOTAS, where)
    kept = session.execute(QUOTAS, where).all()
    with session.begin_nested() as counted:
        session.execute(COUNT_QUOTAS, where)
        right = {row.metric: row for row in session.execute(QUOTAS, where)}
        differing = [row for row in kept if right[row.metric] != row]
        if not (differing and rebuild):
            counted.rollback()
    return [
        Difference(
            "usage_quotas", side, {"team_id": str(team_id), "metric": row.metric, "used": str(row.used)}
        )
        for one in differing
        for side, row in (("right", right[one.metric]), ("kept", one))
    ]


def replay_activity(session: Session, team_id: UUID, *, rebuild: bool) -> list[Difference]:
    """What the counts of the team's log differed in from the log; with `rebuild`, they are made anew where they did."""
    session.execute(LONGER)
    session.execute(LOCK_COUNTS, {"team_id": team_id})
    return _replay(session, team_id, ACTIVITY, rebuild=rebuild)


def _replay(
    session: Session, team_id: UUID, projections: tuple[Projection, ...], *, rebuild: bool
) -> list[Difference]:
    found = []
    for each in projections:
        differing = session.execute(text(each.differing), {"team_id": team_id}).all()
        found += [Difference(each.table, *row) for row in differing]
        if differing and rebuild:
            into = f"INSERT INTO {each.table} ({each.columns}) SELECT {each.columns} FROM ({each.right}) AS r"  # noqa: S608
            session.execute(text(f"DELETE FROM {each.table} WHERE team_id = :team_id"), {"team_id": team_id})  # noqa: S608
            session.execute(text(into), {"team_id": team_id})
    return found
