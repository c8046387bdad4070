"""
Whole requests of the ten most used endpoints: the product's web server beside the guide's design (FastAPI, async SQLAlchemy,
asyncpg, uvicorn), one process each, with the same rows in the same database.

`python -m benchmarks.http [--small] [--rounds N] [--seconds S]`. For each endpoint the ways take turns in every round, first as
fast as they answer 16 connections, then at half the rate that each reached; medians of the rounds. The guide's way asks who
calls, by its ORM, in every request as ours does; the second of its two counts the call, too (reading, adding and writing back,
which loses what runs at the same time; ours counts exactly, and limits rates, and keeps the log as evidence by a worker that runs
beside). The exit code says nothing of the target: at least the guide's rate, and p50 below 10 ms at half load.
"""

import argparse
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import psutil
from uuid_utils.compat import uuid7

from benchmarks.measuring import print_table, servers
from benchmarks.pipeline import make_team
from benchmarks.requester import Answers, Requester
from models.access.credentials import Credential
from models.access.entry import enter_team
from models.database import engine, transaction
from models.operations import members, tasks, users, workspaces
from models.queries import teams
from models.tables import Team
from realtime.publisher import connect
from workers.outbox import drain_batch

CONNECTIONS = 16
MEMBERS, WORKSPACES, TASKS = 20, 10, 60
BODIES = 512
"""Requests made in advance of an endpoint whose bodies differ, sent in turns; each keeps its own `external_id`."""
OURS, GUIDE, COUNTING = "ours", "the guide's", "the guide's, counting"
WEB = ["gunicorn", "--config", "api/gunicorn.conf.py", "wsgi:app"]
UVICORN = ["uvicorn", "benchmarks.peers.guide_http:app", "--loop", "uvloop", "--http", "httptools"]


@dataclass(frozen=True, slots=True)
class Data:
    """A team as the requests find it."""

    credential: Credential
    team_id: UUID
    workspace_id: UUID
    task_id: UUID


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    base: str
    """What paths begin with."""

    def seconds(self) -> float:
        """Of the processor, with those of its children."""
        own = psutil.Process(self.process.pid)  # type: ignore[no-untyped-call]
        used = [each.cpu_times() for each in (own, *own.children())]  # type: ignore[no-untyped-call]
        return float(sum(each.user + each.system for each in used))


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: str
    status: int = 200
    body: Callable[[], Any] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def requests(self, data: Data, base: str) -> list[bytes]:
        ids = {"team_id": data.team_id, "workspace_id": data.workspace_id, "task_id": data.task_id}
        head = (
            f"{self.method} {base}{self.path.format(**ids)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {data.credential.secret}\r\nUser-Agent: benchmark\r\nAccept: application/json\r\n"
        )
        if self.body is None:
            return [f"{head}\r\n".encode()]
        bodies = [orjson.dumps(self.body()) for _ in range(BODIES)]
        return [
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            for body in bodies
        ]


def new_task() -> dict[str, str]:
    return {"title": f"Task {secrets.token_hex(8)}", "prompt": "When is high water?"}


def new_report() -> dict[str, Any]:
    return {"events": [{"external_id": uuid7().hex, "metric": "llm_tokens_used", "quantity": 812}]}


ENDPOINTS = [
    Endpoint("GET", "/me"),
    Endpoint("GET", "/teams"),
    Endpoint("GET", "/teams/{team_id}"),
    Endpoint("GET", "/teams/{team_id}/members"),
    Endpoint("GET", "/teams/{team_id}/workspaces"),
    Endpoint("GET", "/teams/{team_id}/workspaces/{workspace_id}/tasks"),
    Endpoint("GET", "/teams/{team_id}/tasks/{task_id}"),
    Endpoint("GET", "/teams/{team_id}/activity"),
    Endpoint("POST", "/teams/{team_id}/workspaces/{workspace_id}/tasks", 201, new_task),
    Endpoint("POST", "/teams/{team_id}/usage", 202, new_report),
]


@dataclass(slots=True)
class Measured:
    """Of a way and an endpoint, a figure a round."""

    full: list[Answers] = field(default_factory=list)
    half: list[Answers] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)
    """Of the web process alone, a request."""

    @property
    def rate(self) -> float:
        return statistics.median(each.rate for each in self.full)

    def cells(self) -> list[str]:
        loads = [
            f"{statistics.median(figures):.1f}"
            for load in (self.full, self.half)
            for figures in ([each.p50 for each in load], [each.p99 for each in load])
        ]
        return [f"{self.rate:,.0f}", *loads, f"{statistics.median(self.processor_ms):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a moment of each: does it run?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load, way and round")
    parser.add_argument("--only", default="", help="endpoints that have this in their name")
    arguments = parser.parse_args()
    rounds, seconds = (1, 0.3) if arguments.small else (arguments.rounds, arguments.seconds)
    with servers(durable=True), ExitStack() as stack:
        os.environ["LOG_LEVEL"] = "INFO"  # a line a request, as in production; so does uvicorn
        data = load()
        requester = stack.enter_context(Requester())
        stack.enter_context(process(["celery", "--app", "workers.app", "worker", "--loglevel=WARNING"]))
        ways = {
            OURS: stack.enter_context(served(WEB, "/api/v1")),
            GUIDE: stack.enter_context(served(UVICORN, "")),
            COUNTING: stack.enter_context(served(UVICORN, "", COUNTING="1")),
        }
        measured = {
            endpoint: measure(requester, endpoint, data, ways, rounds, seconds)
            for endpoint in ENDPOINTS
            if arguments.only in str(endpoint)
        }
    report(measured, rounds, seconds)


def measure(
    requester: Requester,
    endpoint: Endpoint,
    data: Data,
    ways: dict[str, Server],
    rounds: int,
    seconds: float,
) -> dict[str, Measured]:
    """All ways in turns, the order turned round every time; a moment before, which nobody counts."""
    measured = {way: Measured() for way in ways}

    def ask(way: str, seconds: float, rate: float | None = None) -> Answers:
        return requester.ask(
            ways[way].port,
            endpoint.requests(data, ways[way].base),
            status=endpoint.status,
            connections=CONNECTIONS,
            seconds=seconds,
            rate=rate,
        )

    for way in ways:
        ask(way, min(0.5, seconds))
    for number in range(rounds):
        for way in list(ways)[:: -1 if number % 2 else 1]:
            server = ways[way]
            used = server.seconds()
            full = ask(way, seconds)
            measured[way].full.append(full)
            measured[way].processor_ms.append((server.seconds() - used) * 1000 / full.count)
            measured[way].half.append(ask(way, seconds, full.rate / 2))
    busy = max(answers.busy for each in measured.values() for answers in each.full)
    print(f"{endpoint}: measured, the client busy {busy:.0%} of a core at the most", flush=True)
    return measured


def report(measured: dict[Endpoint, dict[str, Measured]], rounds: int, seconds: float) -> None:
    rows = []
    for endpoint, ways in measured.items():
        for way, each in ways.items():
            ratios = [f"{ways[OURS].rate / each.rate:.2f}"] if way != OURS else [""]
            rows.append([f"{endpoint}, {way}", *each.cells(), *ratios])
    print(
        f"\nOne process each, {CONNECTIONS} connections, {rounds} rounds of {seconds:g} s; medians. Half load is half of the "
        "way's own rate"
    )
    print_table(
        (
            "endpoint, way",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "p50, half load",
            "p99, half load",
            "CPU ms",
            "ours : this",
        ),
        rows,
    )
    for way in (GUIDE, COUNTING):
        times = [ways[OURS].rate / ways[way].rate for ways in measured.values()]
        print(
            f"Ours to {way}: {statistics.geometric_mean(times):.2f} (geometric mean), {min(times):.2f} at the least"
        )


def load() -> Data:
    """A team of twenty, its workspaces and tasks, and what happened in the log, in ours and in the guide's tables."""
    from benchmarks.peers.guide_http import Base, GuideActivityLog, GuideUsage  # noqa: PLC0415  reads DATABASE_URL

    credential, team_id, _ = make_team()
    with transaction() as session:
        access = enter_team(session, credential, team_id)
        team = teams.get(session, access, for_update=True)
        team.plan, team.max_members = "pro", 50
        for number in range(MEMBERS - 1):
            person = users.register(
                session,
                email=f"{secrets.token_hex(8)}@example.com",
                name=f"Member {number}",
                password_hash="none",
            )
            members.add(session, access, team, user=person, role="member")
        workspace = workspaces.create(session, access, name="Tides", description="What the sea does")
        for number in range(WORKSPACES - 2):
            workspaces.create(session, access, name=f"Workspace {number}", description=None)
        made = [
            tasks.create(session, access, workspace, title=f"Task {number}", prompt="When?")
            for number in range(TASKS)
        ]
        data = Data(credential, team_id, workspace.id, made[0].id)
    redis = connect(os.environ["REDIS_URL"])
    while drain_batch(redis):
        pass
    Base.metadata.create_all(engine())
    with transaction() as session:
        owner = session.get_one(Team, team_id).owner_id
        # Else the first calls of a day would each insert it, and all but one fail.
        session.add(GuideUsage(team_id=team_id, date=datetime.now(UTC).date()))
        session.add_all(
            GuideActivityLog(
                team_id=team_id, user_id=owner, action="task_created", resource_type="task", resource_id=uuid7(),
                details={"title": f"Task {number}"}, ip_address="127.0.0.1", user_agent="benchmark",
            )
            for number in range(TASKS + MEMBERS)
        )  # fmt: skip
    engine().dispose()
    return data


@contextmanager
def process(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as started:
        try:
            yield started
        finally:
            started.terminate()


@contextmanager
def served(command: Sequence[str], base: str, **environment: str) -> Iterator[Server]:
    """One process of this web server, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    port_option = ["--port", str(port)] if command[0] == "uvicorn" else []
    with process([*command, *port_option], PORT=str(port), WEB_WORKERS="1", **environment) as server:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError as error:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise TimeoutError(f"{command[0]} does not come up") from error
                time.sleep(0.1)
            else:
                yield Server(server, port, base)
                return


if __name__ == "__main__":
    main()
