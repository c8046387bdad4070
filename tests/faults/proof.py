"""What the clients were told, compared with what the database holds; each function names what does not agree."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg

from tests.faults.load import UNANSWERED, Team

Connection = psycopg.Connection[tuple[Any, ...]]

WAITING = """
SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM usage_pending)
  + (SELECT count(*) FROM tasks WHERE lease_id IS NOT NULL)
"""
CALLS = "SELECT coalesce(sum(quantity), 0) FROM usage_ledger WHERE team_id = %s AND metric = 'api_calls'"
LEDGER = "SELECT key, metric, quantity FROM usage_ledger WHERE team_id = %s AND metric <> 'api_calls'"
TASKS = "SELECT id::text, title, status, attempts, llm_tokens_used, result FROM tasks WHERE team_id = %s"
LOG = """
SELECT seq, id::text, action, resource_id::text, request_id, metadata FROM activity_logs WHERE team_id = %s ORDER BY seq
"""
HEAD = "SELECT seq FROM activity_heads WHERE team_id = %s"
# Day by day and metric by metric: the ledger, the daily figures, and whose it was.
DAYS = """
SELECT date, metric, sum(ledger), sum(daily), sum(broken_down) FROM (
  SELECT (occurred_at AT TIME ZONE 'UTC')::date AS date, metric, quantity AS ledger, 0 AS daily, 0 AS broken_down
  FROM usage_ledger WHERE team_id = %(team)s
  UNION ALL
  SELECT s.date, m.metric, 0, m.quantity, 0 FROM usage_stats s, LATERAL (VALUES
    ('tasks_created', s.tasks_created), ('tasks_completed', s.tasks_completed), ('llm_tokens_used', s.llm_tokens_used),
    ('api_calls', s.api_calls), ('storage_bytes', s.storage_bytes)) AS m (metric, quantity)
  WHERE s.team_id = %(team)s
  UNION ALL
  SELECT date, metric, 0, 0, quantity FROM usage_breakdowns WHERE team_id = %(team)s
) AS sources GROUP BY date, metric ORDER BY date, metric
"""
EXPECTED = {200, 201, 202, 204, 404, 409, 422, 503, UNANSWERED}
QUOTA = "SELECT used FROM usage_quotas WHERE team_id = %s AND metric = 'api_calls'"


@dataclass(frozen=True, slots=True)
class Kept:
    """What one state of the database says of a team."""

    calls: int
    ledger: Sequence[tuple[str, str, int]]
    tasks: Sequence[tuple[str, str, str, int, int, Any]]
    log: Sequence[tuple[int, str, str, str, str | None, Any]]
    head: int
    days: Sequence[tuple[Any, str, int, int, int]]
    quota: int | None


def waiting(database: Connection) -> int:
    """What is not projected, folded or ended yet."""
    row = database.execute(WAITING).fetchone()
    database.rollback()
    return int(row[0]) if row else 0


def read(database: Connection, team: Team) -> Kept:
    """All in one state."""
    database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def rows(statement: str, parameters: Any = (team.id,)) -> list[Any]:
        return database.execute(statement.encode(), parameters).fetchall()

    quota = rows(QUOTA)
    kept = Kept(
        int(rows(CALLS)[0][0]),
        rows(LEDGER),
        rows(TASKS),
        rows(LOG),
        rows(HEAD)[0][0],
        rows(DAYS, {"team": team.id}),
        int(quota[0][0]) if quota else None,
    )
    database.rollback()
    return kept


def differences(team: Team, kept: Kept) -> list[str]:
    """Everything that does not agree; nothing, if all is as claimed."""
    checks = (_calls, _days, _tasks, _task_units, _reports, _numbering, _log)
    return [f"team {team.id}: {found}" for check in checks for found in check(team, kept)]


def _calls(team: Team, kept: Kept) -> Iterator[str]:
    if not team.answered <= kept.calls <= team.answered + team.unsure:
        yield f"{team.answered} calls answered, {team.unsure} unsure, {kept.calls} counted"
    if kept.quota is not None and kept.quota != kept.calls:
        yield f"the quota says {kept.quota} calls, the ledger {kept.calls}"
    unexpected = team.statuses.keys() - EXPECTED
    yield from (f"{team.statuses[status]} calls were answered {status}" for status in unexpected)
    yield from team.stale


def _days(_team: Team, kept: Kept) -> Iterator[str]:
    for date, metric, ledger, daily, broken_down in kept.days:
        if not ledger == daily == broken_down:
            yield f"{date} {metric}: ledger {ledger}, daily {daily}, breakdown {broken_down}"


def _tasks(team: Team, kept: Kept) -> Iterator[str]:
    """Each task that was answered is there, once; none is there that nobody asked for."""
    titles = Counter(title for _, title, *_ in kept.tasks)
    by_id = {
        task_id: (title, status, tokens, result) for task_id, title, status, _, tokens, result in kept.tasks
    }
    yield from (f"{title} is there {count} times" for title, count in titles.items() if count > 1)
    yield from (f"nobody asked for {title}" for title in titles if title not in team.created)
    absent = ("", "absent", 0, None)
    for title, task_id in team.created.items():
        if task_id is not None and by_id.get(task_id, absent)[0] != title:
            yield f"{title} was created, and is not there"
    for task_id in team.failed:
        _, status, *_ = by_id.get(task_id, absent)
        if status != "failed":
            yield f"{task_id} was failed, and is {status}"
    for task_id, told in team.completed.items():
        _, status, tokens, result = by_id.get(task_id, absent)
        if (status, tokens, result) != ("completed", told, {"tokens": told}):
            yield f"{task_id} was completed with {told} tokens, and is {status} with {tokens} and {result}"
    for task_id, (_, status, tokens, result) in by_id.items():
        if status == "completed" and not (
            tokens in team.completing.get(task_id, ()) and result == {"tokens": tokens}
        ):
            yield f"{task_id} has {tokens} tokens and {result}, which nobody reported"


def _task_units(_team: Team, kept: Kept) -> Iterator[str]:
    """The ledger of tasks is what the tasks are, row by row."""
    expected = {f"task:{task_id}:created:tasks_created": 1 for task_id, *_ in kept.tasks}
    for task_id, _, status, _, tokens, _ in kept.tasks:
        if status == "completed":
            expected[f"task:{task_id}:completed:tasks_completed"] = 1
            expected[f"task:{task_id}:completed:llm_tokens_used"] = tokens
    counted = {key: quantity for key, _, quantity in kept.ledger if key.startswith("task:")}
    for key in sorted(expected.keys() | counted.keys()):
        if expected.get(key) != counted.get(key):
            yield f"{key}: {expected.get(key)} by the tasks, {counted.get(key)} by the ledger"


def _reports(team: Team, kept: Kept) -> Iterator[str]:
    others = [(key, metric, quantity) for key, metric, quantity in kept.ledger if not key.startswith("task:")]
    counted = {key.partition(":")[2]: (metric, quantity) for key, metric, quantity in others}
    if len(counted) != len(others) or len({key for key, *_ in kept.ledger}) != len(kept.ledger):
        yield "a key is in the ledger twice"
    for external_id, told in counted.items():
        if team.reported.get(external_id, ())[:2] != told:
            yield f"the ledger has {told} of {external_id}, which was not reported so"
    for external_id, (_, _, sure) in team.reported.items():
        if sure and external_id not in counted:
            yield f"{external_id} was accepted, and is not counted"


def _numbering(_team: Team, kept: Kept) -> Iterator[str]:
    numbers = [seq for seq, *_ in kept.log]
    if numbers != list(range(1, len(numbers) + 1)) or kept.head != len(numbers):
        yield f"the log of {len(numbers)} rows has gaps; its head is {kept.head}"
    if len({event_id for _, event_id, *_ in kept.log}) != len(numbers):
        yield "an event is in the log twice"
    told = Counter(
        (request_id, action, about) for _, _, action, about, request_id, _ in kept.log if request_id
    )
    yield from (f"{what} is in the log {count} times" for what, count in told.items() if count > 1)


def _log(team: Team, kept: Kept) -> Iterator[str]:
    """The log tells of the same tasks as the table: how each was made, begun, given back and ended."""
    told: dict[str, Counter[str]] = {task_id: Counter() for task_id, *_ in kept.tasks}
    for _, _, action, about, request_id, metadata in kept.log:
        if not action.startswith("task_"):
            continue
        if about not in told:
            yield f"the log tells of task {about}, which is not there"
            continue
        told[about][action] += 1
        told[about]["tokens"] += metadata.get("llm_tokens_used", 0)
        if request_id is not None and request_id not in team.request_ids:
            yield f"{action} of {about} names the request {request_id}, which nobody made"
    for task_id, _, status, attempts, tokens, _ in kept.tasks:
        begun = status in {"processing", "completed", "failed"}
        expected = Counter(
            {"task_created": 1, "task_started": attempts, "task_returned": attempts - begun, "tokens": tokens}
        )
        expected[f"task_{status}"] += status in {"completed", "failed"}
        if +told[task_id] != +expected:
            yield f"task {task_id}: {dict(+told[task_id])} by the log, {dict(+expected)} by the table"


def asked(url: str, team: Team) -> list[str]:
    """What the product's own proofs say against it."""
    headers = {"Authorization": f"Bearer {team.credentials[0]}"}
    today = datetime.now(UTC).date()
    months = {(day.year, day.month) for day in (today, today - timedelta(days=1))}
    paths = ["/activity/verify", *(f"/usage/verify?year={year}&month={month}" for year, month in months)]
    found = []
    for path in paths:
        answer = httpx.get(url + team.path + path, headers=headers, timeout=60, trust_env=False)
        if answer.status_code != 200 or not answer.json()["valid"]:
            found.append(f"team {team.id}: {path} answers {answer.status_code}: {answer.text[:500]}")
    return found
