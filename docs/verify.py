#!/usr/bin/env python3
"""
Verifies an export of a team's activity log offline: one file, Python 3.11, no other library, no network.

    python verify.py activity.ndjson.gz --checkpoints checkpoints.json --key signing-keys.json

EXPORT is what `GET /api/v1/teams/{team_id}/activity/export?proof=true` gave, as NDJSON or CSV, with or without gzip.
--checkpoints: the answer of `GET …/activity/checkpoints`, best a copy that you kept. --key: the answer of `GET /api/v1/signing-keys`,
or a public key in base64 or hexadecimal digits; get it by another way than the export. docs/audit.md explains every byte.

It ends with 0 if the export is what was logged, 1 if it is not (each row concerned is named), 2 if it can't be read.
"""

# ruff: noqa: T201  (a program of its own)

import argparse
import base64
import binascii
import csv
import gzip
import hashlib
import ipaddress
import itertools
import json
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

ROW_FORMAT, CHECKPOINT_FORMAT = b"agenthq.activity.1", b"agenthq.checkpoint.1"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MOST_SHOWN = 100
MOST_SUSPECTS = 200
FIELDS = (
    "team_id", "id", "created_at", "user_id", "agent_id", "api_key_id", "action", "schema_version", "outcome", "resource_type",
    "resource_id", "resource_name", "workspace_id", "metadata", "request_id", "ip_address", "user_agent",
)  # fmt: skip
PROOF = ("previous_hash", "hash", "origin_hash", "origin_salt")
HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)
SEQ, NAME, REQUEST = 2, 13, 16
"""Where the number, the resource's name and the request's id stand among what is hashed."""


class Unreadable(Exception):
    """What can't be read, and why."""


class Number(str):
    """A JSON number by its own digits: 1.50 and 1.5 are two."""

    __slots__ = ()


# --- bytes


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def array(fields: Sequence[bytes | None]) -> bytes:
    """PostgreSQL's binary array of bytea: dimensions, whether any is NULL, type 17, length, first index; each with its length."""
    head = struct.pack(">5i", 1, None in fields, 17, len(fields), 1)
    return head + b"".join(
        b"\xff\xff\xff\xff" if each is None else len(each).to_bytes(4, "big") + each for each in fields
    )


def microseconds(text: str) -> bytes:
    if not TIME.fullmatch(text):
        raise ValueError(f"{text!r} is no time like 2026-01-31T12:00:00.000001Z")
    return ((datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)).to_bytes(
        8, "big", signed=True
    )


def uuid(text: str | None) -> bytes | None:
    if text is None:
        return None
    digits = text.replace("-", "")
    if len(digits) != 32:
        raise ValueError(f"{text!r} is no UUID")
    return bytes.fromhex(digits)


def hexadecimal(text: str | None, length: int | None = None) -> bytes | None:
    if text is None:
        return None
    if not HEX.fullmatch(text) or (length is not None and len(text) != 2 * length):
        raise ValueError(f"{text!r} is not in {length or ''} bytes of lower-case hexadecimal digits")
    return bytes.fromhex(text)


def utf8(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def canonical(value: Any) -> str:
    """The JSON text as PostgreSQL's jsonb shows it: keys by length and then by bytes, `, ` and `: `, few escapes."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{encode_basestring(key)}: {canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(canonical, value)) + "]"
    return {None: "null", True: "true", False: "false"}[value]


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands there twice")
    return found


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=no_constant, object_pairs_hook=once
)
"""Of a line or a cell; one for all, as to make one costs as much as to use it."""


# --- Ed25519 (RFC 8032, 5.1.7 and 6)

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]


def add(a: Point, b: Point) -> Point:
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    u, v = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, v - u, v + u, t + s
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(number: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = add(result, point)
        point, number = add(point, point), number >> 1
    return result


def decompressed(data: bytes) -> Point | None:
    """None for what is no point of the curve."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def base_point() -> Point:
    point = decompressed((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    assert point is not None  # noqa: S101  (a constant of the curve)
    return point


BASE = base_point()


def signature_holds(public_key: bytes, message: bytes, signature: bytes) -> bool:
    a, r = decompressed(public_key), decompressed(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER or len(signature) != 64:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    left, right = times(s, BASE), add(r, times(h, a))
    return not (
        (left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P
    )


# --- rows


@dataclass(slots=True)
class Row:
    """A line of the export. `hashed` is what its digest is of; None where the exporter was not allowed to see the row."""

    seq: int
    previous_hash: bytes | None
    hash: bytes
    digest: bytes
    hashed: list[bytes | None] | None = None
    origin: str = "none"
    """proven, erased, none, or wrong."""
    name_is_proven: bool = True

    def stands_on(self, previous_hash: bytes | None) -> bool:
        return previous_hash is not None and sha256(previous_hash + self.digest) == self.hash

    def settle(self, previous_hash: bytes | None, *, from_csv: bool) -> bool:
        """
        Whether there is a reading under which it follows from the hash, and takes it: the name may be the one of today of a person or an invitation,
        which is not logged; and an empty cell of a CSV is nothing, or an empty text.
        """
        if self.stands_on(previous_hash):
            return True
        if self.hashed is None or previous_hash is None:
            return False
        names, requests = {self.hashed[NAME]: None, None: None}, {self.hashed[REQUEST]: None}
        if from_csv:
            names[b""], requests[b""] = None, None
        for name, request in itertools.product(names, requests):
            hashed = [*self.hashed]
            hashed[NAME], hashed[REQUEST] = name, request
            digest = sha256(array(hashed))
            if sha256(previous_hash + digest) == self.hash:
                self.name_is_proven = name == self.hashed[NAME] or not self.hashed[NAME]
                self.hashed, self.digest = hashed, digest
                return True
        return False

    def numbered(self, seq: int) -> bytes | None:
        """Its digest, were that its number."""
        if self.hashed is None:
            return None
        return sha256(
            array([*self.hashed[:SEQ], seq.to_bytes(8, "big", signed=True), *self.hashed[SEQ + 1 :]])
        )


def row_of(given: dict[str, Any], *, from_csv: bool) -> Row:
    """Raises ValueError or KeyError for what is no row of an export with proof."""
    if given.keys() >= {"seq"} and not given.keys() & {*PROOF}:
        raise Unreadable("this export has no proof: export it with proof=true")
    seq = int(given["seq"])
    previous_hash, hash_ = hexadecimal(given["previous_hash"], 32), hexadecimal(given["hash"], 32)
    if hash_ is None:
        raise ValueError("it has no hash")
    if digest := hexadecimal(given.get("digest"), 32):
        return Row(seq, previous_hash, hash_, digest)
    missing = [name for name in (*FIELDS, *PROOF) if name not in given]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    metadata = DECODER.decode(given["metadata"]) if from_csv else given["metadata"]
    origin_hash = hexadecimal(given["origin_hash"], 32)
    hashed = [
        ROW_FORMAT, uuid(given["team_id"]), seq.to_bytes(8, "big", signed=True), uuid(given["id"]),
        microseconds(given["created_at"]), uuid(given["user_id"]), uuid(given["agent_id"]), uuid(given["api_key_id"]),
        utf8(given["action"]), int(given["schema_version"]).to_bytes(4, "big", signed=True), utf8(given["outcome"]),
        utf8(given["resource_type"]), uuid(given["resource_id"]), utf8(given["resource_name"]), uuid(given["workspace_id"]),
        canonical(metadata).encode(), utf8(given["request_id"]), origin_hash,
    ]  # fmt: skip
    origin = origin_of(given, origin_hash, from_csv=from_csv)
    return Row(seq, previous_hash, hash_, sha256(array(hashed)), hashed, origin)


def origin_of(given: dict[str, Any], committed: bytes | None, *, from_csv: bool) -> str:
    address, agent, salt = given["ip_address"], given["user_agent"], hexadecimal(given["origin_salt"])
    if salt is None:
        if address is not None or agent is not None:
            return "wrong"
        return "none" if committed is None else "erased"
    agents = [agent, ""] if from_csv and agent is None else [agent]
    for address_read, agent_read in itertools.product(notations(address), agents):
        if sha256(array([salt, utf8(address_read), utf8(agent_read)])) == committed:
            return "proven"
    return "wrong"


def notations(address: str | None) -> Iterator[str | None]:
    """As given, and IPv4 within IPv6 as PostgreSQL writes it."""
    yield address
    if address and ":" in address:
        inner = int(ipaddress.IPv6Address(address))
        prefix = {0: "::", 0xFFFF: "::ffff:"}.get(inner >> 32)
        if prefix:
            yield prefix + str(ipaddress.IPv4Address(inner & 0xFFFFFFFF))


def read_rows(file: Iterable[bytes], *, from_csv: bool) -> Iterator[Row]:
    """Raises Unreadable, naming the row."""
    number = 1
    lines = (line.decode() for line in file)
    try:
        for given in csv_rows(lines) if from_csv else map(DECODER.decode, lines):
            yield row_of(given, from_csv=from_csv)
            number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unreadable(f"it is cut off or damaged after {number - 1} rows ({error})") from error
    except UnicodeError as error:
        raise Unreadable(f"row {number} is no UTF-8") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        csv.Error,
        RecursionError,
    ) as error:
        raise Unreadable(f"row {number}: {error!r}") from error


def csv_rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Undoes the apostrophe before what a spreadsheet would take for a formula: each leading one was added."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(lines, strict=True)
    columns = next(reader, None)
    if columns is None:
        return
    if len(set(columns)) != len(columns):
        raise ValueError("a column stands there twice")
    for cells in reader:
        if len(cells) != len(columns):
            raise ValueError(f"it has {len(cells)} cells, and there are {len(columns)} columns")
        yield {name: cell.removeprefix("'") or None for name, cell in zip(columns, cells, strict=True)}


# --- checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    team_id: str
    seq: int
    hash: bytes
    key_id: str
    signature: bytes
    created_at: str

    def problem(self, keys: dict[str, bytes]) -> str | None:
        """Why its signature counts for nothing."""
        if self.key_id not in keys:
            return f"it is signed with the key {self.key_id}, which is none of yours"
        message = array(
            [
                CHECKPOINT_FORMAT, uuid(self.team_id), self.seq.to_bytes(8, "big", signed=True), self.hash,
                microseconds(self.created_at), self.key_id.encode(),
            ]
        )  # fmt: skip
        return (
            None if signature_holds(keys[self.key_id], message, self.signature) else "its signature is wrong"
        )


def items_of(path: str) -> list[dict[str, Any]]:
    """Of an answer of the interface, or of a list."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
        return list(found["items"] if isinstance(found, dict) else found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{path}: {error!r}") from error


def read_checkpoints(paths: Sequence[str]) -> dict[int, Checkpoint]:
    found: dict[int, Checkpoint] = {}
    for path in paths:
        try:
            for item in items_of(path):
                hash_ = hexadecimal(item["hash"], 32) or b""
                signature = base64.b64decode(item["signature"], validate=True)
                made = Checkpoint(
                    str(item["team_id"]),
                    int(item["seq"]),
                    hash_,
                    str(item["key_id"]),
                    signature,
                    str(item["created_at"]),
                )
                if found.setdefault(made.seq, made) != made:
                    raise Unreadable(f"{path}: there are two checkpoints of row {made.seq}")
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"{path}: {error!r}") from error
    return found


def read_keys(given: Sequence[str]) -> dict[str, bytes]:
    """By id, each from a file or as it is."""
    found = {}
    for each in given:
        texts = [str(item["public_key"]) for item in items_of(each)] if Path(each).is_file() else [each]
        for text in texts:
            try:
                key = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text, validate=True)
            except (ValueError, binascii.Error):
                key = b""
            if len(key) != 32:
                raise Unreadable(f"{text!r} is no public key and no file with some")
            found[hashlib.sha256(key).hexdigest()[:16]] = key
    return found


# --- verifying


@dataclass(slots=True)
class Verifier:
    """Takes rows in the export's order. Keeps the row before and those that look wrong, and nothing else of them."""

    checkpoints: dict[int, Checkpoint]
    keys: dict[str, bytes]
    first: int
    last: int | None
    from_csv: bool = False
    team_id: bytes | None = None
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    suspects: list[Row] = field(default_factory=list)
    stands_on: set[bytes] = field(default_factory=set)
    """The hashes that the next row may stand on."""
    before: Row | None = None
    begun: int | None = None
    expected: int = 0
    rows: int = 0
    hidden: int = 0
    erased: int = 0
    names: int = 0
    signed: Checkpoint | None = None
    displaced: dict[int, int] = field(default_factory=dict)

    def take(self, row: Row, following: Row | None) -> None:
        self.rows += 1
        if self.begun is None:
            self._begin(row)
        after_gap = self._place(row, following)
        if after_gap is None:
            return
        self._chain(row, after_gap=after_gap)
        self._look_at(row)
        checkpoint = self.checkpoints.pop(row.seq, None)
        if checkpoint is not None:
            self._compare(checkpoint, row)

    def end(self) -> None:
        """Once there are no more rows."""
        for place in self.displaced.keys() - set(self.displaced.values()):
            self._name(place, "missing", "another row stands in its place")
        self._find_exchanged()
        for row in self.suspects:
            self._name(row.seq, "changed", "it does not follow from the row before it")
        known = {seq for seq, kind, _ in self.problems if kind in {"inserted", "swapped"}}
        self.problems = [each for each in self.problems if each[1] != "changed" or each[0] not in known]
        last = max([self.expected - 1, *self.checkpoints]) if self.last is None else self.last
        if self.expected <= last:
            self._name_missing(self.expected, last)
        for seq, checkpoint in self.checkpoints.items():
            if seq < (self.begun or 0) or (self.last is not None and seq > self.last):
                continue
            if problem := checkpoint.problem(self.keys):
                self._name(seq, "checkpoint", problem)
        self.problems.sort()

    def _begin(self, row: Row) -> None:
        self.begun = row.seq
        self.expected = min(self.first, row.seq)
        purged = self.checkpoints.pop(row.seq - 1, None)
        if purged is None:
            return
        if problem := purged.problem(self.keys):
            self._name(purged.seq, "checkpoint", problem)
        elif row.previous_hash is not None and purged.hash != row.previous_hash:
            self._name(
                purged.seq, "checkpoint", "another hash was signed than the one that the first row stands on"
            )

    def _place(self, row: Row, following: Row | None) -> bool | None:
        """Whether rows are missing before this one; None for a row that is out of the order, which was named."""
        next_seq = following.seq if following else None
        if row.seq == self.expected:
            self.expected += 1
            return False
        # The next row goes on as if this one were another: it was moved here, and that one is somewhere else.
        moved = next_seq == self.expected + 1 or (next_seq == self.expected and row.seq == self.expected + 1)
        moved = moved and row.seq != next_seq and (row.seq > self.expected or row.seq in self.displaced)
        if moved:
            self._name(row.seq, "swapped", f"it stands where row {self.expected} belongs")
            self.displaced[self.expected] = row.seq
            self.expected += 1
            self.before, self.stands_on = None, set()
            return None
        if row.seq < self.expected:
            self._name(row.seq, "inserted", "another row has this number, or came after it")
            self.stands_on |= {row.hash, *(sha256(hash_ + row.digest) for hash_ in self.stands_on)}
            return None
        self._name_missing(self.expected, row.seq - 1)
        self.expected = row.seq + 1
        return True

    def _chain(self, row: Row, *, after_gap: bool) -> None:
        on = {row.previous_hash} if after_gap or not self.stands_on else self.stands_on
        if row.previous_hash in on and row.settle(row.previous_hash, from_csv=self.from_csv):
            self.stands_on, self.before = {row.hash}, row
            return
        for hash_ in on:
            row.settle(hash_, from_csv=self.from_csv)
        own, right = row.stands_on(row.previous_hash), any(row.stands_on(hash_) for hash_ in on)
        known = row.previous_hash in on
        if own and not known and self.before is not None:
            self._name(self.before.seq, "changed", "the row after it stands on another hash")
        elif own or (right and known):
            pass
        elif right:
            self._name(row.seq, "changed", "its previous_hash is not the hash before it")
        elif not after_gap and len(self.suspects) < MOST_SUSPECTS:
            self.suspects.append(row)
        elif not after_gap:
            self._name(row.seq, "changed", "it does not follow from the row before it")
        ought = () if own or right else {sha256(hash_ + row.digest) for hash_ in on if hash_ is not None}
        self.stands_on, self.before = {row.hash, *ought}, row

    def _look_at(self, row: Row) -> None:
        self.hidden += row.hashed is None
        self.erased += row.origin == "erased"
        self.names += not row.name_is_proven
        if row.origin == "wrong":
            self._name(row.seq, "origin", "its address or user agent is not the one committed to")
        if row.hashed is not None:
            self.team_id = self.team_id or row.hashed[1]
            if row.hashed[1] != self.team_id:
                self._name(row.seq, "changed", "it is of another team")
        if row.seq == 1 and self.team_id and row.previous_hash != sha256(ROW_FORMAT + self.team_id):
            self._name(1, "changed", "it does not stand on what a team's log begins with")

    def _compare(self, checkpoint: Checkpoint, row: Row) -> None:
        if problem := checkpoint.problem(self.keys):
            self._name(row.seq, "checkpoint", problem)
        elif self.team_id and uuid(checkpoint.team_id) != self.team_id:
            self._name(row.seq, "checkpoint", "it is of another team")
        elif checkpoint.hash != row.hash:
            self._name(row.seq, "checkpoint", "another hash was signed: the log was rewritten")
        else:
            self.signed = checkpoint

    def _find_exchanged(self) -> None:
        """Pairs that are right under each other's number; the rows after them stood on the hash that moved away."""
        for lower, upper in itertools.combinations(list(self.suspects), 2):
            if lower in self.suspects and upper in self.suspects and are_exchanged(lower, upper):
                for row, other in ((lower, upper), (upper, lower)):
                    self._name(row.seq, "swapped", f"it was exchanged with row {other.seq}")
                    self.suspects.remove(row)
                self.suspects = [
                    row
                    for row in self.suspects
                    if row.seq not in {lower.seq + 1, upper.seq + 1}
                    or not (row.stands_on(lower.hash) or row.stands_on(upper.hash))
                ]

    def _name_missing(self, first: int, last: int) -> None:
        rows = "there is no such row" if first == last else f"nor are there the rows up to {last}"
        self._name(first, "missing", rows)

    def _name(self, seq: int, kind: str, detail: str) -> None:
        if not any(each[:2] == (seq, kind) for each in self.problems[-MOST_SHOWN:]):
            self.problems.append((seq, kind, detail))


def are_exchanged(a: Row, b: Row) -> bool:
    on, hashes = (a.previous_hash, b.previous_hash, a.hash, b.hash), {a.hash, b.hash}
    for row, seq in ((a, b.seq), (b, a.seq)):
        digest = row.numbered(seq)
        if digest is None or not any(hash_ and sha256(hash_ + digest) in hashes for hash_ in on):
            return False
    return True


def pairs(rows: Iterator[Row]) -> Iterator[tuple[Row, Row | None]]:
    """Each row with the one that follows it."""
    row = next(rows, None)
    while row is not None:
        following = next(rows, None)
        yield row, following
        row = following


def verify(
    path: str, checkpoints: dict[int, Checkpoint], keys: dict[str, bytes], first: int, last: int | None
) -> Verifier:
    with Path(path).open("rb") as plain:
        file = gzip.GzipFile(fileobj=plain) if plain.peek(2)[:2] == b"\x1f\x8b" else plain
        from_csv = not file.peek(1).startswith(b"{")
        found = Verifier(dict(checkpoints), keys, first, last, from_csv=from_csv, expected=first)
        for row, following in pairs(read_rows(file, from_csv=from_csv)):
            found.take(row, following)
    found.end()
    return found


def report(found: Verifier) -> None:
    for seq, kind, detail in found.problems[:MOST_SHOWN]:
        print(f"row {seq}: {kind}: {detail}")
    if len(found.problems) > MOST_SHOWN:
        print(f"and {len(found.problems) - MOST_SHOWN} more")
    if found.begun is None:
        print("The export has no rows.")
    else:
        print(f"Read {found.rows} rows, from {found.begun} to {found.expected - 1}.")
    if found.signed:
        made = found.signed
        print(f"Signed up to row {made.seq} by the key {made.key_id} on {made.created_at}.")
    for line in limits_of(found):
        print(f"Not checked: {line}")
    print("VALID" if not found.problems else f"NOT VALID: {len(found.problems)} problems")


def limits_of(found: Verifier) -> Iterator[str]:
    """What this verification does not prove."""
    if found.signed is None:
        yield "whether the log was rewritten as a whole; that takes checkpoints (--checkpoints, --key)."
    elif found.signed.seq < found.expected - 1:
        yield f"rows after {found.signed.seq} against a signature; no checkpoint here covers them."
    if found.begun is not None and found.begun == found.first > 1:
        yield f"the rows before {found.begun}, which are not in the export (purged, or left out)."
    if found.hidden:
        yield f"what {found.hidden} rows say, which the exporter may not see; their place in the chain was."
    if found.erased:
        yield f"where {found.erased} rows came from, which has been erased."
    if found.names:
        yield f"the resource_name of {found.names} rows, which is today's name of a person and is not logged."
    yield "summaries, which are made of the other fields when they are read."


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export")
    parser.add_argument("--checkpoints", action="append", default=[], metavar="FILE")
    parser.add_argument("--key", action="append", default=[], metavar="KEY")
    parser.add_argument(
        "--first",
        type=int,
        default=1,
        metavar="SEQ",
        help="the first row that the export must have (1); after a purge, or with `since`, a later one",
    )
    parser.add_argument(
        "--last",
        type=int,
        metavar="SEQ",
        help="the last row that it must have; if not given, that of the newest checkpoint",
    )
    arguments = parser.parse_args()
    if arguments.checkpoints and not arguments.key:
        parser.error("--checkpoints needs --key: a signature is worth what its key is")
    try:
        keys, checkpoints = read_keys(arguments.key), read_checkpoints(arguments.checkpoints)
        found = verify(arguments.export, checkpoints, keys, arguments.first, arguments.last)
    except (Unreadable, OSError, EOFError) as error:
        print(f"can't be read: {error}", file=sys.stderr)
        return 2
    report(found)
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
