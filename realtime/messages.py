"""
The wire format (docs/realtime.md): the JSON that servers send and clients may send, and the envelope around it on Redis.

An event's bytes are the same whether they come from the drain or are read back from the log.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from models.errors import DomainError
from models.operations.activity import Projected
from models.tables import ActivityLog

LARGEST_MESSAGE = 16 * 1024
"""Bytes of a client's message; a larger one closes the socket."""
LONGEST_TYPE = 100
DEEPEST_DATA = 32
"""Levels of arrays and objects in a client's `data`; a scalar has none."""
LARGEST_SEQ = 2**63 - 1

ENVELOPE = Struct(">BQ16sI")
ENVELOPE_VERSION = 2
"""1 had no audience: what a worker of that release publishes is read from the log instead, where the audience is known."""
USER = Struct("16s")
WHOLE_TEAM = 2**32 - 1
"""In place of the audience's size."""
NO_SEQ = 0
NO_SENDER = UUID(int=0)
PEOPLE = UUID(int=1)
"""In place of a sender: what a process says of its people (realtime/presence.py), which no client is shown as it is."""
LONGEST_STATE = 50


class CloseCode(IntEnum):
    """Why the server ends a connection: RFC 6455, 7.4, and ours from 4000."""

    GOING_AWAY = 1001
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013
    ACCESS_REVOKED = 4001
    TOO_SLOW = 4008
    TOO_MANY_MESSAGES = 4029


class MalformedMessage(DomainError):
    """What a client sent is no message of the protocol."""

    code = "malformed_message"


class TooBusy(DomainError):
    """The team's clients together send more than a team may."""

    code = "rate_limited"


class ClientMessage(NamedTuple):
    type: str
    data: Any


def parse(received: str | bytes) -> ClientMessage:
    """The message in a client's frame; raises MalformedMessage, whose detail says what is wrong, and nothing else."""
    if not isinstance(received, str):
        raise MalformedMessage("Messages are text; this frame is binary.")
    try:
        message = orjson.loads(received)
    except orjson.JSONDecodeError as error:
        raise MalformedMessage("The message is not valid JSON.") from error
    if not isinstance(message, dict):
        raise MalformedMessage("The message must be a JSON object.")
    type_ = message.get("type")
    if not isinstance(type_, str) or not 0 < len(type_) <= LONGEST_TYPE:
        raise MalformedMessage(f"`type` must be a string of 1 to {LONGEST_TYPE} characters.")
    data = message.get("data")
    if deeper_than(data, DEEPEST_DATA):
        raise MalformedMessage(f"`data` is nested more than {DEEPEST_DATA} levels deep.")
    return ClientMessage(type_, data)


def deeper_than(value: Any, levels: int) -> bool:
    """Whether arrays and objects are nested more than `levels` deep; looks one level further at the most."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(deeper_than(item, levels - 1) for item in value)


def last_seq(hello: Any) -> int | None:
    """The number that a hello's `data` resumes after, None to start from now; raises MalformedMessage."""
    if hello is None:
        return None
    if not isinstance(hello, dict):
        raise MalformedMessage("The `data` of hello must be an object.")
    seq = hello.get("last_seq")
    if seq is None or (type(seq) is int and 0 <= seq <= LARGEST_SEQ):
        return seq
    raise MalformedMessage("`last_seq` must be a whole number, and not negative.")


def state(data: Any) -> str:
    """The state in a presence's `data`; raises MalformedMessage."""
    value = data.get("state") if isinstance(data, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_STATE or not value.isprintable():
        raise MalformedMessage(f"`state` must be a string of 1 to {LONGEST_STATE} printable characters.")
    return value


def event(row: Projected | ActivityLog) -> bytes:
    """A row of the activity log, as sockets show it; `agent_id` only if an agent acted for the user."""
    agent = {"agent_id": row.agent_id} if row.agent_id else {}
    return _json(
        {
            "type": row.action,
            "user_id": row.user_id,
            **agent,
            "data": row.details,
            "origin": "server",
            "seq": row.seq,
            "id": row.id,
            "at": row.created_at,
        }
    )


def redacted(seq: int) -> bytes:
    """In the place of an event that the reader may not see; keeps the numbering whole."""
    return _json({"type": "redacted", "seq": seq, "origin": "server"})


def message(user_id: UUID, agent_id: UUID | None, sent: ClientMessage) -> bytes:
    """A client's message to the team, with its sender (and the agent, if one speaks for the user), a fresh id and the time."""
    agent = {"agent_id": agent_id} if agent_id else {}
    return _json(
        {
            "type": sent.type,
            "user_id": user_id,
            **agent,
            "data": sent.data,
            "origin": "client",
            "id": uuid7(),
            "at": datetime.now(UTC),
        }
    )


class Present(NamedTuple):
    """Somebody who is online, over all their devices."""

    user_id: UUID
    state: str
    devices: int


def presence(kind: str, present: Present) -> bytes:
    """What became of somebody's presence: `presence_joined`, `presence_left` or `presence_changed`."""
    return _json(
        {
            "type": kind,
            "user_id": present.user_id,
            "data": {"state": present.state, "devices": present.devices},
            "origin": "server",
            "at": datetime.now(UTC),
        }
    )


def welcome(*, seq: int, connection_id: UUID, presence: Sequence[Present], heartbeat_s: float) -> bytes:
    people = [each._asdict() for each in presence]
    greeting = {"seq": seq, "connection_id": connection_id, "presence": people, "heartbeat_s": heartbeat_s}
    return _from_server("welcome", greeting)


def reset(seq: int) -> bytes:
    return _from_server("reset", {"seq": seq})


def heartbeat(seq: int) -> bytes:
    return _from_server("heartbeat", {"seq": seq})


def pong(data: Any) -> bytes:
    """The answer to a ping, with the ping's own data."""
    return _from_server("pong", data)


def error(refusal: DomainError) -> bytes:
    return _from_server("error", {"code": refusal.code, "detail": refusal.detail, **refusal.members})


class Envelope(NamedTuple):
    """What travels through Redis: a message encoded once, and in front of it what a hub needs without parsing JSON."""

    payload: bytes
    seq: int = NO_SEQ
    sender: UUID = NO_SENDER
    """The connection that a client's message came from."""
    audience: frozenset[UUID] | None = None
    """The users who may see it; None: everyone in the team."""

    def seal(self) -> bytes:
        size, packed = (
            (WHOLE_TEAM, b"") if self.audience is None else (len(self.audience), _pack(self.audience))
        )
        header = ENVELOPE.pack(ENVELOPE_VERSION, self.seq, self.sender.bytes, size)
        return b"".join((header, packed, self.payload))

    @classmethod
    def unseal(cls, sealed: bytes) -> "Envelope":
        """Raises ValueError for what this release can't read."""
        if len(sealed) <= ENVELOPE.size or sealed[0] != ENVELOPE_VERSION:
            raise ValueError("This is not an envelope that this release knows.")
        _version, seq, sender, size = ENVELOPE.unpack_from(sealed)
        if size == WHOLE_TEAM:
            return cls(sealed[ENVELOPE.size :], seq, UUID(bytes=sender))
        payload_at = ENVELOPE.size + size * USER.size
        if len(sealed) <= payload_at:
            raise ValueError("This envelope is cut short.")
        return cls(sealed[payload_at:], seq, UUID(bytes=sender), _unpack(sealed[ENVELOPE.size : payload_at]))


# One workspace's events follow each other with the same audience, and a UUID takes a microsecond to make.
@lru_cache(maxsize=16)
def _pack(audience: frozenset[UUID]) -> bytes:
    return b"".join(sorted(user_id.bytes for user_id in audience))


@lru_cache(maxsize=16)
def _unpack(packed: bytes) -> frozenset[UUID]:
    return frozenset(UUID(bytes=user_id) for (user_id,) in USER.iter_unpack(packed))


def _from_server(type_: str, data: Any) -> bytes:
    return _json({"type": type_, "data": data, "origin": "server"})


def _json(members: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(members, option=orjson.OPT_UTC_Z)
    except TypeError:  # an integer past 64 bits: a sum of usage may be one
        return json.dumps(members, separators=(",", ":"), default=_plain).encode()


def _plain(value: object) -> Any:
    """A time or an id as orjson writes it."""
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_UTC_Z))
