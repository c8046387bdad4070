"""
What nobody expects on a WebSocket: frames of any kind, in pieces of any size, and messages of any shape. Each is answered with
what docs/realtime.md knows, nothing is logged as a fault, and neither the team's other sockets nor another team's notice.
"""

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
import websocket
from flask import Flask
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from models.events.catalogue import CATALOGUE
from realtime import connection, conversation, hub, presence, sockets, subscription
from realtime.messages import LARGEST_MESSAGE
from tests.fuzz.campaign import CASES, LONG, SECONDS
from tests.realtime.conftest import Client, Connect, Team, drain, make_team
from tests.realtime.test_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Sent

EXAMPLES = CASES * 150
ENDS = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1013, 4001, 4008, 4029}
"""How a connection may end. 1011 would be a fault of ours."""
FROM_SERVER = {"pong", "welcome", "reset", "redacted", "heartbeat", "error", *CATALOGUE} | {
    f"presence_{what}" for what in ("joined", "left", "changed")
}
REFUSALS = {"malformed_message", "permission_denied", "rate_limited", "unavailable"}

NUMBERS = st.sampled_from(
    ["0", "-0", "1e400", "-1e-400", "9" * 400, "0.1e", "01", "-", "NaN", "Infinity", str(2**63), str(2**64)]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(
    ["hello", "ping", "presence", "cursor", "task_created", "error", "welcome", "", "x" * 100, "x" * 101]
)
FIELDS = st.sampled_from(["last_seq", "state", "seq", "origin", "user_id"])
DATA = VALUES | st.dictionaries(FIELDS, SCALARS, max_size=2)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A message of the protocol, or nearly one."""
    kind = draw(st.integers(0, 5))
    if kind <= 2:
        return json.dumps({"type": draw(TYPES), "data": draw(DATA)})
    if kind == 3:
        return json.dumps(
            draw(st.dictionaries(st.sampled_from(["type", "data", "id", ""]), VALUES, max_size=3) | VALUES)
        )
    if kind == 4:
        levels, (left, right) = draw(st.integers(0, 3000)), draw(st.sampled_from(["[]", ('{"a":', "}")]))
        return f'{{"type": "deep", "data": {left * levels}{draw(NUMBERS)}{right * levels}}}'
    return draw(st.text(max_size=40)) + draw(
        st.sampled_from(['{"type":"ping"', '{"type":"ping"}}', "\\ud800", ""])
    )


PAYLOADS = (
    texts().map(str.encode)
    | st.binary(max_size=130)
    | st.sampled_from(
        [b"", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f", b"x" * LARGEST_MESSAGE, b"x" * (LARGEST_MESSAGE + 1)]
    )
    | st.tuples(st.integers(0, 2**16 - 1), st.binary(max_size=130)).map(
        lambda end: struct.pack("!H", end[0]) + end[1]
    )
)
FRAMES = st.builds(
    Sent,
    st.sampled_from([TEXT] * 6 + [CONTINUATION, BINARY, CLOSE, PING, PONG, 0x3, 0xB]),
    PAYLOADS,
    final=st.sampled_from([True] * 5 + [False]),
    reserved=st.sampled_from([0] * 12 + [1, 4, 7]),
    mask=st.sampled_from([b"\x5a\x00\xff\x13"] * 12 + [None]),
).map(Sent.encode)
STREAMS = st.lists(
    st.one_of(
        texts().map(lambda text: Sent(TEXT, text.encode()).encode()), FRAMES, FRAMES, st.binary(max_size=20)
    ),
    min_size=1,
    max_size=12,
).map(b"".join)


class Faults:
    """Stands in for a module's logger, and keeps what it would have said was wrong."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def _keep(self, event: str, **about: Any) -> None:
        self.said.append(f"{event} {about}")

    exception = error = critical = _keep

    def info(self, *_: Any, **__: Any) -> None: ...

    warning = debug = info


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    kept = Faults()
    for module in (connection, conversation, hub, presence, sockets, subscription):
        monkeypatch.setattr(module, "log", kept)
    return kept


def examples() -> settings:
    return settings(
        max_examples=EXAMPLES,
        derandomize=not LONG,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def send_in_pieces(client: Client, stream: bytes, cuts: list[int]) -> None:
    at = 0
    with suppress(OSError):  # it may have been told goodbye
        for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
            client.raw.sendall(stream[at:cut])
            at = cut


def answers(client: Client) -> Iterator[Any]:
    """What the server says until it has answered a last ping, or has said goodbye; raises for what it may not say."""
    with suppress(OSError):
        client.raw.sendall(Sent(TEXT, b'{"type":"ping","data":"the last"}').encode())
    while True:
        try:
            frame = client.ws.recv_frame()  # type: ignore[no-untyped-call]
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            return  # we broke off first, or our own close was answered already
        except (websocket.WebSocketTimeoutException, TimeoutError):
            return  # it waits for the rest of a frame that we began
        assert frame.rsv1 == frame.rsv2 == frame.rsv3 == frame.mask_value == 0
        if frame.opcode == CLOSE:
            yield struct.unpack("!H", frame.data[:2])[0]
            return
        if frame.opcode == TEXT:
            message = json.loads(frame.data)
            yield message
            if message["type"] == "pong" and message["data"] == "the last":
                return
        else:
            assert frame.opcode == PONG


def check(answer: Any) -> None:
    if isinstance(answer, int):
        assert answer in ENDS or 3000 <= answer < 5000 or answer < 1015, answer
        assert answer != 1011
        return
    assert answer["origin"] in {"server", "client"}
    if answer["origin"] == "client":
        assert {"type", "user_id", "data", "id", "at"} <= set(answer)
    else:
        assert answer["type"] in FROM_SERVER
    if answer["type"] == "error" and answer["origin"] == "server":
        assert answer["data"]["code"] in REFUSALS
        assert answer["data"]["detail"]


@pytest.mark.timeout(0 if LONG else 240)
def test_any_stream_is_answered_as_documented_and_disturbs_nobody(
    connect_to: Connect, team: Team, small_app: Flask, faults: Faults
) -> None:
    other = make_team(small_app)
    beside, elsewhere = connect_to(team, team.viewer).ready(), connect_to(other, other.member).ready()
    until = time.monotonic() + SECONDS if SECONDS else None
    seen, heard_at = set(), [time.monotonic()]

    @examples()
    @example(Sent(TEXT, b"x" * (LARGEST_MESSAGE + 1)).encode(), [], False)
    @given(STREAMS, st.lists(st.integers(0, 50_000), max_size=3), st.booleans())
    def throw(stream: bytes, cuts: list[int], greets: bool) -> None:
        # They may send 50 messages a second themselves, and have to answer pings: what is left when the time is up takes a while.
        if time.monotonic() > heard_at[-1] + 1:
            hears(beside, client="beside")
            hears(elsewhere, client="elsewhere")
            heard_at.append(time.monotonic())
        if until and time.monotonic() > until:
            return
        client = connect_to(team, team.member)
        client.raw.settimeout(0.3)
        try:
            if greets:
                client.send("hello")
            send_in_pieces(client, stream, cuts)
            for answer in answers(client):
                check(answer)
                seen.add(answer if isinstance(answer, int) else answer["type"])
        finally:
            client.vanish()
        assert faults.said == []

    throw()
    hears(beside, client="beside")
    hears(elsewhere, client="elsewhere")
    # It met the protocol's ends and answers, and not one wall.
    assert {1002, 1007, 1009, "error", "pong", "welcome"} <= seen
    team.happen()
    drain()
    assert sees(beside, "workspace_created")
    assert sees(connect_to(team, team.member).ready(), "cursor", by="cursor")


def hears(witness: Client, *, client: str) -> None:
    """The witness is answered; whatever it was shown before is whole, and of its team's clients."""
    witness.send("ping", client)
    while True:
        message = witness.receive()
        check(message)
        if message == {"type": "pong", "data": client, "origin": "server"}:
            return


def sees(witness: Client, type_: str, *, by: str | None = None) -> bool:
    """Whether such a message comes; of itself, if it is to send it."""
    if by:
        witness.send(by, 1)
    return any(witness.receive()["type"] == type_ for _ in range(10_000))


@pytest.mark.timeout(0 if LONG else 120)
def test_any_address_and_credential_is_refused_as_documented(server: str, team: Team, faults: Faults) -> None:
    secrets = st.text(max_size=30) | st.sampled_from(
        [team.member.token + "x", "ahq_", "ahk_" + "x" * 300, "\x00", "\ud7ff"]
    )
    names = st.sampled_from(["token", "ticket", "echo", "nothing"])

    @examples()
    @given(
        st.text(max_size=20) | st.just(str(team.id)) | st.uuids().map(str),
        st.dictionaries(names, secrets, max_size=3),
        st.sampled_from(["", "Bearer", "Bearer x", "Basic eDp4", "Bearer " + "x" * 500]),
    )
    def knock(name: str, query: dict[str, str], authorization: str) -> None:
        asked = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        path = f"ws://{server}/ws/{quote(name, safe='')}?{asked}"
        header = {"Authorization": authorization} if authorization else {}
        try:
            opened = websocket.create_connection(path, timeout=10, header=header)
        except websocket.WebSocketBadStatusException as refused:
            status = refused.status_code
        else:
            _, payload = opened.recv_data()
            assert struct.unpack("!H", payload[:2])[0] == 1008
            opened.shutdown()  # type: ignore[no-untyped-call]
            status = 101
        assert status in {101, 301, 308, 400, 404}
        assert faults.said == []

    knock()


HANDSHAKES = st.lists(
    st.sampled_from(
        [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Connection: keep-alive, upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Key: short",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Version: 8",
            "Sec-WebSocket-Version: x",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99",
            "Sec-WebSocket-Protocol: chat, \x7f",
            "Origin: null",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            "X-Long: " + "x" * 2000,
        ]
    ),
    max_size=10,
)


@pytest.mark.timeout(0 if LONG else 120)
def test_any_handshake_is_answered(server: str, team: Team, faults: Faults) -> None:
    host, port = server.split(":")

    @examples()
    @given(HANDSHAKES, st.binary(max_size=60))
    def shake(lines: list[str], rest: bytes) -> None:
        head = [f"GET /ws/{team.id}?token={team.member.token} HTTP/1.1", f"Host: {server}", *lines, "", ""]
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall("\r\n".join(head).encode("latin-1") + rest)
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(12)[9:12] in {b"101", b"400", b"403"}
        assert faults.said == []

    shake()
