"""
An HTTP client in a process of its own that costs less than any server: one epoll, kept connections, requests made in advance.

Its answers have a Content-Length or none at all (204), and their bodies are not looked at.
"""

import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Self

from benchmarks.child import Child
from benchmarks.measuring import percentile

READ_BYTES = 256 * 1024
LONGEST_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Answers:
    count: int
    seconds: float
    p50: float
    """In milliseconds, from when a request was due: what waits for a free connection waits for the server."""
    p99: float
    busy: float
    """The part of one core that the client took."""

    @property
    def rate(self) -> float:
        return self.count / self.seconds


class Requester(Child):
    """The other process, from outside."""

    def __init__(self) -> None:
        super().__init__(_run)

    def ask(
        self,
        port: int,
        requests: Sequence[bytes],
        *,
        status: int,
        connections: int,
        seconds: float,
        rate: float | None = None,
    ) -> Answers:
        """
        Sends the requests in turns for so long, each connection one at a time: as fast as they are answered, or evenly at
        so many a second. Raises RuntimeError for an answer of another status.
        """
        answers: Answers = self.call(port, requests, status, connections, seconds, rate)
        return answers


def _run(pipe: Pipe) -> None:
    while True:
        port, requests, status, connections, seconds, rate = pipe.recv()
        try:
            with _Connections(port, connections) as opened:
                pipe.send(opened.ask(requests, status, seconds, rate))
        except Exception as error:  # noqa: BLE001  raised where it was called
            pipe.send(error)


class _Connections:
    def __init__(self, port: int, count: int) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(count):
            opened = socket.create_connection(("127.0.0.1", port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[opened.fileno()] = opened
            self._epoll.register(opened.fileno(), select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._sockets.values():
            opened.close()
        self._epoll.close()

    def ask(self, requests: Sequence[bytes], status: int, seconds: float, rate: float | None) -> Answers:
        expected = b"HTTP/1.1 %d " % status
        free = deque(self._sockets)
        due_at: dict[int, float] = {}
        rests: dict[int, bytes] = {}
        took = array("d")
        begun, processor = time.perf_counter(), time.process_time()
        sent = 0
        while True:
            now = time.perf_counter()
            going = now < begun + seconds
            if not going and not due_at:
                break
            if now > begun + seconds + LONGEST_ANSWER_S:
                raise TimeoutError(f"{len(due_at)} requests are not answered")
            while going and free and (rate is None or begun + sent / rate <= now):
                fd = free.popleft()
                due_at[fd] = now if rate is None else begun + sent / rate
                self._sockets[fd].sendall(requests[sent % len(requests)])
                sent += 1
            wait = 0.2
            if going and rate is not None and free:
                wait = max(0.0, min(wait, begun + sent / rate - time.perf_counter()))
            for fd, _ in self._epoll.poll(wait, 1024):
                data = rests.pop(fd, b"") + self._sockets[fd].recv(READ_BYTES)
                if not _is_whole(data):
                    rests[fd] = data
                    continue
                took.append(time.perf_counter() - due_at.pop(fd))
                if not data.startswith(expected):
                    raise RuntimeError(f"answered {data[:2000]!r}")
                free.append(fd)
        lasted = time.perf_counter() - begun
        busy = (time.process_time() - processor) / lasted
        return Answers(len(took), lasted, percentile(took, 50) * 1000, percentile(took, 99) * 1000, busy)


def _is_whole(data: bytes) -> bool:
    if not data:
        raise ConnectionError("the server ended a connection")
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    _, named, rest = head.lower().partition(b"\r\ncontent-length:")
    return not named or len(body) >= int(rest.partition(b"\r\n")[0])
