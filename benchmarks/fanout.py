"""
How many sockets two processes serve: ours beside the guide's design (FastAPI, a dict of sets, awaited sends) and Node's `ws`.

`python -m benchmarks.fanout [--small]`. Each server in its turn has two processes and the same loader, a process of its
own, on the same machine; only ratios within one run mean anything. What is published are events of about 250 bytes,
straight on Redis: ours through the hub's path of numbered events (a team's log is empty, so nothing is healed from it),
and each socket is a person with a session of their own, whose rights the hub goes on checking. The peers check nothing
and let everyone in. `ws` is installed by npm into a temporary directory, and left out where Node is absent.

The exit code says nothing of the targets, which are on 2 cores: one team of 1,000, at least 4 times the guide's
deliveries per second at p99 ≤ 100 ms; 10,000 sockets in 100 teams at 50,000 deliveries/s, p99 ≤ 15 ms and at most 5 KB
resident a socket; one event to 10,000 sockets, p99 ≤ 150 ms; 1,000 connects a second with authentication.
"""

import argparse
import gc
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
from redis import Redis
from uuid_utils.compat import uuid7

from benchmarks.loader import STAMP_BYTES, Loader, Received
from benchmarks.measuring import plain_url, print_table, servers
from models.access.credentials import hash_secret
from models.operations.tickets import TICKET_PREFIX
from models.settings import settings
from models.tables import ActivityLog
from realtime import messages
from realtime.channels import team_channel
from realtime.messages import Envelope
from realtime.publisher import connect

PEERS = Path(__file__).parent / "peers"
PROCESSES = 2
MOST_P99_MS = 100.0
TRIES = 2
"""Of a step of the ramp: anything else that the machine does at that moment looks like its end."""
PATIENCE_S = 3.0
"""For what has been published and not come yet."""
LONG_HEADER = 4
"""Bytes, of a frame of 126 bytes and more."""


@dataclass(frozen=True, slots=True)
class Size:
    ramp_sockets: int
    ramp: Sequence[int]
    """Deliveries a second."""
    sockets: int
    teams: int
    rate: int
    """Deliveries a second over all teams."""
    seconds: float
    """Of each step, three times as long where nothing ramps."""
    pause: float
    """Seconds in which presence settles, or closed sockets are forgotten."""


FULL = Size(
    ramp_sockets=1_000,
    ramp=[20_000, 40_000, 60_000, 80_000, 100_000, 130_000, 160_000, 200_000, 250_000, 300_000, 350_000, 400_000, 500_000,
          600_000, 700_000, 800_000, 1_000_000],
    sockets=10_000,
    teams=100,
    rate=50_000,
    seconds=4.0,
    pause=1.5,
)  # fmt: skip
SMALL = Size(
    ramp_sockets=100, ramp=[5_000, 20_000], sockets=400, teams=10, rate=5_000, seconds=0.7, pause=0.3
)


@dataclass(frozen=True, slots=True)
class Step:
    rate: float
    """Deliveries a second, done."""
    received: Received
    lost: int
    server_us: float
    """Of the server's processor, a delivery."""

    @property
    def is_good(self) -> bool:
        return not self.lost and self.received.milliseconds[99] <= MOST_P99_MS


@dataclass(slots=True)
class Figures:
    """What was measured of a server."""

    best: Step | None = None
    many_teams: Step | None = None
    one_event: Step | None = None
    kilobytes: float = 0.0
    """A socket, above idle, of all its processes together."""
    connects: dict[str, float] = field(default_factory=dict)
    """A second, by credential."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few sockets and short steps: does it run?")
    size = SMALL if parser.parse_args().small else FULL
    with servers(durable=False), ExitStack() as stack:
        loader = stack.enter_context(Loader())
        measured = {}
        for name, starts in SERVERS.items():
            people = People(size)
            people.load()
            gc.freeze()
            with starts() as server:
                if server is None:
                    print(f"{name} is left out: node or npm is absent, or npm can't install it")
                    continue
                print(f"\n{name}: one team of {size.ramp_sockets:,} sockets")
                measured[name] = Measurement(server, people, loader, size).run()
        report(measured, size)


def report(measured: dict[str, Figures], size: Size) -> None:
    base = next((figures.best for name, figures in measured.items() if name == GUIDE), None)
    print(
        f"\nMost deliveries/s to one team of {size.ramp_sockets:,} without loss and with p99 ≤ {MOST_P99_MS:.0f} ms"
    )
    rows = []
    for name, figures in measured.items():
        ratio = figures.best.rate / base.rate if figures.best and base else float("nan")
        rows.append([name, *cells(figures.best), f"{ratio:.1f}"])
    print_table((*STEP_HEAD, ": the guide's"), rows)
    print(f"\n{size.sockets:,} sockets in {size.teams} teams, {size.rate:,} deliveries/s wanted")
    print_table(
        (*STEP_HEAD, "KB/socket"),
        [[name, *cells(each.many_teams), f"{each.kilobytes:.1f}"] for name, each in measured.items()],
    )
    print(f"\nOne event to {size.sockets:,} sockets of one team")
    print_table(STEP_HEAD, [[name, *cells(each.one_event)] for name, each in measured.items()])
    print(f"\nConnects per second, {size.sockets:,} at once")
    print_table(
        ("server", "let in by", "connects/s"),
        [
            [name, credential, f"{rate:,.0f}"]
            for name, figures in measured.items()
            for credential, rate in figures.connects.items()
        ],
    )


STEP_HEAD = ("server", "deliveries/s", "p50 ms", "p99 ms", "lost", "server µs each", "loader busy")


def cells(step: Step | None) -> list[str]:
    if step is None:
        return ["none"] + [""] * (len(STEP_HEAD) - 2)
    milliseconds = [f"{step.received.milliseconds.get(percent, float('nan')):.1f}" for percent in (50, 99)]
    busy = f"{step.received.busy:.0%}"
    return [f"{step.rate:,.0f}", *milliseconds, f"{step.lost:,}", f"{step.server_us:.1f}", busy]


class People:
    """One person a socket, each with a session and a ticket, in teams of three sizes."""

    def __init__(self, size: Size) -> None:
        self._sessions = [uuid7() for _ in range(size.sockets)]
        self.users = [uuid7() for _ in self._sessions]
        self.prefix = uuid7().hex
        self.ramp_team, self.whole, *self.teams = (uuid7() for _ in range(size.teams + 2))
        self.members = {self.ramp_team: range(size.ramp_sockets), self.whole: range(size.sockets)}
        share = size.sockets // size.teams
        for number, team in enumerate(self.teams):
            self.members[team] = range(number * share, (number + 1) * share)

    def paths(self, team: UUID, credential: str) -> list[str]:
        secret = {"token": self._token, "ticket": self._ticket}[credential]
        return [f"/ws/{team}?{credential}={secret(member)}" for member in self.members[team]]

    def load(self) -> None:
        later = datetime.now(UTC) + timedelta(days=1)
        tables: dict[str, Iterator[tuple[object, ...]]] = {
            "users (id, email, email_normalized, name, password_hash)": (
                (user, f"{user}@example.com", f"{user}@example.com", "Benchmark", "none")
                for user in self.users
            ),
            "sessions (id, user_id, token_hash, expires_at)": (
                (session, self.users[number], hash_secret(self._token(number)), later)
                for number, session in enumerate(self._sessions)
            ),
            "teams (id, name, owner_id, plan, max_members)": (
                (team, "Benchmark", self.users[members[0]], "pro", 50)
                for team, members in self.members.items()
            ),
            "team_members (id, team_id, user_id, role)": (
                (uuid7(), team, self.users[member], "admin" if member == members[0] else "member")
                for team, members in self.members.items()
                for member in members
            ),
            "tickets (token_hash, team_id, session_id, expires_at)": (
                (hash_secret(self._ticket(number)), self.whole, session, later)
                for number, session in enumerate(self._sessions)
            ),
        }
        with psycopg.connect(plain_url(settings().database_url), autocommit=True) as database:
            with database.transaction(), database.cursor() as cursor:
                for table, rows in tables.items():
                    with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                        for row in rows:
                            copy.write_row(row)
            database.execute("VACUUM ANALYZE")

    def _token(self, member: int) -> str:
        return f"ahq_{self.prefix}_{member}"

    def _ticket(self, member: int) -> str:
        return f"{TICKET_PREFIX}{self.prefix}_{member}"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, and what it takes from Redis."""

    process: subprocess.Popen[bytes]
    port: int
    sealed: bool
    """In our envelope; the peers take the bare payload."""
    credentials: Sequence[str]
    """What it lets somebody in by."""

    def processes(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found.extend(map(int, children.split()))
        return found

    def kilobytes(self) -> int:
        """Resident, what is shared counted once."""
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes())
        return sum(int(rollup.partition("Pss:")[2].split()[0]) for rollup in rollups)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def seconds(self) -> float:
        """Of the processor."""
        stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.processes())
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


class Measurement:
    def __init__(self, server: Server, people: People, loader: Loader, size: Size) -> None:
        self._server = server
        self._people = people
        self._loader = loader
        self._size = size
        self._publisher = Publisher(connect(settings().redis_url), people.users[0], sealed=server.sealed)

    def run(self) -> Figures:
        size, people, figures = self._size, self._people, Figures()
        with self._sockets([people.ramp_team], "token"):
            figures.best = self._ramp()
        time.sleep(size.pause)
        idle = self._server.kilobytes()
        with self._sockets(people.teams, "token") as connects:
            figures.connects[self._let_in_by("token")] = connects
            events_per_s = size.rate * size.teams / size.sockets
            figures.many_teams = self._step(people.teams, events_per_s, 3 * size.seconds)
            figures.kilobytes = (self._server.kilobytes() - idle) / size.sockets
        time.sleep(size.pause)
        with self._sockets([people.whole], "ticket") as connects:
            figures.connects[self._let_in_by("ticket")] = connects
            figures.one_event = self._step([people.whole], 1, 3 * size.seconds)
        return figures

    def _ramp(self) -> Step | None:
        best = None
        rows = []
        for rate in self._size.ramp:
            for _ in range(TRIES):
                step = self._step(
                    [self._people.ramp_team], rate / self._size.ramp_sockets, self._size.seconds
                )
                rows.append([f"{rate:,}", *cells(step)])
                if step.is_good:
                    break
            else:
                break
            best = step
        print_table(("wanted", *STEP_HEAD[1:]), rows)
        return best

    @contextmanager
    def _sockets(self, teams: Sequence[UUID], credential: str) -> Iterator[float]:
        """Opens those of these teams' members; how many a second."""
        paths = [path for team in teams for path in self._people.paths(team, credential)]
        seconds = self._loader.open(self._server.port, paths, asks=bool(self._server.credentials))
        time.sleep(self._size.pause)
        try:
            yield len(paths) / seconds
        finally:
            self._loader.close()

    def _step(self, teams: Sequence[UUID], events_per_s: float, seconds: float) -> Step:
        """Publishes to the teams in turn; a team's sockets are as many as any other's."""
        events = max(1, round(events_per_s * seconds))
        deliveries = events * len(self._people.members[teams[0]])
        self._loader.begin(self._publisher.stamp_at)
        processor, begun = self._server.seconds(), time.monotonic()
        for number in range(events):
            time.sleep(max(0.0, begun + number / events_per_s - time.monotonic()))
            self._publisher.publish(teams[number % len(teams)])
        took = max(seconds, time.monotonic() - begun)
        received = self._loader.received(deliveries, PATIENCE_S)
        used = self._server.seconds() - processor
        return Step(
            rate=received.events / took,
            received=received,
            lost=deliveries - received.events,
            server_us=used * 1e6 / max(1, received.events),
        )

    def _let_in_by(self, credential: str) -> str:
        return credential if self._server.credentials else "nothing asked"


class Publisher:
    """Publishes events as the drain does, made of rows that are not in the log."""

    def __init__(self, redis: Redis, user: UUID, *, sealed: bool) -> None:
        self._redis = redis
        self._user = user
        self._sealed = sealed
        self._seqs: dict[UUID, int] = {}
        self.stamp_at = LONG_HEADER + self._event(uuid7(), 1).index(b'"sent":"') + len(b'"sent":"')
        """In a frame."""

    def publish(self, team: UUID) -> None:
        seq = self._seqs[team] = self._seqs.get(team, 0) + 1
        payload = self._event(team, seq)
        self._redis.publish(team_channel(team), Envelope(payload, seq).seal() if self._sealed else payload)

    def _event(self, team: UUID, seq: int) -> bytes:
        sent = f"{time.monotonic_ns() // 1000:0{STAMP_BYTES}}"
        details = {"sent": sent, "task_id": str(team), "status": "pending"}
        row = ActivityLog(
            id=uuid7(), seq=seq, action="task_created", user_id=self._user, details=details,
            created_at=datetime.now(UTC),
        )  # fmt: skip
        return messages.event(row)


# The servers


@contextmanager
def ours() -> Iterator[Server | None]:
    command = [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.conf.py", "wsgi:app"]
    environment = {"WEB_ROLE": "realtime", "WEB_WORKERS": str(PROCESSES)}
    with _running(command, environment) as (process, port):
        yield started(Server(process, port, sealed=True, credentials=("token", "ticket")))


@contextmanager
def guide() -> Iterator[Server | None]:
    command = [
        sys.executable, "-m", "uvicorn", "benchmarks.peers.guide:app", "--workers", str(PROCESSES), "--ws", "websockets-sansio",
        "--log-level", "warning", "--backlog", "4096",
    ]  # fmt: skip
    with _running(command, {}) as (process, port):
        yield started(Server(process, port, sealed=False, credentials=()))


@contextmanager
def node_ws() -> Iterator[Server | None]:
    node, npm = shutil.which("node"), shutil.which("npm")
    with tempfile.TemporaryDirectory(prefix="agenthq-bench-") as directory:
        if not node or not npm or not _installed(npm, directory):
            yield None
            return
        shutil.copy(PEERS / "ws.mjs", directory)
        with _running([node, f"{directory}/ws.mjs"], {}) as (process, port):
            yield started(Server(process, port, sealed=False, credentials=()))


def _installed(npm: str, directory: str) -> bool:
    command = [npm, "install", "--no-audit", "--no-fund", "--loglevel", "error", "ws@8", "redis@5"]
    return subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, check=False).returncode == 0


@contextmanager
def _running(command: list[str], more: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | more | {"PORT": str(port), "UVICORN_PORT": str(port)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process, port
        finally:
            process.terminate()


def started(server: Server) -> Server:
    """Returns once it listens and its processes are idle: a first one that is alone would be given every socket."""
    busy = True
    while busy:
        if server.process.poll() is not None:
            raise SystemExit(f"the server did not come up: {server.process.args!r}")
        before = server.seconds()
        time.sleep(0.5)
        busy = (
            server.seconds() - before > 0.05 or len(server.processes()) <= PROCESSES or not server.listens()
        )
    return server


GUIDE = "FastAPI, awaited sends"
SERVERS: dict[str, Callable[[], AbstractContextManager[Server | None]]] = {
    "ours": ours,
    GUIDE: guide,
    "Node's ws": node_ws,
}

if __name__ == "__main__":
    main()
