"""A real Celery worker and beat on the tests' database: killed, and without their broker for a while."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.database import transaction
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.settings import settings
from realtime.channels import team_channel
from realtime.messages import Envelope
from tests.factories import TeamSetting, make_team
from tests.servers import server_classes

ROOT = Path(__file__).parents[2]


class Program:
    """`celery -A workers.app …` in a process group of its own."""

    def __init__(self, log: Path, redis_url: str, *arguments: str) -> None:
        self.log = log
        self._environment = {**os.environ, "REDIS_URL": redis_url, "LOG_LEVEL": "WARNING"}
        self._command = [sys.executable, "-m", "celery", "-A", "workers.app", *arguments]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        """The whole group at once, as a machine that loses its power would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def kill_a_child(self) -> None:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def running(directory: Path, redis_url: str) -> Iterator[Program]:
    """A worker, which is given, and beat."""
    worker = Program(directory / "worker.log", redis_url, "worker", "--concurrency=2", "--without-mingle")
    beat = Program(directory / "beat.log", redis_url, "beat", "--schedule", str(directory / "schedule"))
    try:
        yield worker
    finally:
        beat.stop()
        worker.stop()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(tmp_path_factory.mktemp("stack"), settings().redis_url) as worker:
        yield worker


def happen(team: TeamSetting) -> UUID:
    workspace_id = uuid7()
    with transaction() as session:
        record(
            session,
            team.owner.enter(session, team.id),
            WorkspaceCreated(workspace_id=workspace_id, name="Research"),
        )
    return workspace_id


def log_of(team_id: UUID) -> list[Any]:
    with transaction() as session:
        statement = text(
            "SELECT seq, id, action, resource_id FROM activity_logs WHERE team_id = :id ORDER BY seq"
        )
        return list(session.execute(statement, {"id": team_id}))


def eventually(condition: Callable[[], object], program: Program, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (
            f"It did not come about in time. {program.log.read_text()[-3000:]}"
        )
        time.sleep(0.02)


def assert_complete(team: TeamSetting, about: list[UUID], program: Program) -> None:
    """Every one of them once and in order, numbered without gaps, and nothing left behind."""
    eventually(lambda: set(about) <= {row.resource_id for row in log_of(team.id)}, program)
    log = log_of(team.id)
    assert [row.seq for row in log] == list(range(1, len(log) + 1))
    assert len({row.id for row in log}) == len(log)
    ours = set(about)
    assert [row.resource_id for row in log if row.resource_id in ours] == about


def test_an_event_of_the_api_reaches_the_log_and_the_channel(
    team: TeamSetting, worker: Program, redis: Redis
) -> None:
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(team_channel(team.id))
        pubsub.get_message(ignore_subscribe_messages=False, timeout=5)
        created = team.owner.post(f"{team.path}/workspaces", json={"name": "Lab"}).json
        assert_complete(team, [UUID(created["id"])], worker)
        number = log_of(team.id)[-1].seq
        seen: list[Envelope] = []

        def arrived() -> bool:
            if message := pubsub.get_message(timeout=0.1):
                seen.append(Envelope.unseal(message["data"]))
            return number in [envelope.seq for envelope in seen]

        eventually(arrived, worker)
    assert created["id"].encode() in seen[-1].payload


def test_what_the_api_counts_is_folded(team: TeamSetting, worker: Program) -> None:
    team.task()

    def folded() -> bool:
        with transaction() as session:
            statement = text(
                "SELECT count(*) FROM usage_stats s WHERE team_id = :id AND tasks_created = 1 "
                "AND NOT EXISTS (SELECT FROM usage_pending WHERE team_id = :id)"
            )
            return bool(session.scalar(statement, {"id": team.id}))

    eventually(folded, worker)


@contextmanager
def stream(team: TeamSetting, about: list[UUID]) -> Iterator[None]:
    """Events all the while, one after the other."""
    going = threading.Event()
    going.set()

    def write() -> None:
        while going.is_set():
            about.append(happen(team))
            time.sleep(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        going.clear()
        thread.join()


def test_a_worker_killed_in_the_middle_of_a_stream(team: TeamSetting, worker: Program) -> None:
    about = [happen(team)]
    assert_complete(team, about, worker)
    with stream(team, about):
        for kill in (worker.kill_a_child, worker.kill, worker.kill_a_child):
            already = len(log_of(team.id))
            team.owner.post(f"{team.path}/workspaces", json={"name": "Wakes the drain"})
            eventually(lambda already=already: len(log_of(team.id)) > already + 20, worker)  # type: ignore[misc]
            kill()
            if kill == worker.kill:
                worker.start()
    assert_complete(team, about, worker)
    assert len(about) > 60


def test_a_broker_that_is_away_and_comes_back_with_nothing(
    app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("stack")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)  # root's server runs as another user
    server = server_classes()[1](directory / "valkey", durable=False).start()
    team = make_team(app, roles=())
    try:
        with running(directory, server.url) as worker:
            about = [happen(team)]
            assert_complete(team, about, worker)
            with stream(team, about):
                server.stop()
                time.sleep(2)
                server.start()
            assert_complete(team, about, worker)
            with Redis.from_url(server.url) as broker:
                eventually(lambda: broker.exists("_kombu.binding.outbox"), worker)
    finally:
        server.stop()
