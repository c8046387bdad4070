"""
HTTP POST to a customer's server, within bounds: to addresses that were checked (models/destinations.py), without redirects
and without the environment's proxies; ten seconds in all, however slowly the other side drips; 64 KiB of the answer read
and none of it kept.
"""

import math
import ssl
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from socket import SHUT_RDWR
from typing import Any, Self

import httpcore

from models.destinations import Destination, Network, RefusedDestination, checked_addresses

TOTAL_S, CONNECT_S = 10.0, 3.0
LARGEST_ANSWER = 64 * 1024
WRITTEN_AT_ONCE = 16 * 1024
KEPT_ALIVE_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a POST: the status, if there was one, and what was wrong, if anything was."""

    status: int | None
    error: str | None
    """`status` for one that is no success, `redirect`, `timeout`, `connection`, `tls`, `protocol`, `unresolvable` or
    `address_refused`; None: delivered."""
    duration_ms: int
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        return self.error is None


class Poster:
    """Posts to one destination, over one connection that it keeps for the next; a context manager."""

    def __init__(self, destination: Destination, private_networks: Sequence[Network]) -> None:
        self._backend = CheckedBackend(destination, private_networks)
        self._url = httpcore.URL(
            scheme=destination.scheme.encode(),
            host=destination.host.encode(),
            port=destination.port,
            target=destination.target.encode(),
        )
        self._host = destination.authority
        self._is_encrypted = destination.scheme == "https"
        self._pool: httpcore.ConnectionPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Never raises for what the other side does."""
        started = time.monotonic()
        self._backend.deadline = started + TOTAL_S
        reused = self._pool is not None
        try:
            status, retry_after = self._try(body, headers)
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            self.close()
            if not reused:
                return _failed(error, started)
            # The other side may close a connection just as we use it again: that is no failure of theirs.
            try:
                status, retry_after = self._try(body, headers)
            except FAILURES as again:
                self.close()
                return _failed(again, started)
        except FAILURES as error:
            self.close()
            return _failed(error, started)
        return Answer(status, _problem_with_status(status), _ms_since(started), retry_after)

    def _try(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, float | None]:
        if self._pool is None:
            self._pool = httpcore.ConnectionPool(
                ssl_context=tls_context() if self._is_encrypted else None,
                max_connections=1,
                keepalive_expiry=KEPT_ALIVE_S,
                network_backend=self._backend,
            )
        sent = {"Host": self._host, "Content-Length": str(len(body)), **headers}
        listed = [(name.encode(), value.encode()) for name, value in sent.items()]
        timeouts = {"connect": CONNECT_S, "read": TOTAL_S, "write": TOTAL_S, "pool": TOTAL_S}
        with self._pool.stream(
            "POST", self._url, headers=listed, content=body, extensions={"timeout": timeouts}
        ) as response:
            retry_after = _retry_after(response.headers)
            with suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                _read_to_the_end(response)  # or closed where it is, when that is too far
            return response.status, retry_after

    def close(self) -> None:
        """Hangs up; the next POST connects anew."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, RefusedDestination)


class CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were checked just before, and ends whatever goes on past `deadline`."""

    def __init__(self, destination: Destination, private_networks: Sequence[Network]) -> None:
        self.deadline = math.inf
        self._destination = destination
        self._private_networks = private_networks
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        until = time.monotonic() + min(timeout or CONNECT_S, self.left())
        addresses = checked_addresses(
            self._destination, self._private_networks, within_s=until - time.monotonic()
        )
        while True:
            address = addresses.pop(0)
            share = max(0.001, (until - time.monotonic()) / (len(addresses) + 1))
            try:
                stream = self._sockets.connect_tcp(
                    address, port, timeout=share, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not addresses:
                    raise
            else:
                return BoundedStream(stream, self)

    def left(self) -> float:
        """Seconds; raises ReadTimeout when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the whole is over")
        return left


class BoundedStream(httpcore.NetworkStream):
    """A connection whose every step ends with the time for the whole, and not with one of its own."""

    def __init__(self, stream: httpcore.NetworkStream, backend: CheckedBackend) -> None:
        self._stream, self._backend = stream, backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=self._backend.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITTEN_AT_ONCE):
            self._stream.write(buffer[start : start + WRITTEN_AT_ONCE], timeout=self._backend.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        within = min(timeout or CONNECT_S, self._backend.left())
        # A handshake is many reads, and each of them would have the whole time.
        connection = self._stream.get_extra_info("socket")
        ending = threading.Timer(within, _cut, [connection])
        ending.daemon = True
        ending.start()
        try:
            encrypted = self._stream.start_tls(ssl_context, server_hostname, within)
        finally:
            ending.cancel()
        return BoundedStream(encrypted, self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _cut(connection: Any) -> None:
    with suppress(OSError):
        connection.shutdown(SHUT_RDWR)


@cache
def tls_context() -> ssl.SSLContext:
    """The system's authorities; TLS 1.2 and newer. The first call reads them all, for a tenth of a second."""
    return ssl.create_default_context()


def _read_to_the_end(response: httpcore.Response) -> None:
    read = 0
    for chunk in response.iter_stream():
        read += len(chunk)
        if read > LARGEST_ANSWER:
            return


def _problem_with_status(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return "redirect" if 300 <= status < 400 else "status"


def _failed(error: Exception, started: float) -> Answer:
    return Answer(None, _name_of(error), _ms_since(started))


def _name_of(error: Exception) -> str:
    if isinstance(error, RefusedDestination):
        return error.code
    if isinstance(error, httpcore.TimeoutException):
        return "timeout"
    if isinstance(error, httpcore.ProtocolError):
        return "protocol"
    # The library hands on what the socket raised as the argument of its own error.
    return "tls" if any(isinstance(each, ssl.SSLError) for each in error.args) else "connection"


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds from now (RFC 9110, 10.2.3); None for none, or one that says nothing."""
    given = next((value for name, value in headers if name.lower() == b"retry-after"), b"").decode("latin-1")
    if given.isascii() and given.isdigit():
        return float(given[:9])
    try:
        at = parsedate_to_datetime(given)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None
