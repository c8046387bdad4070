"""
Bodies that are read from the database while they are sent.

A stream has a transaction and a connection of its own, as it outlives its request's. There are few of them in a process, so
that slow readers don't take the connections that every other request needs.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import cache
from typing import Self

from models.errors import Unavailable
from models.settings import settings

SHARE_OF_POOL = 4
"""One connection of so many is for streams, and one at least."""
AT_ONCE = 4
RETRY_AFTER_S = 10
LONGEST_S = 1800.0
"""A reader that takes longer than this is cut off: the database keeps what was deleted for as long as a stream can see it."""


@cache
def _places() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(max(1, min(AT_ONCE, settings().database_pool_size // SHARE_OF_POOL)))


class Stream:
    """
    The bytes that `make` yields, as a response's body. It holds one of the process's few places from its making until
    `close`, or until nobody refers to it any more; Unavailable if there is none.

    What `make` raises after its first bytes cuts the connection: the client sees that the body is not whole.
    """

    def __init__(self, make: Callable[[], Generator[bytes, None, None]]) -> None:
        self._parts = self._run(make)
        next(self._parts)
        self._first: bytes | None = None

    def begin(self) -> None:
        """Goes as far as the first bytes, so that what fails at once gets a proper answer."""
        self._first = next(self._parts, None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        part, self._first = self._first, None
        return next(self._parts) if part is None else part

    def close(self) -> None:
        self._parts.close()

    @staticmethod
    def _run(make: Callable[[], Generator[bytes, None, None]]) -> Generator[bytes, None, None]:
        places, started = _places(), time.monotonic()
        if not places.acquire(blocking=False):
            raise Unavailable(
                "This server is streaming as much as it can; try again shortly.", retry_after=RETRY_AFTER_S
            )
        try:
            yield b""  # the place is taken
            with closing(make()) as parts:
                for part in parts:
                    if time.monotonic() - started > LONGEST_S:
                        raise TimeoutError("The stream took too long.")
                    if part:
                        yield part
        finally:
            places.release()
