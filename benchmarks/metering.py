"""
What it costs to count API calls exactly: group commit (api/metering.py), beside one insert per request and no counting.

`python -m benchmarks.metering [--rounds N] [--seconds S]`. First the counting alone, by threads of this process; then whole
requests (`GET /teams/{id}`) through gunicorn, one worker a way. The ways take turns, and each figure is the median of the
rounds. PostgreSQL is as durable as `make run`'s: what is counted is on the disk.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from unittest.mock import patch

from flask import Flask
from uuid_utils.compat import uuid7

from api import create_app, metering
from api.metering import CallCounter
from benchmarks.measuring import percentile, print_table, servers
from benchmarks.pipeline import make_team
from models.access.credentials import Credential
from models.database import single_statements
from models.operations import usage
from models.operations.usage import Caller

GROUP, INSERT, NONE = "group commit", "insert per request", "no counting"
THREADS = (4, 16, 64)
"""How many count at once; the process has 20 connections."""
CONNECTIONS = 16
TEAMS = 4
COUNTING_TARGET = 1.3
"""Times the rate of inserts, of 16 threads."""
REQUESTS_TARGET = 0.8
"""Of the rate without counting."""


class Inserting:
    """The same statement, for each call by itself."""

    def count(self, caller: Caller) -> None:
        with single_statements() as session:
            usage.count_api_calls(session, {caller: 1}, batch=str(uuid7()))


def application(way: str) -> Flask:
    """What gunicorn serves: the product, counting in this way."""
    app = create_app()
    if way == INSERT:
        inserting = Inserting()
        patch("api.metering._counter", lambda: inserting).start()
    if way == NONE:
        app.after_request_funcs[None].remove(metering.count_call)
    return app


@dataclass
class Measured:
    """A figure a round."""

    rates: list[float] = field(default_factory=list)
    p50s: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def row(self, of: float) -> list[str]:
        p50, p99 = (statistics.median(each) for each in (self.p50s, self.p99s))
        return [f"{self.rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{self.rate / of:.2f}"]


Once = Callable[[int], object]
"""Does the thing measured, as the thread of this number."""


def measure(ways: Mapping[str, Once], *, threads: int, rounds: int, seconds: float) -> dict[str, Measured]:
    """All ways in turns, the order turned round every time; a short round before, which nobody counts."""
    measured = {way: Measured() for way in ways}
    with ThreadPoolExecutor(threads) as pool:
        for once in ways.values():
            _round(pool, once, threads, min(1.0, seconds))
        for number in range(rounds):
            for way in list(ways)[:: -1 if number % 2 else 1]:
                took, lasted = _round(pool, ways[way], threads, seconds)
                measured[way].rates.append(len(took) / lasted)
                measured[way].p50s.append(percentile(took, 50) * 1000)
                measured[way].p99s.append(percentile(took, 99) * 1000)
    return measured


def _round(
    pool: ThreadPoolExecutor, once: Once, threads: int, seconds: float
) -> tuple[Sequence[float], float]:
    begun = time.perf_counter()

    def work(number: int) -> list[float]:
        took = []
        while (now := time.perf_counter()) < begun + seconds:
            once(number)
            took.append(time.perf_counter() - now)
        return took

    took = [each for part in pool.map(work, range(threads)) for each in part]
    return took, time.perf_counter() - begun


def measure_counting(rounds: int, seconds: float) -> None:
    callers = [Caller(make_team()[1]) for _ in range(TEAMS)]
    counter, inserting = CallCounter(), Inserting()
    ways: dict[str, Once] = {
        GROUP: lambda number: counter.count(callers[number % TEAMS]),
        INSERT: lambda number: inserting.count(callers[number % TEAMS]),
    }
    rows = []
    for threads in THREADS:
        measured = measure(ways, threads=threads, rounds=rounds, seconds=seconds)
        rows += [[way, str(threads), *each.row(measured[INSERT].rate)] for way, each in measured.items()]
    print(f"\nCounting alone, {rounds} rounds of {seconds:g} s; target {COUNTING_TARGET} of the insert")
    print_table(("way", "threads", "calls/s", "p50 ms", "p99 ms", "of the insert"), rows)


def measure_requests(rounds: int, seconds: float) -> None:
    people = [make_team()[:2] for _ in range(TEAMS)]
    with ExitStack() as stack:
        ways: dict[str, Once] = {}
        for way in (GROUP, INSERT, NONE):
            port = stack.enter_context(served(way))
            clients = [
                stack.enter_context(asking(port, *people[number % TEAMS])) for number in range(CONNECTIONS)
            ]
            ways[way] = lambda number, clients=clients: clients[number]()  # type: ignore[misc]
        measured = measure(ways, threads=CONNECTIONS, rounds=rounds, seconds=seconds)
    print(
        f"\nGET /teams/{{id}} through gunicorn, one worker, {CONNECTIONS} connections, {rounds} rounds of {seconds:g} s; "
        f"target {REQUESTS_TARGET} of no counting"
    )
    print_table(
        ("way", "requests/s", "p50 ms", "p99 ms", "of no counting"),
        [[way, *each.row(measured[NONE].rate)] for way, each in measured.items()],
    )


@contextmanager
def served(way: str) -> Iterator[int]:
    """The port where gunicorn serves the product, counting in this way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.conf.py"]
    command += [f"benchmarks.metering:application({way!r})"]
    environment = os.environ | {"PORT": str(port), "WEB_WORKERS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            yield port
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@contextmanager
def asking(port: int, credential: Credential, team_id: object) -> Iterator[Callable[[], None]]:
    """A client with a kept connection; raises RuntimeError for any answer but 200."""
    client = HTTPConnection("127.0.0.1", port, timeout=60)

    def ask() -> None:
        client.request(
            "GET", f"/api/v1/teams/{team_id}", headers={"Authorization": f"Bearer {credential.secret}"}
        )
        answer = client.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"answered {answer.status}")

    try:
        yield ask
    finally:
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="a round and way")
    arguments = parser.parse_args()
    with servers(durable=True):
        measure_counting(arguments.rounds, arguments.seconds)
        measure_requests(arguments.rounds, arguments.seconds)
    print(f"\nThe machine's load average is {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
