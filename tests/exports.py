"""An export with proof as the interface makes one, of the database's rows as they are; plain, so that tests can bend it."""

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from models.queries.chain import DIGEST
from tests.factories import fetch

VERIFY = Path(__file__).parents[1] / "docs" / "verify.py"
COLUMNS = (
    "seq", "id", "team_id", "user_id", "agent_id", "api_key_id", "action", "outcome", "schema_version", "resource_type",
    "resource_id", "resource_name", "workspace_id", "summary", "metadata", "ip_address", "user_agent", "request_id",
    "created_at", "previous_hash", "hash", "origin_hash", "origin_salt",
)  # fmt: skip
SELECT = f"""
SELECT l.seq, l.id::text, l.team_id::text, l.user_id::text, l.agent_id::text, l.api_key_id::text, l.action, l.outcome,
  l.schema_version, l.resource_type, l.resource_id::text, l.resource_name, l.workspace_id::text,
  'Something happened' AS summary, l.metadata::text AS metadata, host(l.ip_address) AS ip_address, l.user_agent, l.request_id,
  l.created_at, encode(lag(l.hash) OVER (ORDER BY l.seq, l.created_at), 'hex') AS previous_hash, encode(l.hash, 'hex') AS hash,
  encode(l.origin_hash, 'hex') AS origin_hash, encode(l.origin_salt, 'hex') AS origin_salt,
  encode({DIGEST}, 'hex') AS digest, encode(activity_genesis(l.team_id), 'hex') AS genesis,
  (SELECT encode(h.purged_hash, 'hex') FROM activity_heads h WHERE h.team_id = l.team_id AND h.purged_seq = l.seq - 1) AS purged_hash
FROM activity_logs l WHERE l.team_id = :id ORDER BY l.seq, l.created_at
"""
Rows = list[dict[str, Any]]


def export_rows(team_id: UUID, *, hidden: Callable[[Any], bool] = lambda _: False) -> Rows:
    """Each row with its metadata as the database's text; those that are hidden show their digest alone."""
    found: Rows = []
    for row in fetch(SELECT, id=team_id):
        before = row.purged_hash or (row.genesis if row.seq == 1 else row.previous_hash)
        if hidden(row):
            found.append({"seq": row.seq, "digest": row.digest, "previous_hash": before, "hash": row.hash})
            continue
        shown = {name: getattr(row, name) for name in COLUMNS}
        at = row.created_at.isoformat().replace("+00:00", "Z")
        found.append({**shown, "previous_hash": before, "created_at": at})
    return found


def as_ndjson(rows: Rows) -> bytes:
    lines = []
    for row in rows:
        metadata = row.get("metadata")
        text = json.dumps({**row, "metadata": None} if metadata else row, ensure_ascii=False)
        lines.append(text.replace('"metadata": null', f'"metadata": {metadata}') if metadata else text)
    return "".join(f"{line}\n" for line in lines).encode()


def as_csv(rows: Rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow((*COLUMNS, "digest"))
    writer.writerows([_cell(row.get(name)) for name in (*COLUMNS, "digest")] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    guarded = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "'"))
    return f"'{value}" if guarded else value


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "ndjson": as_ndjson,
    "csv": as_csv,
    "ndjson.gz": lambda rows: gzip.compress(as_ndjson(rows)),
    "csv.gz": lambda rows: gzip.compress(as_csv(rows)),
}


def run_verifier(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """`docs/verify.py` as a customer runs it: another Python process, away from everything of ours."""
    command: Sequence[str | Path] = [sys.executable, "-I", VERIFY, *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=60)
