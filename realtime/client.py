"""
A client of `/ws/<team_id>` for programs in Python (docs/realtime.md). It needs wsproto, and nothing of the server's.

    with TeamSocket("https://agenthq.example.com", team_id, lambda: api_key) as team:
        for frame in team:
            print(frame["type"], frame.get("seq"))

Whatever cuts the connection, the client comes back and asks for what it missed: each event is shown once, in order.
"""

import json
import logging
import random
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

Frame = dict[str, Any]
"""What the server sends, as docs/realtime.md has it."""

LARGEST_MESSAGE = 16 * 1024
CONNECT_WITHIN_S = 10.0
WELCOME_WITHIN_S = 20.0
WRITE_WITHIN_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Full jitter: a pause is anything between nothing and a limit that doubles with each failure."""
CALM_DOWN_S = (5.0, 15.0)
"""The pause of a client that was told to send less."""

ABNORMAL, POLICY_VIOLATION, ACCESS_REVOKED, TOO_MANY_MESSAGES = 1006, 1008, 4001, 4029
RETRIED_STATUSES = {408, 425, 429}
"""Answers to a handshake that do not speak of the credential, besides those from 500."""

log = logging.getLogger(__name__)

# Its own, so that programs forked from one don't all come back at the same moment.
JITTER = random.SystemRandom()


class Refused(Exception):
    """The server does not let this credential into the team, or not any more; `code` is the close code or HTTP status."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class NotConnected(Exception):
    """There is no connection at the moment; the message was not sent."""


class Lost(Exception):
    """The connection is over; `code` is the server's close code, or 1006."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class TeamSocket:
    """
    A team's frames, as an iterator that ends with `close`. One thread iterates; any may `send`, `set_state` and `close`.

    It shows events (and `redacted` in the place of hidden ones) by number, without gap or repeat; client messages and
    presence as they come, which are not sent again after a cut; `welcome` after each connect; `reset` when the events
    in between can't be replayed, so that the caller refetches over REST; and the `error` and `pong` it is answered.

    `credential()` is asked before each connect, and once more when what it gave was refused, so it can renew an expired
    session. It raises ConnectionError to be asked again later; anything else ends the iteration. Iterating raises
    Refused when it has no other credential to offer, or the other is refused, too.
    """

    def __init__(
        self,
        url: str,
        team_id: UUID | str,
        credential: Callable[[], str],
        *,
        last_seq: int | None = None,
        echo: bool = True,
        tls: ssl.SSLContext | None = None,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        """`last_seq`: the last event seen earlier, to go on after it; None: from now on."""
        self._url = f"{url.rstrip('/')}/ws/{team_id}{'' if echo else '?echo=false'}"
        self._credential = credential
        self._tls = tls
        self._longest_pause_s = longest_pause_s
        self._last_seq = last_seq
        self._resuming = False  # what comes before the welcome will come again
        self._heartbeat_s: float | None = None  # None until the welcome
        self._failures = 0
        self._presented: str | None = None
        self._refusal: Refused | None = None  # since the last welcome
        self._state: str | None = None
        self._wire: Wire | None = None
        self._closed = threading.Event()

    @property
    def last_seq(self) -> int | None:
        """The number of the event shown last: kept somewhere, it lets the next run of a program go on after it."""
        return self._last_seq

    def __iter__(self) -> Iterator[Frame]:
        while not self._closed.is_set():
            try:
                wire = self._connect()
                try:
                    yield from self._follow(wire)
                finally:
                    self._wire = None
                    wire.release()
            except Lost as lost:
                self._recover(lost)

    def send(self, type_: str, data: Any = None) -> None:
        """
        Sends a message to the team's clients. Raises NotConnected, and ValueError for what the server would not take;
        what it refuses for another reason comes back as a frame of type `error`.
        """
        text = json.dumps({"type": type_, "data": data}, separators=(",", ":"), allow_nan=False)
        if len(text) > LARGEST_MESSAGE:  # ASCII
            raise ValueError(f"A message has at most {LARGEST_MESSAGE} bytes.")
        wire = self._wire
        if wire is None:
            raise NotConnected
        try:
            wire.send(text)
        except Lost as lost:
            raise NotConnected from lost

    def set_state(self, state: str) -> None:
        """One's presence from now on (`online`, `away`, …), told again after each connect."""
        self._state = state
        with suppress(NotConnected):
            self.send("presence", {"state": state})

    def close(self) -> None:
        """Ends the connection and the iteration, for good."""
        self._closed.set()
        wire = self._wire
        if wire is not None:
            wire.say_goodbye()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> "Wire":
        try:
            credential = self._credential()
        except ConnectionError as error:
            raise Lost(ABNORMAL, repr(error)) from error
        if self._refusal and credential == self._presented:
            raise self._refusal
        self._presented = credential
        return Wire(self._url, credential, self._tls)

    def _follow(self, wire: "Wire") -> Iterator[Frame]:
        self._resuming, self._heartbeat_s = self._last_seq is not None, None
        self._wire = wire  # before the state is read, or a new one would be lost in between
        if self._closed.is_set():
            return
        with suppress(Lost):  # `receive` knows why
            wire.send(json.dumps({"type": "hello", "data": {"last_seq": self._last_seq}}))
        if self._state is not None:
            self.set_state(self._state)
        while True:
            frame = wire.receive(2 * self._heartbeat_s if self._heartbeat_s else WELCOME_WITHIN_S)
            if self._takes(frame):
                yield frame

    def _takes(self, frame: Frame) -> bool:
        """Whether the caller is shown it. Raises Lost if something is missing before it."""
        if frame["origin"] != "server":  # a client may call its message anything, `reset` too
            return True
        if "seq" in frame:
            return self._takes_event(frame["seq"])
        match frame["type"]:
            case "welcome":
                self._welcomed(frame["data"])
            case "reset":
                self._last_seq = frame["data"]["seq"]
            case "heartbeat":
                self._expect(frame["data"]["seq"])
                return False
        return True

    def _takes_event(self, seq: int) -> bool:
        if self._resuming or (self._last_seq is not None and seq <= self._last_seq):
            return False
        self._expect(seq - 1)
        self._last_seq = seq
        return True

    def _welcomed(self, welcome: Frame) -> None:
        if self._last_seq is None:
            self._last_seq = welcome["seq"]
        self._resuming, self._heartbeat_s = False, welcome["heartbeat_s"]
        self._failures, self._refusal = 0, None

    def _expect(self, seq: int) -> None:
        """Raises Lost unless all events up to this one have come."""
        if self._last_seq is not None and seq > self._last_seq:
            raise Lost(ABNORMAL, f"Events are missing up to {seq}.")

    def _recover(self, lost: Lost) -> None:
        """Waits until it is time to connect again; raises Refused if there is no point."""
        if self._closed.is_set():
            return
        if lost.code in {POLICY_VIOLATION, ACCESS_REVOKED} or 400 <= lost.code < 500:
            refusal = Refused(lost.code, lost.reason)
            if self._refusal:
                raise refusal from lost
            self._refusal = refusal
            return  # at once: _connect asks for another credential
        log.info("connection lost: %s %s", lost.code, lost.reason)
        limit = min(self._longest_pause_s, FIRST_PAUSE_S * 2 ** min(self._failures, 16))
        self._failures += 1
        calm = JITTER.uniform(*CALM_DOWN_S) if lost.code == TOO_MANY_MESSAGES else 0
        self._closed.wait(calm + JITTER.uniform(0, limit))


class Wire:
    """
    One connection: whole frames in, texts out. All use of the socket and the protocol is under the lock, as TLS needs
    it; only waiting to read is not.
    """

    def __init__(self, url: str, credential: str, tls: ssl.SSLContext | None) -> None:
        """Connects; raises Lost, with the HTTP status for its code where the server refuses the handshake."""
        self._lock = threading.Lock()
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._texts: deque[str] = deque()
        self._parts: list[str] = []
        self._over: Lost | None = None
        try:
            self._socket = _connected(url, tls)
        except ssl.SSLCertVerificationError:
            raise  # it will be no better the next time
        except OSError as error:
            raise Lost(ABNORMAL, repr(error)) from error
        try:
            self._shake_hands(url, credential)
            self._socket.setblocking(False)
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._socket, selectors.EVENT_READ)
        except (OSError, ProtocolError) as error:
            self._socket.close()
            raise Lost(ABNORMAL, repr(error)) from error
        except BaseException:
            self._socket.close()
            raise

    def receive(self, within_s: float) -> Frame:
        """The next frame; raises Lost if the connection ends first, or nothing comes in time."""
        deadline = time.monotonic() + within_s
        while not self._texts:
            if self._over:
                raise self._over
            left = deadline - time.monotonic()
            if left <= 0:
                raise Lost(ABNORMAL, "The server is silent.")
            if self._selector.select(left):
                self._read()
        frame: Frame = json.loads(self._texts.popleft())
        return frame

    def send(self, text: str) -> None:
        """Raises Lost if the connection is over."""
        with self._lock:
            try:
                self._write(self._protocol.send(TextMessage(text)))
            except ProtocolError as error:
                raise self._over or Lost(ABNORMAL) from error

    def say_goodbye(self) -> None:
        """Ends the connection; who waits in `receive` is told."""
        with self._lock:
            with suppress(ProtocolError, Lost):
                self._write(self._protocol.send(CloseConnection(1000)))
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Gives the socket back; called by who receives, since the descriptor may then be another's."""
        with self._lock:
            self._over = self._over or Lost(ABNORMAL)
            self._selector.close()
            self._socket.close()

    def _shake_hands(self, url: str, credential: str) -> None:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = [(b"Authorization", f"Bearer {credential}".encode())]
        request = Request(host=parts.netloc.rpartition("@")[2], target=target, extra_headers=headers)
        self._socket.sendall(self._protocol.send(request))
        while True:
            self._protocol.receive_data(self._socket.recv(1 << 16) or None)
            for event in self._protocol.events():
                if isinstance(event, AcceptConnection):
                    self._take_all()  # what came with it
                    return
                if isinstance(event, RejectConnection):
                    status = event.status_code
                    passing = status >= 500 or status in RETRIED_STATUSES
                    raise Lost(ABNORMAL if passing else status, f"The server answered {status}.")
                raise Lost(ABNORMAL, "The server closed the connection.")

    def _read(self) -> None:
        with self._lock:
            try:
                data = self._socket.recv(
                    1 << 16
                )  # not less than a TLS record, of which nothing may stay behind
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._over = Lost(ABNORMAL, repr(error))
                return
            try:
                self._protocol.receive_data(data or None)
                self._take_all()
            except ProtocolError as error:
                self._over = Lost(ABNORMAL, repr(error))

    def _take_all(self) -> None:
        for event in self._protocol.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case TextMessage():
                self._parts.append(event.data)
                if event.message_finished:
                    self._texts.append("".join(self._parts))
                    self._parts.clear()
            case Ping():
                with suppress(Lost, ProtocolError):  # reading tells
                    self._write(self._protocol.send(event.response()))
            case CloseConnection():
                self._over = Lost(int(event.code), event.reason or "")
                with suppress(Lost, ProtocolError):  # it may be the answer to ours
                    self._write(self._protocol.send(event.response()))

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        deadline = time.monotonic() + WRITE_WITHIN_S
        while left:
            try:
                left = left[self._socket.send(left) :]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as full:
                if time.monotonic() > deadline:
                    raise Lost(ABNORMAL, "The server reads nothing.") from full
                with selectors.DefaultSelector() as selector:
                    selector.register(self._socket, selectors.EVENT_WRITE)
                    selector.select(1)
            except OSError as error:
                raise Lost(ABNORMAL, repr(error)) from error


def _connected(url: str, tls: ssl.SSLContext | None) -> socket.socket:
    parts = urlsplit(url)
    secure = parts.scheme in {"https", "wss"}
    if not parts.hostname or not (secure or parts.scheme in {"http", "ws"}):
        raise ValueError(f"{url!r} is no address of a server.")
    address = (parts.hostname, parts.port or (443 if secure else 80))
    connection = socket.create_connection(address, timeout=CONNECT_WITHIN_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return connection
    try:
        return (tls or ssl.create_default_context()).wrap_socket(connection, server_hostname=parts.hostname)
    except BaseException:
        connection.close()
        raise
