"""
The way of an event: how fast the drain moves a backlog, and how long a commit takes to reach a socket.

`python -m benchmarks.pipeline [--events N] [--seconds S] [--url http://127.0.0.1:8000]`. It starts its own PostgreSQL and
Valkey, as durable as `make run`'s, and the product's web server, worker and beat on them. With `--url` it measures the
delay on a running product instead, whose DATABASE_URL and REDIS_URL must be set. Its load is committed by a process of
its own through the product's operations: 200 requests a second over HTTP would keep two cores busy by themselves, and
what is measured begins with the commit.
"""

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Self
from uuid import UUID

import psycopg
import websocket

from api.waker import wake_drain
from benchmarks.measuring import percentile, plain_url, print_table, servers
from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import enter, enter_team
from models.access.permissions import Permission
from models.database import transaction
from models.operations import sessions, tasks, teams, users, workspaces
from models.queries import workspaces as workspace_queries
from models.settings import settings
from realtime.publisher import connect
from workers.outbox import BATCH, drain_batch

RATE = 200
"""Events a second."""
LOADERS = 2
"""Processes that commit them; one alone would be late."""
TEAMS = 20
"""Whose events the backlog is made of."""
WARM_UP = 100
"""Events before the measured ones: processes import, connect and prepare on first use."""

FILL = """
INSERT INTO outbox (event_id, team_id, action, user_id, resource_type, resource_id, resource_name, details)
SELECT uuid7(), t.id, 'task_created', t.owner_id, 'task', uuid7(), 'Read the price list',
       jsonb_build_object('task_id', uuid7(), 'workspace_id', uuid7(), 'title', 'Read the price list',
                          'status', 'pending', 'assignee_id', NULL)
FROM generate_series(1, %(events)s / cardinality(%(teams)s::uuid[])) AS n,
     teams t WHERE t.id = ANY(%(teams)s) ORDER BY n
"""
# The least that a drain can do: no heads, no numbers, no publication.
BARE_MOVE = """
WITH taken AS (
  DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT %s) RETURNING *
)
INSERT INTO activity_logs (team_id, seq, created_at, id, user_id, action, resource_type, resource_id, resource_name,
                           metadata, request_id, ip_address, user_agent, hash)
SELECT team_id, id, created_at, event_id, user_id, action, resource_type, resource_id, resource_name, details,
       request_id, ip_address, user_agent, ''::bytea
FROM taken
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="in the backlog")
    parser.add_argument("--seconds", type=float, default=20.0, help="of steady load")
    parser.add_argument("--url", help="a running product, instead of our own")
    arguments = parser.parse_args()
    if arguments.url:
        measure_delay(arguments.url, arguments.seconds)
        return
    with servers(durable=True):
        measure_drain(arguments.events)
        with product() as url:
            measure_delay(url, arguments.seconds)


# The backlog


def measure_drain(events: int) -> None:
    """Ours and the bare statement in turns, each with teams of its own, since the bare one makes up its numbers."""
    ours, bare = ([make_team()[1] for _ in range(TEAMS)] for _ in range(2))
    redis = connect(settings().redis_url)
    with psycopg.connect(plain_url(settings().database_url), autocommit=True) as database:
        while drain_batch(redis):
            pass
        rates: dict[str, list[float]] = {"drain_batch": [], "bare statement": []}
        for _ in range(3):
            fill(database, ours, events)
            rates["drain_batch"].append(events / timed(lambda: drain_batch(redis)))
            fill(database, bare, events)
            rates["bare statement"].append(
                events / timed(lambda: database.execute(BARE_MOVE, (BATCH,), prepare=True).rowcount)
            )
    best = {way: max(measured) for way, measured in rates.items()}
    print(f"\nDrain of {events:,} events of {TEAMS} teams, batches of {BATCH}, 3 rounds")
    print_table(
        ("way", "best events/s", "worst events/s", "of the bare"),
        [
            [way, f"{best[way]:,.0f}", f"{min(measured):,.0f}", f"{best[way] / best['bare statement']:.2f}"]
            for way, measured in rates.items()
        ],
    )


def fill(database: psycopg.Connection[tuple[object, ...]], team_ids: list[UUID], events: int) -> None:
    database.execute(FILL, {"events": events, "teams": team_ids})
    database.execute("VACUUM ANALYZE outbox")


def timed(move: Callable[[], int]) -> float:
    """The seconds until nothing moves any more."""
    begun = time.perf_counter()
    while move():
        pass
    return time.perf_counter() - begun


def make_team() -> tuple[Credential, UUID, UUID]:
    """An owner's credential, the team and a workspace in it."""
    with transaction() as session:
        email = f"{secrets.token_hex(8)}@example.com"
        user = users.register(session, email=email, name="Benchmark", password_hash="none")
        _, token = sessions.open_session(session, user, origin=Origin(), days=1)
    credential = Credential(token)
    with transaction() as session:
        team_id = teams.create(session, enter(session, credential), name="Benchmark").id
    with transaction() as session:
        access = enter_team(session, credential, team_id)
        workspace_id = workspaces.create(session, access, name="Benchmark").id
    return credential, team_id, workspace_id


# The delay


@contextmanager
def product() -> Iterator[str]:
    """Web server, worker and beat, supervised as in `make run`, on this process's databases; its address."""
    with tempfile.TemporaryDirectory(prefix="agenthq-bench-") as data, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = os.environ | {"AGENTHQ_DATA": data, "PORT": str(port)}
        with subprocess.Popen(
            [sys.executable, "-m", "api.local"], env=environment, stdout=subprocess.PIPE, text=True
        ) as stack:
            try:
                url = f"http://127.0.0.1:{port}"
                if not any("is ready" in line for line in stack.stdout or ()):
                    raise SystemExit("the product did not come up")
                yield url
            finally:
                stack.terminate()
                stack.communicate()


def measure_delay(url: str, seconds: float) -> None:
    """From the commit's return to the frame's arrival, at a steady rate. Both clocks are the machine's monotonic one."""
    credential, team_id, workspace_id = make_team()
    events = WARM_UP + int(RATE * seconds)
    with Receiver(url, credential, team_id) as receiver:
        committed = load(credential, team_id, workspace_id, events)
        receiver.wait_for(events)
    steady = [
        (receiver.arrived[task_id] - committed[task_id]) * 1000
        for task_id in sorted(committed, key=lambda task_id: committed[task_id])[WARM_UP:]
        if task_id in receiver.arrived
    ]
    times = committed.values()
    print(
        f"\nDelay from commit to frame on one socket, {RATE} commits/s wanted, "
        f"{(events - 1) / (max(times) - min(times)):.0f}/s done by processes of their own"
    )
    measured = [f"{percentile(steady, percent):.1f}" for percent in (50, 90, 99, 100)]
    print_table(
        ("", "commits", "frames", "p50 ms", "p90 ms", "p99 ms", "most ms"),
        [["task_created", f"{events:,}", f"{receiver.frames:,}", *measured]],
    )


class Receiver:
    """A client's socket, read by a thread that notes when each task's frame came."""

    def __init__(self, url: str, credential: Credential, team_id: UUID) -> None:
        self.arrived: dict[str, float] = {}
        self.frames = 0
        self._socket = websocket.create_connection(
            f"{url.replace('http', 'ws', 1)}/ws/{team_id}",
            header={"Authorization": f"Bearer {credential.secret}"},
        )
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join()

    def wait_for(self, events: int) -> None:
        """Returns once so many have come, or when none comes any more."""
        patience = time.monotonic() + 10
        while self.frames < events and time.monotonic() < patience:
            time.sleep(0.05)
        time.sleep(0.5)  # for frames that come twice

    def _read(self) -> None:
        with suppress(websocket.WebSocketException, OSError):
            while text := self._socket.recv():
                now = time.monotonic()
                frame = json.loads(text)
                if frame["type"] == "task_created":
                    self.frames += 1
                    self.arrived.setdefault(frame["data"]["task_id"], now)


def load(credential: Credential, team_id: UUID, workspace_id: UUID, events: int) -> dict[str, float]:
    """Creates tasks at RATE, as requests do; when each one's commit had returned, by task id."""
    begun = time.monotonic() + 5  # by then the processes have imported what they need
    committed: dict[str, float] = {}
    with ProcessPoolExecutor(LOADERS, get_context("spawn")) as pool:
        parts = [
            pool.submit(
                _load_part, credential.secret, team_id, workspace_id, begun, range(part, events, LOADERS)
            )
            for part in range(LOADERS)
        ]
        for part in parts:
            committed |= part.result()
    return committed


def _load_part(
    secret: str, team_id: UUID, workspace_id: UUID, begun: float, numbers: Sequence[int]
) -> dict[str, float]:
    credential = Credential(secret)

    def create(number: int) -> tuple[str, float]:
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        with transaction() as session:
            access = enter_team(session, credential, team_id, Permission.tasks_create)
            workspace = workspace_queries.get(session, access, workspace_id)
            task = tasks.create(session, access, workspace, title=f"Task {number}")
        committed = time.monotonic()
        wake_drain()
        return str(task.id), committed

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(create, numbers))


if __name__ == "__main__":
    main()
