"""What the tests of exports share: a log full of difficult text, and what an export of it says."""

import csv
import io
import json
from typing import Any
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import enter_team
from models.database import transaction
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import activity
from tests.factories import Answer, Person, TeamSetting, drain

TEXTS = [
    "=1+1", "+1", "-1", "@sum", "\tx", "\rx", "'", "'=1", "''", "x=1", "\n=1", " =1", 'say "hi", all', "line\nbreak\r\nend",
    "Ärger 🌊", "\u2028 \u202e", "a;b,c", "\\", "{resource}", "100%", "null", "\ufeffx",
]  # fmt: skip
ORIGINS = [
    Origin(),
    Origin("192.0.2.1", "=cmd|' /C calc'!A0", "request.1"),
    Origin("2001:db8::7", "an agent", None),
    Origin("::ffff:192.0.2.7", None, "-2"),
]
Rows = list[dict[str, Any]]


def happen(setting: TeamSetting, *names: str, by: Person | None = None) -> None:
    """An event for each name, from every origin in turn, in the log."""
    by = by or setting.owner
    with transaction() as session:
        for number, name in enumerate(names):
            origin = ORIGINS[number % len(ORIGINS)]
            access = enter_team(session, Credential(by.token, origin), setting.id)
            record(session, access, WorkspaceCreated(workspace_id=uuid7(), name=name))
    drain()


def happen_often(team_id: UUID, user_id: UUID, rows: int) -> None:
    """So many events at once."""
    with transaction() as session:
        session.execute(
            text("""
            INSERT INTO outbox (event_id, team_id, action, user_id, resource_type, resource_id, resource_name, details,
                                ip_address, user_agent, request_id)
            SELECT gen_random_uuid(), :team_id, 'task_created', :user_id, 'task', gen_random_uuid(), 'Task ' || n,
                   jsonb_build_object('title', 'Task ' || n, 'status', 'pending', 'prompt', repeat('words ', 20)),
                   '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64)', 'request-' || n
            FROM generate_series(1, :rows) n
            """),
            {"team_id": team_id, "user_id": user_id, "rows": rows},
        )
    moved = 1
    while moved:
        with transaction() as session:
            moved = len(activity.project(session, limit=20_000))


def export(person: Person, setting: TeamSetting, query: Any = None, **kwargs: Any) -> Answer:
    answer = person.get(f"{setting.path}/activity/export", query_string=query or {}, **kwargs)
    assert answer.status_code == 200, answer.text
    return answer


def json_rows(answer: Answer) -> Rows:
    lines = answer.data.decode().split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def csv_cells(data: bytes) -> Rows:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def undone(cell: str) -> str:
    """A cell as it was before it was guarded."""
    return cell.removeprefix("'")


def csv_rows(answer: Answer) -> Rows:
    """The rows of a CSV, as JSON has them."""
    rows = []
    for cells in csv_cells(answer.data):
        row: dict[str, Any] = {name: undone(cell) or None for name, cell in cells.items()}
        for name in ("seq", "schema_version"):
            row[name] = row[name] and int(row[name])
        row["metadata"] = row["metadata"] and json.loads(row["metadata"])
        rows.append(row)
    return rows


def listed(person: Person, setting: TeamSetting, query: Any = None) -> Rows:
    """All pages of the list."""
    rows: Rows = []
    cursor: dict[str, str] = {}
    while True:
        pairs = [*dict(query or {}).items(), ("limit", "200"), *cursor.items()]
        page = person.get(f"{setting.path}/activity", query_string=dict(pairs)).json
        rows += page["items"]
        if page["next_cursor"] is None:
            return rows
        cursor = {"cursor": page["next_cursor"]}
