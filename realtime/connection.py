"""
The sockets of a process: one thread follows them all, and no connection has one of its own.

A connection never blocks whoever writes to it. What the kernel does not take at once waits in a bounded queue, and the
reactor writes it when the peer reads on.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from uuid import UUID

import structlog
from gevent import monkey
from uuid_utils.compat import uuid7
from wsproto.events import Ping
from wsproto.frame_protocol import Opcode

from models.metrics import SOCKETS, SOCKETS_CLOSED
from realtime.messages import CloseCode
from realtime.transport import Closing, Goodbye, Inbox, close_frame, encode_frame, text_frame

log = structlog.get_logger("realtime.connection")

MOST_FRAMES = 256
MOST_BYTES = 1 << 20
"""What may wait for a slow reader; more closes its connection, so that it harms nobody else."""
LINGER_S = 1.0
"""How long a peer may take to answer our goodbye."""
READ_WITHIN_S = 10.0
"""How long a peer may take to read up to our goodbye."""
PING_AFTER_S = 25.0
"""A peer that was silent for so long is asked for a sign of life."""
DEAD_AFTER_S = 35.0
"""A peer that was silent for so long is gone."""
READ_BYTES = 16 * 1024
TICK_S = 0.5
SLICES = 4
"""At each tick this part of the connections is looked at for life."""

# Unpatched: gevent has no epoll, and its sockets wait where ours must not.
Epoll = monkey.get_original("select", "epoll")
PlainSocket = monkey.get_original("socket", "socket")
READ, WRITE, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR


class Connection:
    """
    One socket. Any thread may `offer`, `say` and `close`. What comes in goes to `on_message`, and the end is told to `on_end`
    once, both by the reactor's thread, where they must not block.
    """

    __slots__ = (
        "_bytes", "_ended", "_frames", "_heard_at", "_inbox", "_partial", "_reactor", "_room", "_socket", "closing", "id",
        "interest", "on_end", "on_message",
    )  # fmt: skip

    def __init__(self, reactor: "Reactor", fd: int) -> None:
        """Takes over the descriptor."""
        self.id: UUID = uuid7()
        self.closing: Closing | None = None
        self.on_message: Callable[[str | bytes], None] = _ignore
        self.on_end: Callable[[], None] = _nothing
        self.interest = 0
        """What the reactor follows of it."""
        self._reactor = reactor
        self._socket: socket.socket = PlainSocket(fileno=fd)
        self._socket.setblocking(False)
        with suppress(OSError):  # no TCP
            self._socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )  # else a frame waits 40 ms for an ACK
        self._inbox: Inbox | None = Inbox()
        self._frames: list[bytes] = []  # waiting; few, and nearly always none: an empty deque has 600 bytes
        self._bytes = 0
        self._partial = False  # the first of them is written in part
        self._heard_at = time.monotonic()
        self._room: threading.Event | None = None
        self._ended: threading.Event | None = None

    def attach(self, on_message: Callable[[str | bytes], None], on_end: Callable[[], None]) -> None:
        """Where to turn with what comes; begins to read."""
        with self._reactor.lock:
            self.on_message, self.on_end = on_message, on_end
            if self._inbox is None:  # over before it began
                on_end()
            else:
                self._reactor.follow(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def say(self, payload: bytes) -> None:
        """Sends a message to this connection alone."""
        self.offer(text_frame(payload))

    def offer(self, frame: bytes) -> None:
        """Sends an encoded frame, or queues it; closes the connection if too much waits already."""
        with self._reactor.lock:
            self.push(frame)

    def offer_patiently(self, frame: bytes) -> None:
        """Sends an encoded frame as soon as there is room; blocks until then, and raises Closing if the connection ends."""
        while True:
            with self._reactor.lock:
                if self.closing:
                    raise self.closing
                if self._has_room(frame):
                    self.push(frame)
                    return
                room = self._room = self._room or threading.Event()
            room.wait()

    def push(self, frames: bytes) -> None:
        """`offer`, for who has the reactor's lock; of one frame or several."""
        if self.closing:
            return
        if self._frames:
            if self._has_room(frames):
                self._queue(frames)
            else:
                self._close(Closing(CloseCode.TOO_SLOW, "The client reads too slowly; resume with hello."))
            return
        if rest := self._write(frames):
            self._partial = len(rest) < len(frames)
            self._queue(rest)
            self._reactor.watch_writing(self)

    def close(self, code: int, reason: str = "") -> None:
        """Says goodbye as soon as the frame being written is out; the others are dropped. The first goodbye counts."""
        with self._reactor.lock:
            if not self.closing:
                self._close(Closing(code, reason))

    def abort(self) -> None:
        """Cuts the connection."""
        with self._reactor.lock:
            self._end()

    def wait(self) -> None:
        """Returns once the connection has ended."""
        with self._reactor.lock:
            if self._inbox is None:
                return
            ended = self._ended = self._ended or threading.Event()
        ended.wait()

    def keep_alive(self, now: float) -> None:
        """Asks a silent peer for a sign of life, and cuts one that is gone."""
        silent = now - self._heard_at
        if silent > DEAD_AFTER_S:
            self._end()
        elif silent > PING_AFTER_S and not self.closing:
            self.push(PING)

    def readable(self) -> None:
        """Reads what is there; called by the reactor."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._heard_at = time.monotonic()
        try:
            self._take(data)
        except Closing as closing:
            if self.closing and isinstance(closing, Goodbye):
                self._end()  # the answer to ours
            elif not self.closing:
                self._close(closing)

    def _take(self, data: bytes) -> None:
        for received in self._inbox.receive(data) if self._inbox else ():
            if isinstance(received, Ping):
                self.push(encode_frame(Opcode.PONG, bytes(received.payload)))
            elif not self.closing:
                self.on_message(received)

    def writable(self) -> None:
        """Writes on; called by the reactor."""
        while self._frames:
            frame = self._frames.pop(0)
            self._bytes -= len(frame)
            if rest := self._write(frame):
                self._partial |= len(rest) < len(frame)
                self._frames.insert(0, rest)
                self._bytes += len(rest)
                break
            self._partial = False
        else:
            if self._inbox is None:
                return
            self._reactor.watch_writing(self, wanted=False)
            if isinstance(self.closing, Goodbye):
                self._end()
            elif self.closing:
                self._reactor.expect_end(self, LINGER_S)
        if self._room and (self.closing or len(self._frames) < MOST_FRAMES // 2):
            self._room.set()
            self._room = None

    def _has_room(self, frames: bytes) -> bool:
        return not self._frames or (
            len(self._frames) < MOST_FRAMES and self._bytes + len(frames) <= MOST_BYTES
        )

    def _queue(self, frames: bytes) -> None:
        self._frames.append(frames)
        self._bytes += len(frames)

    def _write(self, data: bytes) -> bytes:
        """What the kernel did not take."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            return data
        except OSError:
            self._end()
            return b""
        return data[sent:] if sent < len(data) else b""

    def _close(self, closing: Closing) -> None:
        begun = self._frames[0] if self._partial else b""
        self._frames.clear()
        self._bytes = 0
        self.closing = closing
        if not isinstance(closing, Goodbye):
            SOCKETS_CLOSED.labels(str(int(closing.code))).inc()
        if rest := self._write(begun + close_frame(closing.code, closing.reason)):
            self._queue(rest)
            self._reactor.watch_writing(self)
        elif isinstance(closing, Goodbye):
            self._end()
        if self._inbox is not None:
            self._reactor.expect_end(self, READ_WITHIN_S if self._frames else LINGER_S)
        if self._room:
            self._room.set()

    def _end(self) -> None:
        if self._inbox is None:
            return
        self._inbox = None
        self.closing = self.closing or Closing(CloseCode.GOING_AWAY)
        self._frames.clear()
        self._reactor.forget(self)
        with suppress(OSError):  # it is cut already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for waiting in (self._room, self._ended):
            if waiting:
                waiting.set()
        self.on_end()


PING = encode_frame(Opcode.PING, b"")


class Reactor:
    """Follows the sockets of this process in one thread (a greenlet under gevent), started with the first of them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Whoever holds it neither waits nor blocks."""
        self._epoll = Epoll()
        self._connections: dict[int, Connection] = {}
        self._leaving: dict[Connection, float] = {}
        self._started = False

    def adopt(self, connection_socket: socket.socket) -> Connection:
        """A connection of its own on the same TCP connection; whoever had the socket may close it."""
        with self.lock:
            connection = Connection(self, os.dup(connection_socket.fileno()))
            self._connections[connection.fileno()] = connection
            SOCKETS.inc()
            self._epoll.register(connection.fileno(), 0)
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="sockets", daemon=True).start()
        return connection

    def follow(self, connection: Connection) -> None:
        """Begins to read, once `on_message` and `on_end` are set."""
        self._watch(connection, connection.interest | READ)

    def watch_writing(self, connection: Connection, *, wanted: bool = True) -> None:
        self._watch(connection, connection.interest | WRITE if wanted else connection.interest & ~WRITE)

    def _watch(self, connection: Connection, interest: int) -> None:
        with self.lock:
            if self._connections.get(connection.fileno()) is connection and interest != connection.interest:
                connection.interest = interest
                self._epoll.modify(connection.fileno(), interest)

    def expect_end(self, connection: Connection, within_s: float) -> None:
        """The peer knows or will know that it is over; it has so long to agree."""
        self._leaving[connection] = time.monotonic() + within_s

    def forget(self, connection: Connection) -> None:
        if self._connections.pop(connection.fileno(), None):
            SOCKETS.dec()
        self._leaving.pop(connection, None)
        self._epoll.unregister(connection.fileno())

    def _run(self) -> None:
        waiter = select.poll()  # patched by gevent, so that other greenlets go on
        waiter.register(self._epoll.fileno(), select.POLLIN)
        next_tick, tick = time.monotonic() + TICK_S, 0
        while True:
            waiter.poll(max(0.0, next_tick - time.monotonic()) * 1000)
            for fd, event in self._epoll.poll(0, 512):
                self._handle(fd, event)
            if time.monotonic() >= next_tick:
                next_tick, tick = time.monotonic() + TICK_S, tick + 1
                self._keep_alive(tick)

    def _handle(self, fd: int, event: int) -> None:
        with self.lock:
            connection = self._connections.get(fd)
            if connection is None:
                return
            try:
                if event & WRITE:
                    connection.writable()
                if event & (READ | GONE):
                    connection.readable()
            except Exception:
                log.exception("socket failed", connection_id=str(connection.id))
                connection.close(CloseCode.INTERNAL_ERROR)

    def _keep_alive(self, tick: int) -> None:
        now = time.monotonic()
        with self.lock:
            for connection, by in list(self._leaving.items()):
                if by <= now:
                    connection.abort()
            for number, connection in enumerate(list(self._connections.values())):
                if number % SLICES == tick % SLICES:
                    connection.keep_alive(now)


@cache
def local_reactor() -> Reactor:
    """This process's, made on first use and so after the fork."""
    return Reactor()


def _ignore(_message: str | bytes) -> None: ...


def _nothing() -> None: ...
