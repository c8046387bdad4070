"""Publishing: what goes out through Redis to the hub of every web process."""

import socket
from collections.abc import Mapping, Sequence
from functools import cache
from uuid import UUID

import structlog
from redis import BlockingConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from models.metrics import EVENTS_UNPUBLISHED
from models.operations.activity import Projected
from realtime import messages
from realtime.channels import team_channel
from realtime.messages import Envelope

log = structlog.get_logger("realtime.publisher")

# A host that vanishes without a word is noticed after 5 + 3 · 2 seconds, not after the system's two hours.
KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}


@cache
def connect(redis_url: str) -> Redis:
    """
    This process's client, made on first use. It answers or fails within seconds, and tries once more only when its
    connection turns out to be dead: a publication that timed out may have arrived.
    """
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=50,
        timeout=2,
        socket_connect_timeout=1,
        socket_timeout=2,
        socket_keepalive=True,
        socket_keepalive_options=KEEPALIVE,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return Redis(connection_pool=pool)


def publish_events(
    redis: Redis, projected: Sequence[Projected], audiences: Mapping[UUID, frozenset[UUID]]
) -> None:
    """
    Shows drained events to the sockets, in one round trip; those of a workspace that `audiences` names to its audience
    alone. Never raises for Redis: what it loses, each hub reads from the log.
    """
    pipeline = redis.pipeline(transaction=False)
    for row in projected:
        audience = audiences.get(row.workspace_id) if row.workspace_id else None
        envelope = Envelope(messages.event(row), row.seq, audience=audience)
        pipeline.publish(team_channel(row.team_id), envelope.seal())
    try:
        pipeline.execute()
    except RedisError as error:
        EVENTS_UNPUBLISHED.inc(len(projected))
        log.warning("events not published", events=len(projected), error=repr(error))


def publish_message(redis: Redis, team_id: UUID, payload: bytes, *, sender: UUID) -> None:
    """Shows a client's message to the team's sockets in every process; raises RedisError."""
    redis.publish(team_channel(team_id), Envelope(payload, sender=sender).seal())
