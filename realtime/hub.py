"""
The hub of a web process: one Redis subscription, to the teams that have sockets here, fanned out to these sockets.

Redis only makes it fast; the activity log makes it complete. The hub knows each team's last delivered `seq`. When the
next one is not the next number, after each (re)subscription, and whenever the log's head turns out to be further than
what came, it reads the missing rows from the log. So nothing is lost while Redis is away, when Redis drops a message,
or when a worker dies between its commit and its publication.

Two threads (greenlets under gevent), started with the first socket and so after the fork: one follows Redis and never
touches the database; the other fills gaps, sends heartbeats and closes the sockets of those who may not listen any more.
Nobody blocks under the lock, which is the reactor's: to write to a socket never waits (realtime/connection.py).
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from heapq import heappop, heappush
from typing import NamedTuple
from uuid import UUID

import structlog
from redis import Redis

from models.access.actor import Named
from models.access.entry import Access, Position
from models.database import single_statements, transaction
from models.errors import Unavailable
from models.metrics import EVENTS_REREAD, FRAMES
from models.queries import activity
from models.queries.audiences import audiences_of
from models.settings import settings
from realtime import messages
from realtime.channels import PUBLISH, Entry, standing
from realtime.connection import Connection, Reactor, local_reactor
from realtime.frames import EventFrame
from realtime.limits import TokenBucket
from realtime.messages import NO_SENDER, PEOPLE, CloseCode, Envelope
from realtime.presence import ANNOUNCED, MOST_ANNOUNCED, Change, Presence
from realtime.publisher import connect
from realtime.subscription import Subscription
from realtime.transport import text_frame

log = structlog.get_logger("realtime.hub")

MOST_REPLAYED = 1000
"""Events; who is further behind refetches over REST."""
PAGE = 200
"""Rows of the log read at once."""
CHECK_S = 0.5
"""How often rights and heads are checked: a revoked member's socket is closed within a second."""
CHECKED_AT_ONCE = 500
"""Rights read in one statement, so that thousands of sockets are no long pause for each other."""
TICK_S = 0.05
"""How late a heartbeat may be, and what rights are checked in."""
SUBSCRIPTION_WAIT_S = 1.0
CLOSING_WAIT_S = 2.0
"""How long saying goodbye to everyone is spread over when the server stops, and how long they get to answer."""
TEAM_MESSAGES_PER_S, TEAM_MESSAGES_AT_ONCE = 500.0, 1_000.0


@dataclass(eq=False, slots=True)
class Subscriber:
    """A socket in its team. What changes, changes under the hub's lock, or by the thread that catches up while not live."""

    connection: Connection
    entry: Entry
    by: Named
    """The person and the API key or the agent that acts for them, if one does."""
    may_publish: bool
    echo: bool
    heartbeat_s: float
    cursor: int
    """The last event that it was shown, or that it came too late for."""
    silent_until: int
    """Up to this `seq`, events were committed before it came; it is not shown them unless it asks."""
    live: bool = True
    """Otherwise it is catching up from the log, and what comes meanwhile will be found there."""
    greeted_at: int | None = None
    """The version of the presence that its welcome told; None before hello, and then it is told of no presence."""

    @property
    def user_id(self) -> UUID:
        return self.by.user_id

    def show(self, seq: int, frame: bytes) -> None:
        if self.live and seq > self.cursor:
            self.cursor = seq
            if seq > self.silent_until:
                self.connection.push(frame)

    def wants_from(self, sender: UUID) -> bool:
        return self.echo or sender != self.connection.id


@dataclass(order=True, slots=True)
class Beat:
    """When a subscriber's next heartbeat is due."""

    due: float
    subscriber: Subscriber = field(compare=False)


class Shown(NamedTuple):
    """What goes to a team's sockets: an event, or a client's message (without a number, and from a connection)."""

    event: EventFrame
    sender: UUID = NO_SENDER


@dataclass(eq=False, slots=True)
class Channel:
    """A team that has sockets here."""

    head: int
    """The last event taken here; each socket has been or is about to be shown everything up to it, or is catching up."""
    subscribers: set[Subscriber] = field(default_factory=set)
    subscribed: threading.Event = field(default_factory=threading.Event)
    """Redis has confirmed the subscription."""
    requested: bool = False
    """The subscription was asked for, since Redis was last lost."""
    gathered: list[Shown] = field(default_factory=list)
    """What came since the last flush."""
    allowance: TokenBucket = field(
        default_factory=lambda: TokenBucket(TEAM_MESSAGES_PER_S, TEAM_MESSAGES_AT_ONCE)
    )
    """Of messages that clients here send to the team."""

    def take(self, event: EventFrame) -> None:
        self.head = event.seq
        self.gathered.append(Shown(event))

    def flush(self) -> None:
        """
        Shows all that gathered: in one write to each socket that is where the others are, which is nearly all of them.
        """
        shown, self.gathered = self.gathered, []
        if not shown:
            return
        seqs = [each.event.seq for each in shown if each.event.seq]
        plain = all(each.event.audience is None and each.sender == NO_SENDER for each in shown)
        FRAMES.inc(len(shown) * len(self.subscribers))
        joined = b"".join(each.event.frame for each in shown)
        before, last = (seqs[0] - 1, seqs[-1]) if seqs else (0, 0)
        for subscriber in list(self.subscribers):
            if (
                plain
                and subscriber.cursor == before
                and subscriber.live
                and before >= subscriber.silent_until
            ):
                subscriber.cursor = last
                subscriber.connection.push(joined)
            else:
                self._show_each(subscriber, shown)

    @staticmethod
    def _show_each(subscriber: Subscriber, shown: Sequence[Shown]) -> None:
        for event, sender in shown:
            if event.seq:
                subscriber.show(event.seq, event.seen_by(subscriber.user_id))
            elif subscriber.wants_from(sender):
                subscriber.connection.push(event.frame)


class Hub:
    def __init__(self, redis: Redis, reactor: Reactor) -> None:
        self._lock = reactor.lock  # nothing waits under it
        self._channels: dict[UUID, Channel] = {}
        self._gathering: set[Channel] = set()
        self._behind: dict[UUID, None] = {}  # a set that keeps its order, so that every team has its turn
        self._beats: list[Beat] = []
        self._unchecked: deque[Subscriber] = deque()
        self._gap_seen = threading.Event()
        self._subscription = Subscription(redis, self)
        self.presence = Presence(redis, reactor.lock, self._announce)
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
                by=access.named,
                may_publish=PUBLISH in access.permissions,
                echo=echo,
                heartbeat_s=heartbeat_s,
                cursor=max(channel.head, position.head),
                silent_until=position.committed,
            )
            channel.subscribers.add(subscriber)
            self.presence.join(access.team_id, connection.id, access.user_id)
            self._start()
        if not channel.subscribed.is_set():
            channel.requested = channel.requested or self._subscription.refresh()
            if channel.requested:
                channel.subscribed.wait(SUBSCRIPTION_WAIT_S)
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        team_id = subscriber.entry.team_id
        with self._lock:
            channel = self._channels[team_id]
            channel.subscribers.discard(subscriber)
            self.presence.leave(team_id, subscriber.connection.id, subscriber.user_id)
            if not channel.subscribers:
                del self._channels[team_id]
                self._behind.pop(team_id, None)
                self._gathering.discard(channel)

    def connections(self, team_id: UUID) -> int:
        """How many sockets of the team are here."""
        with self._lock:
            channel = self._channels.get(team_id)
            return len(channel.subscribers) if channel else 0

    def set_state(self, subscriber: Subscriber, state: str) -> None:
        """What the person is from now on, as far as this connection knows."""
        with self._lock:
            if self._is_here(subscriber):
                team_id, connection = subscriber.entry.team_id, subscriber.connection
                self.presence.join(team_id, connection.id, subscriber.user_id, state)

    def allows_message(self, subscriber: Subscriber) -> bool:
        """Whether the team's clients here may send one more message now."""
        with self._lock:
            channel = self._channels.get(subscriber.entry.team_id)
            return channel is not None and channel.allowance.take()

    def welcome(self, subscriber: Subscriber, last_seq: int | None) -> None:
        """
        Answers hello: `welcome`, then the events after `last_seq` in order, without gap or repeat into the live ones.
        Who is too far behind, or ahead of the log, gets `reset` in their place. Blocks while it replays.

        Raises Unavailable if the log can't be read, and Closing if the connection ends meanwhile.
        """
        with self._lock:
            self._flush()
            if subscriber.greeted_at is None:
                heappush(self._beats, Beat(time.monotonic() + subscriber.heartbeat_s, subscriber))
            subscriber.silent_until = 0
            if last_seq is None:
                self._say_welcome(subscriber, subscriber.cursor)
                return
            subscriber.live = False
        head, complete = self._replayable(subscriber.entry.team_id, last_seq)
        with self._lock:
            self._say_welcome(subscriber, head)
            if not complete:
                subscriber.connection.say(messages.reset(head))
            subscriber.cursor = last_seq if complete else head
        self._catch_up(subscriber)

    def close_all(self) -> None:
        """
        Tells every client that the server goes away, spread over CLOSING_WAIT_S so that they don't all come back at one
        moment; returns once they are gone, or after as long again.
        """
        leaving = self._subscribers()
        batch = max(50, len(leaving) // 40)
        for first in range(0, len(leaving), batch):
            for subscriber in leaving[first : first + batch]:
                subscriber.connection.close(CloseCode.GOING_AWAY, "The server goes away; connect again.")
            if first + batch < len(leaving):
                time.sleep(CLOSING_WAIT_S / 40)
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
        """Takes what Redis brought, for the next `flush`; raises ValueError for what no publisher of ours sent."""
        payload, seq, sender, audience = Envelope.unseal(sealed)
        if sender == PEOPLE:
            self.presence.receive(team_id, payload)
            return
        event = EventFrame.of(payload, seq, audience)
        with self._lock:
            channel = self._channels.get(team_id)
            if channel is None:
                return
            if not seq:
                channel.gathered.append(Shown(event, sender))
            elif seq == channel.head + 1:
                channel.take(event)
            elif seq > channel.head:
                self._fall_behind([team_id])
                return
            self._gathering.add(channel)

    def flush(self) -> None:
        """
        Shows what was taken. Called when Redis has no more to bring at the moment: at once when little happens, and what
        comes while a large team is being written to goes out together, in one write a socket.
        """
        with self._lock:
            self._flush()

    def subscribed(self, team_ids: Iterable[UUID]) -> None:
        """Redis brings these teams from now on; what it didn't until now is in the log."""
        with self._lock:
            for team_id in team_ids:
                if channel := self._channels.get(team_id):
                    channel.subscribed.set()
                    self._fall_behind([team_id])
        self.presence.compare_soon(team_ids)

    def lost_redis(self) -> None:
        """Redis brings nothing until the teams are subscribed to again."""
        with self._lock:
            for channel in self._channels.values():
                channel.subscribed.clear()
                channel.requested = False

    def _start(self) -> None:
        if not self._started:
            self._started = True
            threading.Thread(target=self._subscription.run, name="hub-redis", daemon=True).start()
            threading.Thread(target=self._watch, name="hub-watch", daemon=True).start()

    def _flush(self) -> None:
        while self._gathering:
            self._gathering.pop().flush()

    def _fall_behind(self, team_ids: Iterable[UUID]) -> None:
        self._behind.update(dict.fromkeys(team_ids))
        self._gap_seen.set()

    def _subscribers(self) -> list[Subscriber]:
        with self._lock:
            return [subscriber for channel in self._channels.values() for subscriber in channel.subscribers]

    def _is_here(self, subscriber: Subscriber) -> bool:
        channel = self._channels.get(subscriber.entry.team_id)
        return channel is not None and subscriber in channel.subscribers

    def _say_welcome(self, subscriber: Subscriber, seq: int) -> None:
        connection = subscriber.connection
        if not self._is_here(subscriber):
            return
        subscriber.greeted_at, people = self.presence.snapshot(subscriber.entry.team_id)
        connection.say(
            messages.welcome(
                seq=seq,
                connection_id=connection.id,
                presence=people[:MOST_ANNOUNCED],
                heartbeat_s=subscriber.heartbeat_s,
            )
        )

    def _announce(self, team_id: UUID, changes: Sequence[Change]) -> None:
        """
        Tells those who said hello what became of whom; called by the presence, under the lock. Whose welcome told more
        than had been announced by then hears what is new to them.
        """
        joined = _presence_frames(changes)
        begun = min(change.steps[1].version for change in changes)
        for subscriber in list(self._channels[team_id].subscribers):
            greeted_at = subscriber.greeted_at
            if greeted_at is None:
                continue
            if frames := joined if greeted_at < begun else _presence_frames(changes, greeted_at):
                subscriber.connection.push(frames)

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
                    if not self._is_here(subscriber):
                        return
                    self._flush()  # or what has gathered would come twice, or never
                    channel = self._channels[subscriber.entry.team_id]
                    subscriber.live = subscriber.cursor >= channel.head

    def _watch(self) -> None:
        next_look, away = 0.0, False
        while True:
            self._gap_seen.wait(TICK_S)
            self._gap_seen.clear()
            try:
                self._beat()
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + CHECK_S
                    self._look_at_heads()
                    self._unchecked.extend(self._subscribers())
                    share = max(CHECKED_AT_ONCE, len(self._unchecked) // 8)
                self._check(share)
                self._heal(until=next_look)
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
        """Heartbeats that are due; one is encoded for all of a team that are at the same number."""
        now = time.monotonic()
        encoded: dict[int, bytes] = {}
        with self._lock:  # the number that a heartbeat tells is of an event already written
            self._flush()
            while self._beats and self._beats[0].due <= now:
                subscriber = heappop(self._beats).subscriber
                if not self._is_here(subscriber):
                    continue
                if subscriber.live:
                    seq = subscriber.cursor
                    frame = encoded.get(seq) or encoded.setdefault(seq, text_frame(messages.heartbeat(seq)))
                    subscriber.connection.push(frame)
                heappush(self._beats, Beat(now + subscriber.heartbeat_s, subscriber))

    def _look_at_heads(self) -> None:
        """Notices what Redis did not bring."""
        team_ids = self.team_ids()
        if not team_ids:
            return
        with single_statements() as session:
            heads = activity.heads(session, list(team_ids))
        with self._lock:
            channels = self._channels
            self._fall_behind(
                [team for team, head in heads.items() if team in channels and channels[team].head < head]
            )

    def _check(self, share: int) -> None:
        """One look at the rights of so many of those who are due."""
        subscribers = [self._unchecked.popleft() for _ in range(min(share, len(self._unchecked)))]
        if not subscribers:
            return
        with single_statements() as session:
            permissions = standing(session, [subscriber.entry for subscriber in subscribers])
        for subscriber, allowed in zip(subscribers, permissions, strict=True):
            if allowed is None:
                subscriber.connection.close(CloseCode.ACCESS_REVOKED, "You may not read this team any more.")
            else:
                subscriber.may_publish = PUBLISH in allowed

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
                    channel.take(event)
            channel.flush()
            if len(events) == PAGE:
                self._fall_behind([team_id])


def _presence_frames(changes: Sequence[Change], version: int = ANNOUNCED) -> bytes:
    """For those who know the team's presence as of this version."""
    news = filter(None, (change.news(version) for change in changes))
    return b"".join(text_frame(messages.presence(kind, present)) for kind, present in news)


class _Behind(NamedTuple):
    team_id: UUID
    head: int


def _read(team_id: UUID, seq: int) -> list[EventFrame]:
    """The next page of the team's log, each row for whom it is now: the present audience decides, not that of its day."""
    with transaction() as session:
        rows = activity.after(session, team_id, seq, PAGE)
        audiences = audiences_of(session, rows)
    EVENTS_REREAD.inc(len(rows))
    return [
        EventFrame.of(
            messages.event(row), row.seq, audiences.get(row.workspace_id) if row.workspace_id else None
        )
        for row in rows
    ]


@cache
def local_hub() -> Hub:
    """This process's hub, made on first use."""
    return Hub(connect(settings().redis_url), local_reactor())


def close_all() -> None:
    """Closes every socket of this process with 1001; called when it has to stop."""
    if local_hub.cache_info().currsize:
        local_hub().close_all()
