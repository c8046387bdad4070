"""
Who is online: by person, over their devices and over all processes.

Each process knows its own sockets and keeps their people in Redis, one hash a team, a field for each person here; it tells the other processes
on the team's channel what changed. Everyone merges what all processes say and announces to its own sockets what that
changes for a person. Changes are gathered for a moment, so that a reload or a storm of reconnects is no storm of frames.

Nothing here outlives its process: a process keeps a lease of a few seconds, and whose lease is gone is forgotten with
all its people. Every key has a time to live. A message that got lost is made good when the team is next compared
with Redis, a Redis that lost everything is filled again.
"""

import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import orjson
import structlog
from redis import Redis, RedisError

from models.queries.paging import Page, Slice, bad_cursor
from realtime.channels import presence_key, process_key, team_channel
from realtime.messages import PEOPLE, Envelope, Present

log = structlog.get_logger("realtime.presence")

ONLINE, AWAY = "online", "away"
GATHER_S = 0.25
"""How long changes are gathered before they are announced."""
LEASE_S, RENEW_S = 3.5, 0.5
"""A killed process's people are gone within LEASE_S and two RENEW_S."""
COMPARE_S = 10.0
"""How often each team is compared with Redis."""
KEPT_S = 60
"""How long a team's hash lives without a process that has sockets of it."""
MOST_ANNOUNCED = 1_000
"""In a team with more people online, changes are not announced: n people coming to n people are n² frames. REST tells who is there."""


class Entry(NamedTuple):
    """Somebody's presence in one process, or in all of them."""

    state: str
    devices: int
    at: float
    """When the state was set, by the clock of the host that it was set on."""


class Step(NamedTuple):
    """A person's state, None of who is absent, from this version of the team on."""

    version: int
    state: str | None


ANNOUNCED = -1
"""The version of what was announced: earlier than every other."""


class Change(NamedTuple):
    """What became of a person since it was last announced."""

    user_id: UUID
    steps: Sequence[Step]
    """The first is what was announced, the last how it is now. A welcome that fell between told one in the middle."""
    devices: int

    def news(self, version: int = ANNOUNCED) -> tuple[str, Present] | None:
        """What there is to tell someone who knows the team as of this version: joined, left or changed, if anything."""
        known = next(step.state for step in reversed(self.steps) if step.version <= version)
        state = self.steps[-1].state
        if state == known:
            return None
        if state is None:
            return "presence_left", Present(self.user_id, known or ONLINE, 0)
        kind = "presence_joined" if known is None else "presence_changed"
        return kind, Present(self.user_id, state, self.devices)


def merge(entries: Iterable[Entry]) -> Entry | None:
    """One presence of several: online if any device is, else the newest state that is not away. None of none."""
    chosen: Entry | None = None
    devices = 0
    for entry in entries:
        devices += entry.devices
        if chosen is None or _rank(entry) > _rank(chosen):
            chosen = entry
    return chosen and chosen._replace(devices=devices)


def _rank(entry: Entry) -> tuple[bool, bool, float]:
    return entry.state == ONLINE, entry.state != AWAY, entry.at


@dataclass(slots=True)
class Team:
    """A team with sockets here."""

    local: dict[UUID, dict[UUID, Entry]] = field(default_factory=dict)
    """Person → connection → its presence."""
    remote: dict[str, dict[UUID, Entry]] = field(default_factory=dict)
    """Process → person → presence there."""
    announced: dict[UUID, str] = field(default_factory=dict)
    """What the sockets here know."""
    touched: dict[UUID, list[Step]] = field(default_factory=dict)
    """Who may have changed since, and how."""
    unsaid: set[UUID] = field(default_factory=set)
    """Who changed here, and the other processes don't know yet."""
    version: int = 0
    compared_at: float = 0.0

    def here(self, user_id: UUID) -> Entry | None:
        return merge(self.local.get(user_id, {}).values())

    def merged(self, user_id: UUID) -> Entry | None:
        own = self.here(user_id)
        others = (people[user_id] for people in self.remote.values() if user_id in people)
        return merge([*([own] if own else []), *others])

    def everyone(self) -> list[Present]:
        ids = set(self.local).union(*self.remote.values())
        found = ((user_id, self.merged(user_id)) for user_id in ids)
        return [Present(user_id, entry.state, entry.devices) for user_id, entry in found if entry]

    def touch(self, user_id: UUID) -> None:
        self.version += 1
        steps = self.touched.setdefault(user_id, [Step(ANNOUNCED, self.announced.get(user_id))])
        entry = self.merged(user_id)
        steps.append(Step(self.version, entry and entry.state))

    def replace(self, process: str, people: dict[UUID, Entry]) -> None:
        """What another process now says of all its people here."""
        before = self.remote.pop(process, {})
        if people:
            self.remote[process] = people
        for user_id in before.keys() | people.keys():
            if before.get(user_id) != people.get(user_id):
                self.touch(user_id)

    def changes(self) -> list[Change]:
        """What has to be announced, and from now on has been."""
        found = []
        for user_id, steps in self.touched.items():
            entry = self.merged(user_id)
            if entry is None:
                self.announced.pop(user_id, None)
            else:
                self.announced[user_id] = entry.state
            found.append(Change(user_id, steps, entry.devices if entry else 0))
        self.touched = {}
        return found


Announce = Callable[[UUID, Sequence[Change]], None]


class Presence:
    """The people of this process's sockets, and what the other processes say of theirs. State changes under `lock`."""

    def __init__(self, redis: Redis, lock: Any, announce: Announce) -> None:
        self._redis = redis
        self._lock = lock
        self._announce = announce
        self._process = uuid4().hex
        self._teams: dict[UUID, Team] = {}
        self._gone: dict[UUID, set[UUID]] = {}  # teams that have no sockets here any more, and who was there
        self._started = False

    def join(self, team_id: UUID, connection_id: UUID, user_id: UUID, state: str = ONLINE) -> None:
        """A connection came, or its state is another now."""
        with self._lock:
            team = self._teams.get(team_id)
            if team is None:
                team = self._teams[team_id] = Team()
                team.unsaid |= self._gone.pop(team_id, set())
            team.local.setdefault(user_id, {})[connection_id] = Entry(state, 1, time.time())
            team.unsaid.add(user_id)
            team.touch(user_id)
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="presence", daemon=True).start()

    set_state = join

    def leave(self, team_id: UUID, connection_id: UUID, user_id: UUID) -> None:
        with self._lock:
            team = self._teams[team_id]
            devices = team.local.get(user_id, {})
            devices.pop(connection_id, None)
            if not devices:
                team.local.pop(user_id, None)
            team.unsaid.add(user_id)
            team.touch(user_id)
            if not team.local:  # nobody here is told any more
                self._gone.setdefault(team_id, set()).update(team.unsaid)
                del self._teams[team_id]

    def snapshot(self, team_id: UUID) -> tuple[int, list[Present]]:
        """Who is online, and the version that this is: later steps have a higher one."""
        with self._lock:
            team = self._teams[team_id]
            return team.version, team.everyone()

    def receive(self, team_id: UUID, payload: bytes) -> None:
        """What another process says of its people; raises ValueError for what none of ours sent."""
        process, people = orjson.loads(payload)
        if process == self._process:
            return
        with self._lock:
            team = self._teams.get(team_id)
            if team is None:
                return
            known = dict(team.remote.get(process, {}))
            for user, entry in people.items():
                if entry is None:
                    known.pop(UUID(user), None)
                else:
                    known[UUID(user)] = Entry(*entry)
            team.replace(process, known)

    def compare_soon(self, team_ids: Iterable[UUID]) -> None:
        """What was said until now may have been missed."""
        with self._lock:
            for team_id in team_ids:
                if team := self._teams.get(team_id):
                    team.compared_at = 0.0

    def _run(self) -> None:
        renewed, away = 0.0, False
        while True:
            time.sleep(GATHER_S)
            try:
                self._announce_changes()
                now = time.monotonic()
                if now - renewed >= RENEW_S:
                    renewed = now
                    self._redis.set(process_key(self._process), 1, px=int(LEASE_S * 1000))
                    self._forget_dead()
                    away = False
                self._tell()
                self._compare(now)
            except RedisError as error:
                if not away:
                    log.warning("presence of other processes unknown", error=repr(error))
                away = True
                self.compare_soon(list(self._teams))
            except Exception:
                log.exception("presence failed")

    def _announce_changes(self) -> None:
        with self._lock:
            for team_id, team in self._teams.items():
                if team.touched and (changes := team.changes()) and len(team.announced) <= MOST_ANNOUNCED:
                    self._announce(team_id, changes)

    def _tell(self) -> None:
        """Tells the other processes, and Redis, what changed here."""
        with self._lock:
            said = {
                team_id: {user_id: team.here(user_id) for user_id in team.unsaid}
                for team_id, team in self._teams.items()
                if team.unsaid
            }
            said |= {team_id: dict.fromkeys(users) for team_id, users in self._gone.items()}
            for team_id in said:
                if team_id in self._teams:
                    self._teams[team_id].unsaid.clear()
            self._gone.clear()
        if not said:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for team_id, people in said.items():
            self._write(pipeline, team_id, people)
            payload = orjson.dumps(
                [self._process, {str(user): entry and list(entry) for user, entry in people.items()}]
            )
            pipeline.publish(team_channel(team_id), Envelope(payload, sender=PEOPLE).seal())
        try:
            pipeline.execute()
        except RedisError:
            with self._lock:  # said again next time
                for team_id, people in said.items():
                    team = self._teams.get(team_id)
                    unsaid = team.unsaid if team else self._gone.setdefault(team_id, set())
                    unsaid.update(people)
            raise

    def _write(self, pipeline: Any, team_id: UUID, people: dict[UUID, Entry | None]) -> None:
        key = presence_key(team_id)
        here = {self._field(user): orjson.dumps(list(entry)) for user, entry in people.items() if entry}
        if here:
            pipeline.hset(key, mapping=here)
        if gone := [self._field(user) for user, entry in people.items() if entry is None]:
            pipeline.hdel(key, *gone)
        pipeline.expire(key, KEPT_S)

    def _field(self, user_id: UUID) -> str:
        return f"{self._process}:{user_id}"

    def _compare(self, now: float) -> None:
        """Writes what is here and reads what is elsewhere, of the teams whose turn it is."""
        with self._lock:
            due = [
                (team_id, team) for team_id, team in self._teams.items() if now - team.compared_at > COMPARE_S
            ]
            due = due[: max(10, len(self._teams) // 20)]
            own = {team_id: {user: team.here(user) for user in team.local} for team_id, team in due}
        if not due:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for team_id, people in own.items():
            self._write(pipeline, team_id, people)
            pipeline.hgetall(presence_key(team_id))
        answers = [answer for answer in pipeline.execute() if isinstance(answer, dict)]
        found = dict(zip(own, map(by_process, answers), strict=True))
        living = _living(self._redis, {process for each in found.values() for process in each})
        for team_id, processes in found.items():
            alive = {process: people for process, people in processes.items() if process in living}
            self._take(team_id, alive, now)
            stale = {process: set(processes[process]) for process in processes.keys() - living}
            stale[self._process] = processes.get(self._process, {}).keys() - own[team_id].keys()
            self._sweep(team_id, stale)

    def _take(self, team_id: UUID, processes: dict[str, dict[UUID, Entry]], now: float) -> None:
        with self._lock:
            team = self._teams.get(team_id)
            if team is None:
                return
            team.compared_at = now
            for process in (team.remote.keys() | processes.keys()) - {self._process}:
                team.replace(process, processes.get(process, {}))

    def _sweep(self, team_id: UUID, stale: dict[str, set[UUID]]) -> None:
        """Removes what dead processes left in Redis, and people of this one who left while Redis was away."""
        fields = [f"{process}:{user}" for process, people in stale.items() for user in people]
        if fields:
            self._redis.hdel(presence_key(team_id), *fields)

    def _forget_dead(self) -> None:
        with self._lock:
            known = {process for team in self._teams.values() for process in team.remote}
        if not known:
            return
        dead = known - _living(self._redis, known)
        with self._lock:
            for team in self._teams.values():
                for process in dead & team.remote.keys():
                    team.replace(process, {})


def present(redis: Redis, team_id: UUID) -> list[Present]:
    """Who is online in the team, for whoever has no sockets of it; raises RedisError."""
    processes = by_process(redis.hgetall(presence_key(team_id)))  # type: ignore[arg-type]
    living = _living(redis, processes)
    entries: dict[UUID, list[Entry]] = {}
    for process in living:
        for user_id, entry in processes[process].items():
            entries.setdefault(user_id, []).append(entry)
    merged = ((user_id, merge(each)) for user_id, each in entries.items())
    return sorted(Present(user_id, entry.state, entry.devices) for user_id, entry in merged if entry)


def page_of(people: list[Present], page: Page) -> Slice[Present]:
    """A page of them, by user id; raises Invalid for a cursor of another list."""
    begin = 0
    if page.after is not None:
        try:
            (last,) = map(UUID, page.after)
        except ValueError as error:
            raise bad_cursor() from error
        begin = bisect([each.user_id for each in people], last)
    items = people[begin : begin + page.limit]
    return Slice(items, (items[-1].user_id,) if len(people) > begin + page.limit else None)


def by_process(fields: dict[bytes, bytes]) -> dict[str, dict[UUID, Entry]]:
    """A team's hash, taken apart."""
    found: dict[str, dict[UUID, Entry]] = {}
    for name, value in fields.items():
        process, _, user = name.decode().partition(":")
        found.setdefault(process, {})[UUID(user)] = Entry(*orjson.loads(value))
    return found


def _living(redis: Redis, processes: Iterable[str]) -> set[str]:
    """Those whose lease holds."""
    names = list(processes)
    if not names:
        return set()
    leases: Any = redis.mget([process_key(name) for name in names])
    return {name for name, lease in zip(names, leases, strict=True) if lease is not None}
