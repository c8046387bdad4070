"""
Thousands of WebSocket clients in one process, made to cost less than any server: one epoll, no frame library.

It knows the events that benchmarks/fanout.py publishes: text frames of 126 bytes and more, which tell at a fixed place
when they were published, in microseconds of the machine's monotonic clock.
"""

import errno
import select
import socket
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

from benchmarks.child import Child
from benchmarks.measuring import percentile

STAMP_BYTES = 16
OPENED_AT_ONCE = 128
READ_BYTES = 32 * 1024
EVENT, CLOSE, PING = 0x81, 0x88, 0x89
LONG = 126
PING_MESSAGE = b"\x81\x8f\0\0\0\0" + b'{"type":"ping"}'
"""Masked with zeros. Its answer tells that the server has let the client in."""
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Received:
    events: int
    milliseconds: dict[int, float]
    """From the publication to here, by percentile."""
    busy: float
    """The part of one core that the loader took."""


class Loader(Child):
    """The other process, from outside."""

    def __init__(self) -> None:
        super().__init__(_run)

    def open(self, port: int, paths: Sequence[str], *, asks: bool) -> float:
        """Opens a socket for each path; the seconds until all were let in. `asks` if the server answers pings with pongs."""
        return float(self.call("open", port, paths, asks))

    def close(self) -> None:
        self.call("close")

    def begin(self, stamp_at: int) -> None:
        """Counts anew, events whose stamp is at that place of their frame."""
        self.call("begin", stamp_at)

    def received(self, expected: int, patience_s: float) -> Received:
        """What has come since, as soon as so many events have, or after so long."""
        received: Received = self.call("received", expected, patience_s)
        return received


def _run(pipe: Pipe) -> None:
    clients = _Clients(pipe)
    while True:
        name, *arguments = clients.next_call()
        try:
            pipe.send(getattr(clients, name)(*arguments))
        except Exception as error:  # noqa: BLE001  raised where it was called
            pipe.send(error)


class _Clients:
    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._epoll = select.epoll()
        self._epoll.register(pipe.fileno(), select.EPOLLIN)
        self._sockets: dict[int, socket.socket] = {}
        self._rests: dict[int, bytes] = {}  # frames of which a part has come
        self._asked: set[int] = set()  # asked to be let in, and not answered yet
        self._asks = False
        self._shaking: dict[int, bytes] = {}
        self._stamp_at = 0
        self._delays = array("q")
        self._begun = (0.0, 0.0)

    def next_call(self) -> Any:
        while not self._pipe.poll():
            self._read_all(0.2)
        return self._pipe.recv()

    def open(self, port: int, paths: Sequence[str], asks: bool) -> float:
        begun = time.monotonic()
        self._asks = asks
        waiting = iter(paths)
        wanted = len(self._sockets) + len(paths)
        while True:
            while len(self._shaking) + len(self._asked) < OPENED_AT_ONCE and (path := next(waiting, None)):
                self._connect(port, path)
            if len(self._sockets) == wanted and not self._shaking and not self._asked:
                return time.monotonic() - begun
            if time.monotonic() > begun + 120:
                raise TimeoutError(f"{len(self._shaking) + len(self._asked)} sockets don't open")
            self._read_all(0.2)

    def close(self) -> None:
        for fd, client in self._sockets.items():
            self._epoll.unregister(fd)
            client.close()
        for state in (self._sockets, self._rests, self._shaking, self._asked):
            state.clear()

    def begin(self, stamp_at: int) -> None:
        self._stamp_at = stamp_at
        self._delays = array("q")
        self._begun = (time.monotonic(), time.process_time())

    def received(self, expected: int, patience_s: float) -> Received:
        until = time.monotonic() + patience_s
        while len(self._delays) < expected and time.monotonic() < until:
            self._read_all(0.05)
        busy = (time.process_time() - self._begun[1]) / (time.monotonic() - self._begun[0])
        ranked = sorted(self._delays)
        return Received(
            len(ranked),
            {percent: percentile(ranked, percent) / 1000 for percent in (50, 99)} if ranked else {},
            busy,
        )

    def _connect(self, port: int, path: str) -> None:
        client = socket.socket()
        client.setblocking(False)
        if (problem := client.connect_ex(("127.0.0.1", port))) not in {0, errno.EINPROGRESS}:
            raise OSError(problem, "can't connect")
        self._sockets[client.fileno()] = client
        self._shaking[client.fileno()] = HANDSHAKE.format(path).encode()
        self._epoll.register(client.fileno(), select.EPOLLOUT)

    def _read_all(self, timeout_s: float) -> None:
        pipe = self._pipe.fileno()
        for fd, _ in self._epoll.poll(timeout_s, 1024):
            if fd == pipe:
                continue
            if request := self._shaking.get(fd):
                self._sockets[fd].send(request)
                self._shaking[fd] = b""
                self._epoll.modify(fd, select.EPOLLIN)
                continue
            data = self._sockets[fd].recv(READ_BYTES)
            if not data:
                self._epoll.unregister(fd)
                raise ConnectionError("the server ended a connection")
            self._take(fd, data, time.monotonic_ns() // 1000)

    def _take(self, fd: int, data: bytes, now: int) -> None:
        if fd in self._rests:
            data = self._rests.pop(fd) + data
        if fd in self._shaking:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rests[fd] = head
                return
            self._shaken(fd, head)
        stamp_at, length, at = self._stamp_at, len(data), 0
        while length - at >= 4 and data[at] == EVENT and data[at + 1] == LONG:
            frame_end = at + 4 + (data[at + 2] << 8 | data[at + 3])
            if frame_end > length:
                break
            stamp = at + stamp_at
            self._delays.append(now - int(data[stamp : stamp + STAMP_BYTES]))
            at = frame_end
        if at < length:
            self._take_others(fd, data[at:], now)

    def _shaken(self, fd: int, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(head.decode(errors="replace"))
        del self._shaking[fd]
        if self._asks:
            self._asked.add(fd)
            self._sockets[fd].send(PING_MESSAGE)

    def _take_others(self, fd: int, data: bytes, now: int) -> None:
        """What begins with anything but a whole event."""
        if len(data) < 2 or data[1] == LONG or len(data) < 2 + data[1]:
            self._rests[fd] = data
            return
        payload, rest = data[2 : 2 + data[1]], data[2 + data[1] :]
        if data[0] == CLOSE:
            raise ConnectionError(f"the server closes with {int.from_bytes(payload[:2])}: {payload[2:]!r}")
        if data[0] == PING:
            self._sockets[fd].send(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)
        else:
            self._asked.discard(fd)  # the only short message is the answer to ours
        if rest:
            self._take(fd, rest, now)
