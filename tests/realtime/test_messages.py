"""The wire format without a wire."""

import json
import math
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.access.entry import enter_team
from models.database import transaction
from models.errors import PermissionDenied
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.queries import activity
from realtime import messages
from realtime.messages import Envelope, MalformedMessage
from tests.realtime.conftest import Team, project

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def depth(value: Any) -> int:
    """The definition, apart from the code: how many arrays and objects lie within each other."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(st.text() | st.binary() | JSON_VALUES.map(json.dumps))
@example(nested(1000))
@example(nested(100_000))
@example('{"type": "a", "data": ' + nested(900) + "}")
@example('{"type": "a", "data": NaN}')
@example('{"type": "a", "data": 1e999}')
@example('{"type": "\\ud800"}')
@example("\ud800")
@example(b'{"type": "a"}')
def test_anything_is_either_a_message_or_malformed(received: str | bytes) -> None:
    try:
        message = messages.parse(received)
    except MalformedMessage:
        return
    assert 0 < len(message.type) <= messages.LONGEST_TYPE
    assert depth(message.data) <= messages.DEEPEST_DATA


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=100), JSON_VALUES)
def test_what_is_sent_is_shown(type_: str, data: Any) -> None:
    sent = messages.parse(json.dumps({"type": type_, "data": data, "origin": "server", "seq": 7}))
    shown = json.loads(messages.message(UUID(int=1), None, sent))
    assert shown.pop("at").endswith("Z")
    assert UUID(shown.pop("id")).version == 7
    assert shown == {"type": type_, "user_id": str(UUID(int=1)), "data": data, "origin": "client"}


@pytest.mark.parametrize("levels", [32, 33])
def test_data_may_be_32_levels_deep(levels: int) -> None:
    frame = '{"type": "a", "data": ' + nested(levels) + "}"
    if levels == 32:
        assert depth(messages.parse(frame).data) == 32
    else:
        with pytest.raises(MalformedMessage):
            messages.parse(frame)


@pytest.mark.parametrize("type_", ["", "x" * 101, 7, None, ["a"]])
def test_a_type_is_a_short_string(type_: object) -> None:
    assert messages.parse(json.dumps({"type": "x" * 100})).data is None
    with pytest.raises(MalformedMessage):
        messages.parse(json.dumps({"type": type_}))


@pytest.mark.parametrize("last_seq", [-1, True, "5", 1.0, 2**63, [], math.inf])
def test_last_seq_is_a_number_of_the_log(last_seq: object) -> None:
    assert messages.last_seq({"last_seq": 2**63 - 1}) == 2**63 - 1
    assert messages.last_seq({}) is None
    assert messages.last_seq(None) is None
    with pytest.raises(MalformedMessage):
        messages.last_seq({"last_seq": last_seq})


def test_hello_takes_an_object() -> None:
    with pytest.raises(MalformedMessage):
        messages.last_seq([])


def test_an_error_names_what_is_missing() -> None:
    shown = json.loads(messages.error(PermissionDenied("realtime:publish")))
    assert (shown["type"], shown["origin"]) == ("error", "server")
    assert (shown["data"]["code"], shown["data"]["missing"]) == ("permission_denied", "realtime:publish")


AUDIENCES = st.none() | st.frozensets(st.uuids())


@given(st.binary(min_size=1), st.integers(0, 2**64 - 1), st.uuids(), AUDIENCES)
@example(b"{}", 1, messages.NO_SENDER, frozenset())
def test_an_envelope_arrives_as_it_was_sealed(
    payload: bytes, seq: int, sender: UUID, audience: frozenset[UUID] | None
) -> None:
    envelope = Envelope(payload, seq, sender, audience)
    assert Envelope.unseal(envelope.seal()) == envelope
    users = len(audience) if audience else 0
    assert len(envelope.seal()) == messages.ENVELOPE.size + 16 * users + len(payload)


def header(audience_size: int) -> bytes:
    return messages.ENVELOPE.pack(messages.ENVELOPE_VERSION, 7, messages.NO_SENDER.bytes, audience_size)


@given(st.binary())
@example(b"")
@example(Envelope(b"").seal())
@example(b"\x01" + Envelope(b"{}").seal()[1:])
@example(b"\x03" + Envelope(b"{}").seal()[1:])
@example(header(2) + bytes(32))
@example(header(2) + bytes(31))
@example(header(2**32 - 2) + bytes(64))
def test_anything_else_is_no_envelope(sealed: bytes) -> None:
    try:
        envelope = Envelope.unseal(sealed)
    except ValueError:
        size = messages.ENVELOPE.size
        assert (
            len(sealed) <= size
            or sealed[0] != messages.ENVELOPE_VERSION
            or len(sealed) <= size + 16 * int.from_bytes(sealed[size - 4 : size])
        )
    else:
        assert envelope.payload
        assert Envelope.unseal(envelope.seal()) == envelope


@pytest.mark.parametrize(("beyond", "fits"), [(b"", False), (b"{", True)])
def test_an_audience_leaves_something_to_show(beyond: bytes, fits: bool) -> None:
    sealed = header(2) + UUID(int=1).bytes + UUID(int=2).bytes + beyond
    if fits:
        assert Envelope.unseal(sealed) == Envelope(
            b"{", 7, messages.NO_SENDER, frozenset({UUID(int=1), UUID(int=2)})
        )
    else:
        with pytest.raises(ValueError, match="cut short"):
            Envelope.unseal(sealed)


def test_what_is_redacted_tells_its_number_alone() -> None:
    assert json.loads(messages.redacted(7)) == {"type": "redacted", "seq": 7, "origin": "server"}


def test_an_event_has_the_same_bytes_from_the_drain_and_from_the_log(team: Team) -> None:
    before = team.head()
    team.happen(name="Ünïcode \u2028 \x7f")
    [drained] = [row for row in project() if row.team_id == team.id]
    with transaction() as session:
        [logged] = activity.after(session, team.id, before, 10)
    assert messages.event(drained) == messages.event(logged)
    shown = json.loads(messages.event(logged))
    assert set(shown) == {"type", "user_id", "data", "origin", "seq", "id", "at"}
    assert (shown["type"], shown["origin"], shown["seq"]) == ("workspace_created", "server", before + 1)
    assert shown["user_id"] == str(team.owner.id)
    assert shown["at"].endswith("Z")


def test_an_event_names_the_agent_that_acted_for_the_user(team: Team) -> None:
    before = team.head()
    keys = [team.with_key(team.member, agent_role=role) for role in (None, "member")]
    for key in keys:
        with transaction() as session:
            access = enter_team(session, key.credential, team.id)
            record(session, access, WorkspaceCreated(workspace_id=UUID(int=1), name="Research"))
    drained = [row for row in project() if row.team_id == team.id]
    with transaction() as session:
        logged = activity.after(session, team.id, before, 10)
    assert [messages.event(row) for row in drained] == [messages.event(row) for row in logged]
    by_person, by_agent = (json.loads(messages.event(row)) for row in logged)
    assert "agent_id" not in by_person
    assert by_agent["agent_id"] == str(access.agent_id)
    assert by_person["user_id"] == by_agent["user_id"] == str(team.member.id)


def test_the_sender_of_an_unsent_envelope_is_nobody() -> None:
    assert Envelope.unseal(Envelope(b"{}").seal()).sender == messages.NO_SENDER
