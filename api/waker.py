"""
Waking the drain after a commit: one coalesced message, off the request's path, and none while a drain is awake.

A message that is lost, or a broker that is away, costs a second: beat sweeps the outbox.
"""

import threading
from functools import cache

import structlog
from celery import Celery
from redis import Redis

from models.settings import settings

log = structlog.get_logger("api.waker")

AWAKE_KEY = "outbox:awake"
"""The drain keeps it alive while it runs (workers/outbox.py)."""
AWAKE_FOR_MS = 2_000


class Waker:
    """One thread a process that sends the messages which the requests ask for."""

    def __init__(self, redis_url: str) -> None:
        self._asked = threading.Event()
        self._redis = Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1)
        self._celery = Celery("agenthq", config_source="celeryconfig", set_as_current=False)
        threading.Thread(target=self._run, name="drain waker", daemon=True).start()

    def wake(self) -> None:
        self._asked.set()

    def _run(self) -> None:
        while self._asked.wait():
            self._asked.clear()
            try:
                self._send()
            except Exception as error:  # noqa: BLE001  whatever it is, the sweep does it; this thread must go on
                log.warning("drain not woken", error=repr(error))

    def _send(self) -> None:
        if not self._redis.set(AWAKE_KEY, 1, nx=True, px=AWAKE_FOR_MS):
            return
        try:
            # By name: api does not import workers. Stale after a moment, since a sweep has done its work by then.
            self._celery.send_task("outbox.drain", queue="outbox", expires=5, retry=False, ignore_result=True)
        except Exception:
            self._redis.delete(AWAKE_KEY)
            raise


@cache
def _waker() -> Waker:
    return Waker(settings().redis_url)


def wake_drain() -> None:
    """Asks for a drain and returns at once."""
    _waker().wake()
