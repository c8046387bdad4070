"""
The hub of a web process: one Redis subscription, to the teams that have sockets here, fanned out to these sockets.

Redis only makes it fast; the activity log makes it complete. The hub knows each team's last delivered `seq`. When the
next one is not the next number, after each (re)subscription, and whenever the log's head turns out to be further than
what came, it reads the missing rows from the log. So nothing is lost while Redis is away, when Redis drops a message,
or when a worker dies between its commit and its publication.

Two threads (greenlets under gevent), started with the first socket and so after the fork: one follows Redis and never
touches the database; the other fills gaps, sends heartbeats and closes the sockets of those who may not listen any more.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple
from uuid import UUID

import structlog
from redis import Redis

from models.access.entry import Access
from models.database import transaction
from models.errors import Unavailable
from models.queries import activity
from models.queries.audiences import audiences_of
from models.settings import settings
from realtime import messages
from realtime.channels import Entry, Position, standing
from realtime.connection import Connection
from realtime.frames import EventFrame
from realtime.messages import NO_SENDER, CloseCode, Envelope
from realtime.publisher import connect
from realtime.subscription import Subscription

log = structlog.get_logger("realtime.hub")

MOST_REPLAYED = 1000
"""Events; who is further behind refetches over REST."""
PAGE = 200
"""Rows of the log read at once."""
CHECK_S = 0.5
"""How often rights and heads are checked: a revoked member's socket is closed within a second."""
TICK_S = 0.25
"""How late a heartbeat may be."""
SUBSCRIPTION_WAIT_S = 1.0
CLOSING_WAIT_S = 2.0


@dataclass(eq=False, slots=True)
class Subscriber:
    """A socket in its team. What changes, changes under the hub's lock, or by the socket's own thread while not live."""

    connection: Connection
    entry: Entry
    user_id: UUID
    """The person, or for whom the API key or the agent acts."""
    permissions: frozenset[str]
    echo: bool
    heartbeat_s: float
    cursor: int
    """The last event that it was shown, or that it came too late for."""
    silent_until: int
    """Up to this `seq`, events were committed before it came; it is not shown them unless it asks."""
    live: bool = True
    """Otherwise it is catching up from the log, and what comes meanwhile will be found there."""
    next_heartbeat: float | None = None
    """None before hello."""

    def show(self, seq: int, frame: bytes) -> None:
        if self.live and seq > self.cursor:
            self.cursor = seq
            if seq > self.silent_until:
                self.connection.offer(frame)

    def wants_from(self, sender: UUID) -> bool:
        return self.echo or sender != self.connection.id


@dataclass(eq=False, slots=True)
class Channel:
    """A team that has sockets here."""

    head: int
    """The last event delivered here; each socket has been shown everything up to it, or is catching up."""
    subscribers: set[Subscriber] = field(default_factory=set)
    subscribed: threading.Event = field(default_factory=threading.Event)
    """Redis has confirmed the subscription."""

    def deliver(self, event: EventFrame) -> None:
        seq, frame, _, audience = event
        self.head = seq
        if audience is None:  # nearly always, and then one call a socket
            for subscriber in self.subscribers:
                subscriber.show(seq, frame)
        else:
            for subscriber in self.subscribers:
                subscriber.show(seq, event.seen_by(subscriber.user_id))


class Hub:
    def __init__(self, redis: Redis) -> None:
        self._lock = threading.Lock()  # nothing waits or does I/O under it
        self._channels: dict[UUID, Channel] = {}
        self._behind: dict[UUID, None] = {}  # a set that keeps its order, so that every team has its turn
        self._gap_seen = threading.Event()
        self._subscription = Subscription(redis, self)
        self._started = False

    def join(
        self, connection: Connection, access: Access, position: Position, *, echo: bool, heartbeat_s: float
    ) -> Subscriber:
        """Shows the connection its team's events and messages from now on; returns once Redis knows, if Redis is there."""
        with self._lock:
            channel = self._channels.get(access.team_id) or Channel(head=position.head)
            self._channels[access.team_id] = channel
            subscriber = Subscriber(
                connection=connection,
                entry=Entry.of(access),
                user_id=access.user_id,
                permissions=access.permissions,
                echo=echo,
                heartbeat_s=heartbeat_s,
                cursor=max(channel.head, position.head),
                silent_until=position.committed,
            )
            channel.subscribers.add(subscriber)
            self._start()
        if not channel.subscribed.is_set() and self._subscription.refresh():
            channel.subscribed.wait(SUBSCRIPTION_WAIT_S)
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        team_id = subscriber.entry.team_id
        with self._lock:
            channel = self._channels[team_id]
            channel.subscribers.discard(subscriber)
            if not channel.subscribers:
                del self._channels[team_id]
                self._behind.pop(team_id, None)

    def welcome(self, subscriber: Subscriber, last_seq: int | None) -> None:
        """
        Answers hello: `welcome`, then the events after `last_seq` in order, without gap or repeat into the live ones.
        Who is too far behind, or ahead of the log, gets `reset` in their place.

        Raises Unavailable if the log can't be read, and Closing if the connection ends meanwhile.
        """
        with self._lock:
            subscriber.silent_until = 0
            subscriber.next_heartbeat = time.monotonic() + subscriber.heartbeat_s
            if last_seq is None:
                self._say_welcome(subscriber, subscriber.cursor)
                return
            subscriber.live = False
        head, complete = self._replayable(subscriber.entry.team_id, last_seq)
        self._say_welcome(subscriber, head)
        if not complete:
            subscriber.connection.say(messages.reset(head))
        subscriber.cursor = last_seq if complete else head
        self._catch_up(subscriber)

    def close_all(self) -> None:
        """Tells every client that the server goes away; returns once they are gone, or after CLOSING_WAIT_S."""
        for subscriber in self._subscribers():
            subscriber.connection.close(CloseCode.GOING_AWAY, "The server goes away; connect again.")
        deadline = time.monotonic() + CLOSING_WAIT_S
        while (left := self._subscribers()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for subscriber in left:
            subscriber.connection.abort()

    def team_ids(self) -> set[UUID]:
        """The teams that have sockets here."""
        with self._lock:
            return set(self._channels)

    def unsubscribed_team_ids(self) -> set[UUID]:
        """Those of them that wait for Redis."""
        with self._lock:
            return {team for team, channel in self._channels.items() if not channel.subscribed.is_set()}

    def receive(self, team_id: UUID, sealed: bytes) -> None:
        """Fans out what Redis brought; raises ValueError for what no publisher of ours sent."""
        payload, seq, sender, audience = Envelope.unseal(sealed)
        event = EventFrame.of(payload, seq, audience)
        with self._lock:
            channel = self._channels.get(team_id)
            if channel is None:
                return
            if not seq:
                self._fan_out(channel, event.frame, sender)
            elif seq == channel.head + 1:
                channel.deliver(event)
            elif seq > channel.head:
                self._fall_behind([team_id])

    def subscribed(self, team_ids: Iterable[UUID]) -> None:
        """Redis brings these teams from now on; what it didn't until now is in the log."""
        with self._lock:
            for team_id in team_ids:
                if channel := self._channels.get(team_id):
                    channel.subscribed.set()
                    self._fall_behind([team_id])

    def lost_redis(self) -> None:
        """Redis brings nothing until the teams are subscribed to again."""
        with self._lock:
            for channel in self._channels.values():
                channel.subscribed.clear()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            threading.Thread(target=self._subscription.run, name="hub-redis", daemon=True).start()
            threading.Thread(target=self._watch, name="hub-watch", daemon=True).start()

    def _fan_out(self, channel: Channel, frame: bytes, sender: UUID) -> None:
        for subscriber in channel.subscribers:
            if sender == NO_SENDER or subscriber.wants_from(sender):
                subscriber.connection.offer(frame)

    def _fall_behind(self, team_ids: Iterable[UUID]) -> None:
        self._behind.update(dict.fromkeys(team_ids))
        self._gap_seen.set()

    def _subscribers(self) -> list[Subscriber]:
        with self._lock:
            return [subscriber for channel in self._channels.values() for subscriber in channel.subscribers]

    def _say_welcome(self, subscriber: Subscriber, seq: int) -> None:
        connection = subscriber.connection
        connection.say(
            messages.welcome(seq=seq, connection_id=connection.id, heartbeat_s=subscriber.heartbeat_s)
        )

    def _replayable(self, team_id: UUID, last_seq: int) -> tuple[int, bool]:
        """The log's head, and whether all that follows `last_seq` is there and not too much."""
        with transaction() as session:
            head = activity.heads(session, [team_id]).get(team_id, 0)
            if not 0 < head - last_seq <= MOST_REPLAYED:
                return head, head == last_seq
            first = activity.after(session, team_id, last_seq, 1)
        return head, bool(first) and first[0].seq == last_seq + 1

    def _catch_up(self, subscriber: Subscriber) -> None:
        """Shows the subscriber the log from its cursor on, at its own pace, until it is where the others are."""
        while not subscriber.live:
            events = _read(subscriber.entry.team_id, subscriber.cursor)
            for event in events:
                subscriber.connection.offer_patiently(event.seen_by(subscriber.user_id))
                subscriber.cursor = event.seq
            if len(events) < PAGE:
                with self._lock:
                    subscriber.live = subscriber.cursor >= self._channels[subscriber.entry.team_id].head

    def _watch(self) -> None:
        next_check, away = 0.0, False
        while True:
            self._gap_seen.wait(TICK_S)
            self._gap_seen.clear()
            try:
                self._beat()
                if time.monotonic() >= next_check:
                    next_check = time.monotonic() + CHECK_S
                    self._check()
                self._heal(until=next_check)
                away = False
            except Unavailable as error:
                if not away:
                    log.warning("database away; sockets stay as they are", error=error.detail)
                away = True
                time.sleep(TICK_S)
            except Exception:
                log.exception("watch failed")
                time.sleep(TICK_S)

    def _beat(self) -> None:
        now = time.monotonic()
        for subscriber in self._subscribers():
            with self._lock:  # the number that a heartbeat tells is of an event already queued
                if subscriber.next_heartbeat and subscriber.next_heartbeat <= now and subscriber.live:
                    subscriber.next_heartbeat = now + subscriber.heartbeat_s
                    subscriber.connection.say(messages.heartbeat(subscriber.cursor))

    def _check(self) -> None:
        """One look at the heads of the teams here and one at the rights of everyone here."""
        subscribers = self._subscribers()
        if not subscribers:
            return
        with transaction() as session:
            heads = activity.heads(session, list(self.team_ids()))
            permissions = standing(session, {subscriber.entry for subscriber in subscribers})
        for subscriber in subscribers:
            if (allowed := permissions.get(subscriber.entry)) is None:
                subscriber.connection.close(CloseCode.ACCESS_REVOKED, "You may not read this team any more.")
            else:
                subscriber.permissions = allowed
        with self._lock:
            channels = self._channels
            self._fall_behind(
                [team for team, head in heads.items() if team in channels and channels[team].head < head]
            )

    def _heal(self, until: float) -> None:
        """Reads what the teams that are behind have missed, a page a team in turn, until there is no more or it is time."""
        while time.monotonic() < until and (behind := self._next_behind()):
            try:
                self._deliver_missed(behind.team_id, _read(behind.team_id, behind.head))
            except BaseException:
                with self._lock:
                    self._fall_behind([behind.team_id])
                raise

    def _next_behind(self) -> "_Behind | None":
        with self._lock:
            for team_id in self._behind:
                del self._behind[team_id]
                return _Behind(team_id, self._channels[team_id].head)
        return None

    def _deliver_missed(self, team_id: UUID, events: list[EventFrame]) -> None:
        with self._lock:
            channel = self._channels.get(team_id)
            if channel is None:
                return
            for event in events:
                if event.seq > channel.head:
                    channel.deliver(event)
            if len(events) == PAGE:
                self._fall_behind([team_id])


class _Behind(NamedTuple):
    team_id: UUID
    head: int


def _read(team_id: UUID, seq: int) -> list[EventFrame]:
    """The next page of the team's log, each row for whom it is now: the present audience decides, not that of its day."""
    with transaction() as session:
        rows = activity.after(session, team_id, seq, PAGE)
        audiences = audiences_of(session, rows)
    return [
        EventFrame.of(
            messages.event(row), row.seq, audiences.get(row.workspace_id) if row.workspace_id else None
        )
        for row in rows
    ]


@cache
def local_hub() -> Hub:
    """This process's hub, made on first use."""
    return Hub(connect(settings().redis_url))


def close_all() -> None:
    """Closes every socket of this process with 1001; called when it has to stop."""
    if local_hub.cache_info().currsize:
        local_hub().close_all()
