"""A process's subscription: one Redis connection, to the teams that the hub has sockets of."""

import random
import time
from collections.abc import Iterable
from typing import Any, Protocol
from uuid import UUID, uuid4

import structlog
from redis import Redis, RedisError
from redis.client import PubSub

from realtime.channels import team_channel, team_of

log = structlog.get_logger("realtime.subscription")

MOST_AT_ONCE = 200
"""Messages taken from Redis before the sockets are shown them."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
# Its own, so that processes forked from one don't all come back at the same moment.
JITTER = random.SystemRandom()


class Receiver(Protocol):
    """The hub, as far as the subscription knows it."""

    def team_ids(self) -> set[UUID]: ...
    def unsubscribed_team_ids(self) -> set[UUID]: ...
    def receive(self, team_id: UUID, sealed: bytes) -> None: ...
    def flush(self) -> None: ...
    def subscribed(self, team_ids: Iterable[UUID]) -> None: ...
    def lost_redis(self) -> None: ...


class Subscription:
    """The process's subscription. Only its own thread touches the Redis connection; others ask it to `refresh`."""

    def __init__(self, redis: Redis, receiver: Receiver) -> None:
        self._redis = redis
        self._receiver = receiver
        self._own_channel = f"process:{uuid4()}".encode()
        self._requested: set[UUID] = set()
        self._confirmed: set[UUID] = set()
        self._pause = SHORTEST_PAUSE_S

    def refresh(self) -> bool:
        """Has the subscriptions compared with the receiver's teams at once; False while Redis is away."""
        try:
            self._redis.publish(self._own_channel, b"")
        except RedisError:
            return False
        return True

    def run(self) -> None:
        """Follows Redis for ever, and comes back to it with growing pauses."""
        while True:
            try:
                with self._redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]
                    self._follow(pubsub)
            except Exception as error:  # noqa: BLE001  whatever it is, the process must listen again
                if self._pause == SHORTEST_PAUSE_S:
                    log.warning("subscription lost; events come from the log", error=repr(error))
            self._receiver.lost_redis()
            time.sleep(self._pause * JITTER.uniform(0.5, 1))
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)

    def _follow(self, pubsub: PubSub) -> None:
        self._requested, self._confirmed = set(), set()
        pubsub.subscribe(self._own_channel)
        taken = 0  # since the sockets were last shown what came
        while True:
            received = pubsub.get_message(timeout=0 if taken else 1)
            if (received is None and not taken) or (received and received["channel"] == self._own_channel):
                self._subscribe(pubsub)
            elif received:
                self._take(received)
                taken += 1
            if taken and (received is None or taken == MOST_AT_ONCE):
                self._receiver.flush()
                taken = 0
                time.sleep(0)  # there may be no end to it, and others want their turn

    def _subscribe(self, pubsub: PubSub) -> None:
        """Makes the subscriptions those of the receiver's teams."""
        self._pause = SHORTEST_PAUSE_S
        wanted = self._receiver.team_ids()
        if new := wanted - self._requested:
            pubsub.subscribe(*map(team_channel, new))
        if gone := self._requested - wanted:
            pubsub.unsubscribe(*map(team_channel, gone))  # type: ignore[no-untyped-call]
        self._requested = wanted
        self._confirmed &= wanted
        self._receiver.subscribed(self._confirmed & self._receiver.unsubscribed_team_ids())

    def _take(self, received: dict[str, Any]) -> None:
        """One message or confirmation; whatever is wrong with it, the next one is read."""
        try:
            team_id = team_of(received["channel"])
            if received["type"] == "message":
                self._receiver.receive(team_id, received["data"])
            elif received["type"] == "subscribe":
                self._confirmed.add(team_id)
                self._receiver.subscribed([team_id])
        except Exception:
            log.exception("message dropped", channel=received["channel"])
