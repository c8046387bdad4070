"""
Webhooks: how many events a second one worker process delivers to a receiver on this machine, and what the POSTs alone cost.

`python -m benchmarks.webhooks [--events N]`. It starts its own PostgreSQL and Valkey, as durable as `make run`'s, fills the
logs of its teams, and lets the product's own task body (workers/webhooks.py) send them to a receiver in another process,
which answers 204 to whatever comes. Beside it, in turns: the same bodies posted over one connection without the product.
"""

import argparse
import asyncio
import os
import re
import secrets
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from uuid import UUID, uuid4

from sqlalchemy import text

from benchmarks.measuring import print_table, servers
from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import enter, enter_team
from models.database import transaction
from models.destinations import parse
from models.operations import activity, sessions, teams, users, webhook_messages, webhooks
from models.posting import Poster
from models.queries import teams as team_queries
from models.settings import settings
from workers.webhooks import THREADS, deliver_due

ROUNDS = 3
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
FILL = """
INSERT INTO outbox (event_id, team_id, action, user_id, resource_type, resource_id, resource_name, details)
SELECT uuid7(), t.id, 'task_created', t.owner_id, 'task', uuid7(), 'Read the price list',
       jsonb_build_object('task_id', uuid7(), 'workspace_id', uuid7(), 'title', 'Read the price list',
                          'status', 'pending', 'assignee_id', NULL)
FROM generate_series(1, :events) AS n, teams t WHERE t.id = :team_id
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    parser.add_argument("--events", type=int, default=4_000, metavar="N")
    events = parser.parse_args(argv).events
    os.environ["ENCRYPTION_KEY"] = "A" * 43 + "="
    os.environ["WEBHOOK_PRIVATE_NETWORKS"] = "127.0.0.0/8"
    with servers(durable=True), receiver() as url:
        rates: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            rates.setdefault("POSTs alone, one connection", []).append(bare(url, events))
            rates.setdefault("one webhook", []).append(delivered(url, 1, events))
            rates.setdefault(f"{THREADS} webhooks of as many teams", []).append(
                delivered(url, THREADS, events)
            )
    print_table(
        ["way", "deliveries/s, median", "least", "most"],
        [
            [way, *(f"{each:,.0f}" for each in (statistics.median(found), min(found), max(found)))]
            for way, found in rates.items()
        ],
    )


def bare(url: str, events: int) -> float:
    body, key = b"x" * 800, b"k" * 32
    with Poster(parse(url), settings().webhook_private_networks) as poster:
        started = time.monotonic()
        for _ in range(events):
            answer = poster.post(body, webhook_messages.headers([key], uuid4(), body))
            assert answer.delivered
        return events / (time.monotonic() - started)


def delivered(url: str, number: int, events: int) -> float:
    """Of so many webhooks, with so many events between them."""
    made = [make_webhook(url) for _ in range(number)]
    for team_id in made:
        with transaction() as session:
            session.execute(text(FILL), {"events": events // number, "team_id": team_id})
    while True:
        with transaction() as session:
            if not activity.project(session, limit=500):
                break
    started = time.monotonic()
    while not all_dealt_with(made):
        deliver_due()
    return (events // number) * number / (time.monotonic() - started)


def all_dealt_with(team_ids: list[UUID]) -> bool:
    with transaction() as session:
        behind = session.scalar(
            text("""
SELECT count(*) FROM webhooks w JOIN activity_heads h ON h.team_id = w.team_id
WHERE w.team_id = ANY(CAST(:ids AS uuid[])) AND w.delivered_seq < h.seq
"""),
            {"ids": team_ids},
        )
    return not behind


def make_webhook(url: str) -> UUID:
    """Of a new team; the team's id."""
    with transaction() as session:
        user = users.register(
            session, email=f"{secrets.token_hex(8)}@example.com", name="Owner", password_hash="-"
        )
        _, token = sessions.open_session(session, user, origin=Origin(), days=1)
    with transaction() as session:
        team_id = teams.create(session, enter(session, Credential(token)), name="Team").id
    with transaction() as session:
        access = enter_team(session, Credential(token), team_id)
        webhooks.create(session, access, team_queries.get(session, access, for_update=True), url=url)
    return team_id


@contextmanager
def receiver() -> Iterator[str]:
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/"
    finally:
        process.terminate()
        process.join()


class Receiving(asyncio.Protocol):
    def __init__(self) -> None:
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._waiting, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._waiting) < whole:
                return
            self._waiting = self._waiting[whole:]
            self._transport.write(ANSWER)


def _receive(port_to: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Receiving, "127.0.0.1", 0)
        port_to.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
