"""How rows of an export look: NDJSON or CSV, in UTF-8, gzip around it or not."""

import csv
import io
import string
import zlib
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from ipaddress import ip_address
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from models import json_text
from models.events.catalogue import CATALOGUE
from models.queries.activity import ActivityView
from models.queries.activity_exports import ExportRequest, Row
from models.tables.activity_exports import CSV

FIELDS = (
    "seq", "id", "team_id", "user_id", "agent_id", "api_key_id", "action", "outcome", "schema_version", "resource_type",
    "resource_id", "resource_name", "workspace_id", "summary", "metadata", "ip_address", "user_agent", "request_id",
    "created_at",
)  # fmt: skip
"""Of a row, as the list shows it; a CSV's columns in this order. With proof, addresses are in the notation that is hashed."""
PROOF = ("previous_hash", "hash", "origin_hash", "origin_salt")
"""What a row has besides with proof."""
DIGEST = "digest"
"""What a hidden row has instead of its fields; a CSV's last column."""
GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")
"""A spreadsheet takes a cell that begins so for a formula. The apostrophe before it is always one too many, so it can be undone."""
GZIP = 31
"""zlib's name for a stream with gzip's header."""


class Happened(NamedTuple):
    """As much of a row as its sentence needs."""

    action: str
    agent_id: UUID | None
    resource_name: str | None
    details: dict[str, Any]


class Encoder:
    """
    Makes bytes of an export's rows, a part at a time: `encode` each part, then `end`. What the two return, put together, is
    the file. It remembers the hash of the last row and, with gzip, at most some 300 KiB; it does no I/O.
    """

    def __init__(self, request: ExportRequest, *, gzip: bool, previous_hash: bytes | None = None) -> None:
        self._proof, self._csv = request.proof, request.format == CSV
        self._previous = previous_hash
        self._compressor = zlib.compressobj(wbits=GZIP) if gzip else None
        self._columns = (*FIELDS, *PROOF, DIGEST) if request.proof else FIELDS
        self._begun = not self._csv

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The bytes that these rows add; none yet, if the compressor waits for more."""
        shown = [self._shown(row) for row in rows]
        return self._compressed(self._as_csv(shown) if self._csv else b"".join(map(_as_json_line, shown)))

    def end(self) -> bytes:
        """What is left to write once there are no more rows."""
        rest = self.encode([])
        return rest + self._compressor.flush() if self._compressor else rest

    def _compressed(self, data: bytes) -> bytes:
        return self._compressor.compress(data) if self._compressor else data

    def _shown(self, row: Row) -> dict[str, Any]:
        if not self._proof:
            shown = _fields(row)
            shown["ip_address"] = _as_listed(shown["ip_address"])
            return shown
        *_, hash_, origin_hash, origin_salt, digest, _, _, _ = row
        previous, self._previous = self._previous, hash_
        if digest is not None:
            return {"seq": row[0], DIGEST: _hex(digest), "previous_hash": _hex(previous), "hash": _hex(hash_)}
        values = (previous, hash_, origin_hash, origin_salt)
        return _fields(row) | dict(zip(PROOF, map(_hex, values), strict=True))

    def _as_csv(self, rows: Sequence[dict[str, Any]]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not self._begun:
            writer.writerow(self._columns)
            self._begun = True
        writer.writerows([_cell(row.get(name)) for name in self._columns] for row in rows)
        return text.getvalue().encode()


def _fields(row: Row) -> dict[str, Any]:
    """The row as the list shows it, but for its metadata, which are the very text of the database."""
    (
        seq, id_, team_id, user_id, agent_id, api_key_id, action, outcome, schema_version, resource_type, resource_id,
        resource_name, workspace_id, metadata, address, user_agent, request_id, created_at,
    ) = row[:18]  # fmt: skip
    details = json_text.loads(metadata) if _uses_details(action) else {}
    happened: Any = Happened(action, agent_id, resource_name, details)
    view = ActivityView(happened, *row[-3:])
    return {
        "seq": seq,
        "id": id_,
        "team_id": team_id,
        "user_id": user_id,
        "agent_id": agent_id,
        "api_key_id": api_key_id,
        "action": action,
        "outcome": outcome,
        "schema_version": schema_version,
        "resource_type": resource_type,
        "resource_id": resource_id,
        "resource_name": view.resource_name,
        "workspace_id": workspace_id,
        "summary": view.summary,
        "metadata": metadata,
        "ip_address": address,
        "user_agent": user_agent,
        "request_id": request_id,
        "created_at": created_at,
    }


@cache
def _uses_details(action: str) -> bool:
    """Whether the action's sentence says anything of its payload; parsing it would cost a third of the whole."""
    declared = CATALOGUE.get(action)
    names = (
        {name for _, name, _, _ in string.Formatter().parse(declared.sentence) if name} if declared else set()
    )
    return bool(names - {"actor", "resource"})


def _as_json_line(row: dict[str, Any]) -> bytes:
    if "metadata" in row:
        row["metadata"] = orjson.Fragment(row["metadata"])
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(GUARDED) else value
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _as_listed(address: str | None) -> str | None:
    """An address in the list's notation, which differs from the database's for IPv4 within IPv6."""
    return str(ip_address(address)) if address and "." in address and ":" in address else address


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
