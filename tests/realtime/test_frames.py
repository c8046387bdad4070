"""
RFC 6455 against a second implementation, the sans-I/O protocol of `websockets`: whatever frames a client sends and
wherever the network cuts them, both read the same messages and end the connection for the same reason.
"""

import codecs
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri
from wsproto.events import Ping
from wsproto.frame_protocol import Opcode

from realtime.messages import LARGEST_MESSAGE
from realtime.transport import Closing, Goodbye, Inbox, close_frame, encode_frame, text_frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
SHORTEST_16, SHORTEST_64 = 126, 1 << 16


@dataclass(frozen=True)
class Sent:
    """A frame as a client sends it, good or bad."""

    opcode: int
    payload: bytes = b""
    final: bool = True
    reserved: int = 0
    mask: bytes | None = b"\x5a\x00\xff\x13"

    def encode(self) -> bytes:
        first = self.opcode | self.reserved << 4 | self.final << 7
        masked, length = (self.mask is not None) << 7, len(self.payload)
        if length < SHORTEST_16:
            head = struct.pack("!BB", first, masked | length)
        elif length < SHORTEST_64:
            head = struct.pack("!BBH", first, masked | 126, length)
        else:
            head = struct.pack("!BBQ", first, masked | 127, length)
        if self.mask is None:
            return head + self.payload
        repeated = self.mask * (length // 4 + 1)
        return head + self.mask + bytes(a ^ b for a, b in zip(self.payload, repeated, strict=False))


class Outcome(NamedTuple):
    """What a server makes of a stream: messages and pings in their order, and the end of the connection."""

    received: list[str | bytes | tuple[str, bytes]]
    goodbye: bool = False
    """The peer's own; else the code is of what the peer did wrong."""
    code: int | None = None


def ours(pieces: list[bytes]) -> Outcome:
    inbox, received = Inbox(), []
    try:
        for piece in pieces:
            for each in inbox.receive(piece):
                told = ("ping", bytes(each.payload)) if isinstance(each, Ping) else each
                received.append(told)  # those before a breach count
    except Closing as closing:
        return Outcome(received, isinstance(closing, Goodbye), closing.code)
    return Outcome(received)


def theirs(pieces: list[bytes]) -> Outcome:
    """It leaves UTF-8 to its callers; so that is Python's own incremental decoder."""
    protocol = ServerProtocol(state=OPEN, max_size=LARGEST_MESSAGE)
    for piece in pieces:
        protocol.receive_data(piece)
    received: list[str | bytes | tuple[str, bytes]] = []
    try:
        for message in _assembled(protocol):
            received.append(message)  # noqa: PERF402  those before bad UTF-8 count
    except UnicodeDecodeError:
        return Outcome(received, code=1007)
    if protocol.close_rcvd is not None:
        return Outcome(received, goodbye=True, code=protocol.close_rcvd.code)
    return Outcome(received, code=protocol.close_sent.code if protocol.close_sent else None)


def _assembled(protocol: ServerProtocol) -> Iterator[str | bytes | tuple[str, bytes]]:
    is_text, parts, decoder = False, b"", codecs.getincrementaldecoder("utf-8")()
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        match frame.opcode:
            case TheirOpcode.PING:
                yield "ping", bytes(frame.data)
                continue
            case TheirOpcode.PONG | TheirOpcode.CLOSE:
                continue
            case TheirOpcode.TEXT | TheirOpcode.BINARY:
                is_text, parts, decoder = frame.opcode is TheirOpcode.TEXT, b"", type(decoder)()
        parts += frame.data
        if is_text:
            decoder.decode(frame.data, frame.fin)
        if frame.fin:
            yield parts.decode() if is_text else parts


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[begin:end] for begin, end in pairwise(ends)]


# ------------------------------------------------------------------------------------------------ what clients send

MASKS = st.binary(min_size=4, max_size=4)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40).map(str.encode)
LARGE = st.sampled_from([125, 126, 5_000, 16_383, 16_384, 16_385, 65_535, 65_536]).map(lambda n: b"x" * n)
SPLIT = st.tuples(TEXTS, st.lists(st.integers(0, 200), max_size=3))
CODES = st.one_of(
    st.sampled_from([0, 999, *range(1000, 1017), 2999, 3000, 3999, 4000, 4001, 4999, 5000, 65_535]),
    st.integers(0, 65_535),
).filter(lambda code: code != 1014)
"""Without 1014, a gateway's, which no client says: wsproto does not know it yet."""
CLOSES = st.one_of(
    st.just(b""),
    st.binary(min_size=1, max_size=1),
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason, CODES, TEXTS.map(lambda text: text[:123])
    ),
)
CONTROL = st.one_of(
    st.builds(Sent, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=MASKS),
    st.builds(Sent, st.sampled_from([PING, PONG]), st.just(b""), mask=MASKS),
)


@st.composite
def messages(draw: st.DrawFn, payloads: st.SearchStrategy[bytes]) -> list[Sent]:
    """A message in fragments, cut anywhere (within a character, too), with control frames between them."""
    opcode, payload = draw(st.sampled_from([TEXT, BINARY])), draw(payloads)
    parts = cut(payload, draw(st.lists(st.integers(0, 1 << 17), max_size=3))) or [b""]
    frames = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        frames.append(Sent(CONTINUATION if number else opcode, part, last, mask=draw(MASKS)))
        if not last:
            frames += draw(st.lists(CONTROL, max_size=1))
    return frames


FAULTS = st.one_of(
    st.builds(Sent, st.sampled_from([*range(3, 8), *range(11, 16)]), TEXTS),  # opcodes that don't exist
    st.builds(Sent, st.sampled_from([TEXT, BINARY, PING, CLOSE]), reserved=st.integers(1, 7)),
    st.builds(Sent, st.sampled_from([TEXT, BINARY, PING, PONG]), TEXTS, mask=st.none()),
    st.builds(Sent, st.sampled_from([PING, PONG, CLOSE]), final=st.just(False)),
    st.builds(
        Sent, st.sampled_from([PING, PONG, CLOSE]), st.just(b"\x03\xe8" + b"x" * 124)
    ),  # too long for control
    st.builds(Sent, st.just(CONTINUATION), TEXTS, st.booleans()),
    st.builds(Sent, st.sampled_from([TEXT, BINARY]), TEXTS, st.just(False)),  # and never its end
    st.builds(Sent, st.just(CLOSE), CLOSES),
    st.builds(Sent, st.just(CLOSE), st.just(b"\x03\xe8\xff")),  # a reason that is no UTF-8
)
STREAMS = st.lists(
    st.one_of(
        messages(TEXTS),
        messages(LARGE),
        messages(st.binary(max_size=30)),
        CONTROL.map(lambda frame: [frame]),
        FAULTS.map(lambda frame: [frame]),
    ),
    max_size=6,
).map(lambda parts: [frame for part in parts for frame in part])


@settings(max_examples=600, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 1 << 18), max_size=8))
@example(
    [Sent(TEXT, "ü".encode()[:1], final=False), Sent(PING, b"!"), Sent(CONTINUATION, "ü".encode()[1:])], [7]
)
@example([Sent(TEXT, "ü".encode()[:1])], [])
@example([Sent(TEXT, b"\xed\xa0\x80")], [])  # half a surrogate pair
@example([Sent(TEXT, b"x" * LARGEST_MESSAGE, final=False), Sent(CONTINUATION)], [])
@example([Sent(TEXT, b"x" * LARGEST_MESSAGE, final=False), Sent(CONTINUATION, b"x")], [])
@example([Sent(TEXT, b"one"), Sent(CLOSE, b"\x03\xe8"), Sent(TEXT, b"after the goodbye")], [])
def test_a_stream_is_read_as_websockets_reads_it(frames: list[Sent], places: list[int]) -> None:
    pieces = cut(b"".join(frame.encode() for frame in frames), places)
    mine, their = ours(pieces), theirs(pieces)
    if their.code == 1009 and mine.code in {
        1002,
        1007,
    }:  # two breaches at once: they look at the length first, we last
        assert any(b"x" * 16_000 in frame.payload for frame in frames)
        return
    assert mine.received == their.received
    assert mine.goodbye == their.goodbye
    if their.goodbye and their.code == 1005:
        assert mine.code == 1000  # 1005 is never sent
    else:
        assert mine.code == their.code


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_read_the_same_wherever_they_are_cut(stream: bytes, places: list[int]) -> None:
    assert ours(cut(stream, places)) == ours([stream])


@pytest.mark.parametrize(
    ("head", "payload"),
    [(b"\x81\xfe\x00\x01", b"x"), (b"\x81\xff" + (1).to_bytes(8), b"x"), (b"\x81\xff\x80" + bytes(7), b"")],
    ids=["16 bits for a short one", "64 bits for a short one", "the highest bit"],
)
def test_a_length_is_written_as_short_as_can_be(head: bytes, payload: bytes) -> None:
    """RFC 6455, 5.2; `websockets` lets the first two pass."""
    assert ours([head + bytes(4) + payload]).code == 1002


@given(CODES)
def test_the_codes_that_a_peer_may_say_goodbye_with(code: int) -> None:
    """RFC 6455, 7.4, and IANA's registry: both sides of each range."""
    told = ours([Sent(CLOSE, struct.pack("!H", code)).encode()])
    registered = 1000 <= code <= 1013 and code not in {1004, 1005, 1006}
    if registered or 3000 <= code <= 4999:
        assert told == Outcome([], goodbye=True, code=code)
    else:
        assert told == Outcome([], goodbye=False, code=1002)


def test_nothing_is_kept_of_what_follows_a_breach() -> None:
    """The connection lives on until our goodbye is read, and the peer may go on sending meanwhile."""
    for breach, code in (
        (Sent(3), 1002),
        (Sent(TEXT, b"\xff"), 1007),
        (Sent(TEXT, b"x" * 20_000, final=False), 1009),
    ):
        inbox = Inbox()
        with pytest.raises(Closing) as raised:
            list(inbox.receive(breach.encode()))
        assert raised.value.code == code
        more = Sent(CONTINUATION, b"y" * 10_000, final=False).encode()
        for _ in range(20):
            try:
                assert list(inbox.receive(more)) == []
            except Closing as again:
                assert again.code == code  # noqa: PT017
        assert len(inbox._message) <= LARGEST_MESSAGE
        assert held_by(inbox) <= LARGEST_MESSAGE


def held_by(inbox: Inbox) -> int:
    """Bytes that wait in wsproto."""
    decoder = inbox._protocol._proto._frame_decoder
    return len(decoder.buffer.buffer)


# ------------------------------------------------------------------------------------------------ what we send


def read_by_their_client(stream: bytes, places: list[int]) -> ClientProtocol:
    client = ClientProtocol(parse_uri("ws://example.com"), state=OPEN, max_size=None)
    for piece in cut(stream, places):
        client.receive_data(piece)
    assert client.parser_exc is None
    return client


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.one_of(TEXTS, LARGE)), max_size=5),
    st.binary(max_size=125),
    st.lists(st.integers(0, 1 << 18), max_size=8),
)
def test_our_frames_are_read_by_their_client(
    sent: list[tuple[int, bytes]], echoed: bytes, places: list[int]
) -> None:
    stream = b"".join(encode_frame(Opcode(opcode), payload) for opcode, payload in sent)
    client = read_by_their_client(stream + encode_frame(Opcode.PONG, echoed), places)
    frames = [event for event in client.events_received() if isinstance(event, Frame)]
    assert all(frame.fin for frame in frames)
    assert [(frame.opcode, bytes(frame.data)) for frame in frames] == [*sent, (PONG, echoed)]


@settings(deadline=None)
@given(
    st.one_of(st.sampled_from([1000, 1001, 1008, 1009, 1011, 1013]), st.integers(4000, 4999)),
    st.text(max_size=90),
)
@example(4001, "\N{GRINNING FACE}" * 31)
def test_our_goodbye_is_read_by_their_client(code: int, reason: str) -> None:
    reason = reason.encode(errors="ignore").decode()
    client = read_by_their_client(text_frame(b"{}") + close_frame(code, reason), [])
    goodbye = client.close_rcvd
    assert goodbye is not None
    assert goodbye.code == code
    assert reason.startswith(goodbye.reason)
    assert len(reason.encode()) > 123 or goodbye.reason == reason
