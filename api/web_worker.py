"""
gunicorn's gevent worker, with an end to patience and an orderly leave. Its own gives the head of a request 75 s, as that is its keep-alive, and
waits for a body, and for a reader, for ever: whoever opens connections and sends nothing keeps them all.
"""

import errno
import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

HEAD_S = 10.0
"""From a request's first byte (of the first one: from the connection's beginning) to the end of its head."""
BODY_S = 30.0
"""From there to the end of its body, which has a mebibyte at the most."""
READ_S = 60.0
"""How long a client may take to read what the kernel has no more room for, each time."""
FOLLOWED_WITHIN_S = 120.0
"""So long old workers serve on while new ones load the product; then something is wrong with those."""
IDLE_S = 2.0
"""So long a stopping worker waits for another request on connections that are kept alive: each is told then to close."""
AGES = struct.Struct("QQ")
READY_AT, LARGEST_AGE = AGES.size, 1 << 16


class Worker(GeventWorker):
    """Stops in an order that fails nobody: not before its followers can serve, and not with a request unanswered."""

    followers: mmap.mmap
    """Shared with all: the ages of the workers that a reload starts, first and last, and a mark for each that can serve."""
    answering = 0

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        super().handle(listener, PatientSocket(client, idle_s=self.cfg.keepalive), addr)  # type: ignore[no-untyped-call]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        sock.expect_body()
        self.answering += 1
        try:
            super().handle_request(listener_name, req, sock, addr)  # type: ignore[no-untyped-call]
        finally:
            self.answering -= 1
        sock.expect_request()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        return nullcontext()  # the socket looks at the time itself

    def handle_exit(self, _signal: int, _frame: object) -> None:
        gevent.spawn(self._leave)

    def _leave(self) -> None:
        give_up = time.monotonic() + FOLLOWED_WITHIN_S
        while self._is_followed() and time.monotonic() < give_up:
            gevent.sleep(0.1)
        self.alive = False
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < IDLE_S:
            gevent.sleep(0.1)
            if self.answering:
                idle_since = time.monotonic()
        self.cfg.set("graceful_timeout", 0)

    def _is_followed(self) -> bool:
        """Whether a reload has started workers in the place of this one that can't serve yet."""
        first, last = AGES.unpack_from(self.followers)
        ready = (self.followers[READY_AT + age % LARGEST_AGE] for age in range(first, last + 1))
        return bool(self.age < first and not all(ready))


class PatientSocket:
    """The client's socket, of which nothing comes any more once the client took too long: to gunicorn it hung up."""

    def __init__(self, client: Any, *, idle_s: float) -> None:
        self._client = client
        self._idle_s = idle_s
        self._until: float | None = time.monotonic() + HEAD_S

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def expect_body(self) -> None:
        self._until = time.monotonic() + BODY_S

    def expect_request(self) -> None:
        self._until = None

    def recv(self, size: int) -> bytes:
        left = self._idle_s if self._until is None else self._until - time.monotonic()
        if left <= 0:
            return b""
        try:
            with self._within(left):
                data: bytes = self._client.recv(size)
        except TimeoutError:
            return b""
        if self._until is None:
            self._until = time.monotonic() + HEAD_S
        return data

    def sendall(self, data: bytes) -> None:
        with self._writing():
            self._client.sendall(data)

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        with self._writing():
            return self._client.sendfile(*args, **kwargs)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._within(READ_S):
                yield
        except TimeoutError as error:  # as gunicorn knows a client that is gone
            raise BrokenPipeError(errno.EPIPE, "The client reads too slowly.") from error

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Each call of the socket ends within so long; afterwards it may take for ever again."""
        self._client.settimeout(seconds)
        try:
            yield
        finally:
            self._client.settimeout(None)
