"""
How a connection to PostgreSQL waits in a process that runs on gevent.

psycopg sees that gevent has patched `select` and then waits by gevent's `poll`, which makes half a dozen objects and a timer a
wait; a request waits about six times. Here one watcher of the event loop waits, which costs less than half of it.
"""

from typing import Any, TypeVar

import gevent
from gevent import get_hub
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg.waiting import Ready, Wait

R = TypeVar("R")
READY = {each: Ready(each) for each in Wait}


def wait(gen: PQGen[R], fileno: int, interval: float = 0.0, timeout: float | None = None) -> R:
    """
    What the generator returns, once the socket gave it all that it waits for; raises what psycopg's own waiting would.

    It needs no `interval`: a signal or the end of the greenlet reaches it while it waits.
    """
    if timeout is None:
        return _wait(gen, fileno)
    with gevent.Timeout(timeout, _WaitTimeout("wait timeout expired")):
        return _wait(gen, fileno)


def _wait(gen: PQGen[R], fileno: int) -> R:
    hub: Any = get_hub()
    try:
        wanted = next(gen)
        while True:
            # Reading and writing have the same numbers for psycopg and the loop.
            watcher = hub.loop.io(fileno, int(wanted))
            try:
                hub.wait(watcher)
            finally:
                watcher.close()
            # Perhaps it can't do all that was wanted; then it finds nothing to read, or can't write, and waits again.
            wanted = gen.send(READY[wanted])
    except StopIteration as end:
        returned: R = end.value
        return returned
