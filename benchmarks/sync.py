"""
How soon everybody sees a change: from the REST call that makes it to the frame on another member's socket.

`python -m benchmarks.sync [--small]`. It starts the product as `make run` does, durable, on PostgreSQL and Valkey of its own.
One client process creates tasks over a few kept connections at a steady rate, which two cores may not sustain (each
change is a request, two transactions and a frame): what was reached is printed. The exit code says nothing of the target:
from the request to the frame p99 ≤ 100 ms at 100 changes/s, and as many frames as changes.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing import get_context
from threading import local
from urllib.parse import urlsplit
from uuid import UUID

import orjson

from benchmarks.measuring import percentile, print_table, servers
from benchmarks.pipeline import Receiver, make_team, product
from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import enter_team
from models.database import transaction
from models.operations import members, sessions, users
from models.queries import teams

RATE = 100
"""Changes a second."""
CONNECTIONS = 8
WARM_UP = 100
"""Changes before the measured ones: processes import, connect and prepare on first use."""
PERCENTS = (50, 90, 99, 100)


@dataclass(frozen=True, slots=True)
class Change:
    """When its request was sent and its answer was there, by the machine's monotonic clock."""

    task_id: str
    sent: float
    answered: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="two seconds of it: does it run?")
    seconds = 2 if parser.parse_args().small else 20
    with servers(durable=True), product() as url:
        owner, team_id, workspace_id = make_team()
        with Receiver(url, make_member(owner, team_id), team_id) as receiver:
            path = f"/api/v1/teams/{team_id}/workspaces/{workspace_id}/tasks"
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                changes = pool.submit(
                    make_changes, url, path, owner.secret, WARM_UP + RATE * seconds
                ).result()
            receiver.wait_for(len(changes))
    report(changes[WARM_UP:], receiver, len(changes))


def report(steady: Sequence[Change], receiver: Receiver, made: int) -> None:
    took = steady[-1].sent - steady[0].sent
    print(
        f"\nFrom a REST change to the frame on another member's socket: {RATE} changes/s wanted, "
        f"{(len(steady) - 1) / took:.0f}/s made by one process over {CONNECTIONS} connections; "
        f"{receiver.frames:,} frames for {made:,} changes"
    )
    seen = [
        (change, receiver.arrived[change.task_id]) for change in steady if change.task_id in receiver.arrived
    ]
    ways = {
        "request to frame": [arrived - change.sent for change, arrived in seen],
        "answer to frame": [arrived - change.answered for change, arrived in seen],
        "request to answer": [change.answered - change.sent for change in steady],
    }
    print_table(
        ("", *(f"p{percent} ms" if percent < 100 else "most ms" for percent in PERCENTS)),
        [
            [way, *(f"{1000 * percentile(delays, percent):.1f}" for percent in PERCENTS)]
            for way, delays in ways.items()
        ],
    )


def make_member(owner: Credential, team_id: UUID) -> Credential:
    """Somebody else in the team."""
    with transaction() as session:
        user = users.register(session, email="other@example.com", name="Other", password_hash="none")
        _, token = sessions.open_session(session, user, origin=Origin(), days=1)
    with transaction() as session:
        access = enter_team(session, owner, team_id)
        members.add(session, access, teams.get(session, access), user=user, role="member")
    return Credential(token)


def make_changes(url: str, path: str, token: str, count: int) -> list[Change]:
    """Creates tasks at RATE; in the order in which they were due."""
    address = urlsplit(url)
    connections = local()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    begun = time.monotonic() + 1

    def create(number: int) -> Change:
        if not hasattr(connections, "own"):
            connections.own = HTTPConnection(address.hostname or "", address.port, timeout=30)
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        sent = time.monotonic()
        connections.own.request("POST", path, orjson.dumps({"title": f"Task {number}"}), headers)
        answer = connections.own.getresponse()
        body = answer.read()
        answered = time.monotonic()
        assert answer.status == 201, body
        return Change(orjson.loads(body)["id"], sent, answered)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(create, range(count)))


if __name__ == "__main__":
    main()
