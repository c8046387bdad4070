"""
gunicorn's gevent worker, with an end to patience. Its own gives the head of a request 75 s, as that is its keep-alive, and
waits for a body, and for a reader, for ever: whoever opens connections and sends nothing keeps them all.
"""

import errno
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from gunicorn.workers.ggevent import GeventWorker

HEAD_S = 10.0
"""From a request's first byte (of the first one: from the connection's beginning) to the end of its head."""
BODY_S = 30.0
"""From there to the end of its body, which has a mebibyte at the most."""
READ_S = 60.0
"""How long a client may take to read what the kernel has no more room for, each time."""


class Worker(GeventWorker):
    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        super().handle(listener, PatientSocket(client, idle_s=self.cfg.keepalive), addr)  # type: ignore[no-untyped-call]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        sock.expect_body()
        super().handle_request(listener_name, req, sock, addr)  # type: ignore[no-untyped-call]
        sock.expect_request()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        return nullcontext()  # the socket looks at the time itself


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
