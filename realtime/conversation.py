"""What one client says to its team, and what it is answered."""

import threading
from collections import deque

import structlog
from redis import RedisError

from models.errors import DomainError, PermissionDenied, Unavailable
from models.settings import settings
from realtime import channels, messages, refusals
from realtime.hub import Hub, Subscriber
from realtime.limits import TokenBucket
from realtime.messages import ClientMessage, CloseCode
from realtime.publisher import connect, publish_message
from realtime.transport import Closing

log = structlog.get_logger("realtime.conversation")

MESSAGES_PER_S, MESSAGES_AT_ONCE = 50.0, 100.0
HELLO_COST = 20
"""A hello may read a thousand rows, so it counts as so many messages."""
MOST_UNANSWERED = 200
"""Messages that wait while one is being answered; more is too many, however slowly they come."""


class Conversation:
    """
    Answers a connection's messages one after the other. What may wait (a replay, a publication) is done by a thread that
    lives as long as there is something to do, so an idle connection has none.
    """

    __slots__ = ("_allowance", "_connection", "_hub", "_subscriber", "_unanswered")

    def __init__(self, hub: Hub, subscriber: Subscriber) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._connection = subscriber.connection
        self._allowance = TokenBucket(MESSAGES_PER_S, MESSAGES_AT_ONCE)
        self._unanswered: deque[ClientMessage] = deque()

    def hear(self, received: str | bytes) -> None:
        """Takes a message; called by the reactor, so it does not block. Raises Closing for too many of them."""
        self._spend(1)
        try:
            sent = messages.parse(received)
        except DomainError as refusal:
            self._connection.say(messages.error(refusal))
            return
        if sent.type == "ping" and not self._unanswered:
            self._connection.say(messages.pong(sent.data))
            return
        if len(self._unanswered) >= MOST_UNANSWERED:
            raise Closing(CloseCode.TOO_MANY_MESSAGES, "Wait for the answers.")
        self._unanswered.append(sent)
        if len(self._unanswered) == 1:
            threading.Thread(
                target=self._answer_all, name=f"socket-{self._connection.id}", daemon=True
            ).start()

    def end(self) -> None:
        """The connection is gone."""
        self._hub.leave(self._subscriber)

    def _answer_all(self) -> None:
        while self._unanswered and not self._connection.closing:
            try:
                self._answer(self._unanswered[0])
            except DomainError as refusal:
                self._connection.say(messages.error(refusal))
            except Closing as closing:
                self._connection.close(closing.code, closing.reason)
            except Exception:
                log.exception("socket failed", connection_id=str(self._connection.id))
                self._connection.close(CloseCode.INTERNAL_ERROR)
            self._unanswered.popleft()

    def _answer(self, sent: ClientMessage) -> None:
        match sent.type:
            case "hello":
                self._hello(messages.last_seq(sent.data))
            case "ping":
                self._connection.say(messages.pong(sent.data))
            case "presence":
                self._hub.set_state(self._subscriber, messages.state(sent.data))
            case _:
                self._publish(sent)

    def _hello(self, last_seq: int | None) -> None:
        self._spend(HELLO_COST - 1)
        try:
            self._hub.welcome(self._subscriber, last_seq)
        except Unavailable as error:  # half replayed, it can't go on without a gap
            raise Closing(CloseCode.TRY_AGAIN_LATER, error.detail) from error

    def _publish(self, sent: ClientMessage) -> None:
        subscriber = self._subscriber
        if not subscriber.may_publish:
            refusals.note(subscriber.by, channels.PUBLISH.value, method="PUBLISH")
            raise PermissionDenied(channels.PUBLISH.value)
        if not self._hub.allows_message(subscriber):
            raise messages.TooBusy("The team's clients send too many messages; wait and repeat.")
        payload = messages.message(subscriber.user_id, subscriber.by.agent_id, sent)
        try:
            publish_message(
                connect(settings().redis_url), subscriber.entry.team_id, payload, sender=self._connection.id
            )
        except RedisError as error:
            raise Unavailable("The message was not sent; events still arrive. Try again shortly.") from error

    def _spend(self, cost: float) -> None:
        if not self._allowance.take(cost):
            raise Closing(CloseCode.TOO_MANY_MESSAGES, f"At most {MESSAGES_PER_S:.0f} messages a second.")
