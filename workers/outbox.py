"""Draining the outbox: committed events become the activity log's next rows, then frames on the team's sockets."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog
from redis import Redis, RedisError

from models.database import transaction
from models.metrics import DRAIN_LAG, EVENTS_DRAINED
from models.operations import activity
from models.operations.activity import Projected
from models.queries.audiences import audiences_of
from models.settings import settings
from models.tracing import now_ns, tracing
from realtime.publisher import connect, publish_events
from workers.app import app

log = structlog.get_logger("workers.outbox")

BATCH = 500
AWAKE_KEY = "outbox:awake"
"""Set while a drain runs or is on its way, so that a web process need not send a message for each event (api/waker.py)."""
AWAKE_FOR_S = 2.0
POLL_S = 0.01
"""How often a lingering drain looks: the larger part of the delay from commit to socket."""
LINGER_S = 1.0
LONGEST_RUN_S = 20.0
"""A drain that is never idle makes way for other work and for a fresh process, and is woken again."""


@app.task(name="outbox.drain")
def drain() -> None:
    """Drains until the outbox is empty and stays so for a moment. Woken after a commit."""
    redis = connect(settings().redis_url)
    started = quiet_since = refreshed = time.monotonic()
    _stay_awake(redis)
    while (now := time.monotonic()) - quiet_since < LINGER_S and now - started < LONGEST_RUN_S:
        if now - refreshed > AWAKE_FOR_S / 4:
            _stay_awake(redis)
            refreshed = now
        if drain_batch(redis):
            quiet_since = time.monotonic()
        else:
            time.sleep(POLL_S)
    # Whoever commits after the key is gone sends a message; whoever committed before it is found by the last look.
    _ignoring_redis(lambda: redis.delete(AWAKE_KEY))
    drain_until_empty(redis)


@app.task(name="outbox.sweep")
def sweep() -> None:
    """Drains what no message announced: the broker was away, or a drain died."""
    drain_until_empty(connect(settings().redis_url))


def drain_until_empty(redis: Redis) -> int:
    """How many events it moved."""
    moved = 0
    while batch := drain_batch(redis):
        moved += batch
    return moved


def drain_batch(redis: Redis) -> int:
    """
    One batch: in one transaction from the outbox to the log, then out to the sockets; how many events it moved.

    A crash between the two leaves a gap that each web process sees and fills from the log (realtime/hub.py).
    """
    begun_ns = now_ns()
    with transaction() as session:
        projected = activity.project(session, limit=BATCH)
        audiences = audiences_of(session, projected)
    drained_ns = now_ns()
    if projected:
        EVENTS_DRAINED.inc(len(projected))
        DRAIN_LAG.observe((datetime.now(UTC) - min(event.created_at for event in projected)).total_seconds())
        publish_events(redis, projected, audiences)
        if tracing.on:
            _trace(projected, begun_ns, drained_ns)
    return len(projected)


def _trace(projected: Sequence[Projected], begun_ns: int, drained_ns: int) -> None:
    """Tells each request's trace that its events were drained and published, and by which run of the task."""
    published_ns, run = now_ns(), tracing.traceparent()
    for parent in {event.traceparent for event in projected if event.traceparent}:
        drained = tracing.past_span("drain", parent, begun_ns, drained_ns, links=[run] if run else [])
        if drained:
            tracing.past_span("publish", drained, drained_ns, published_ns)


def _stay_awake(redis: Redis) -> None:
    _ignoring_redis(lambda: redis.set(AWAKE_KEY, 1, px=int(AWAKE_FOR_S * 1000)))


def _ignoring_redis(call: Callable[[], object]) -> None:
    """The key only saves messages; without Redis the drain does its work all the same."""
    try:
        call()
    except RedisError as error:
        log.warning("redis away", error=repr(error))
