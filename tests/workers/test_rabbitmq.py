"""RabbitMQ as the broker (BROKER_URL): the drain is woken, beat's ticks come, and a broker that was away costs no event."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import amqp
import pytest
from flask import Flask
from redis import Redis

from api.waker import AWAKE_KEY
from models.settings import settings
from tests.factories import TeamSetting, make_team
from tests.workers.test_stack import ROOT, Program, assert_complete, eventually, happen, stream

RABBITMQ = Path("/usr/lib/rabbitmq/bin")
"""Debian's package rabbitmq-server; the commands in /usr/sbin would change the user."""
pytestmark = [
    pytest.mark.skipif(not RABBITMQ.exists(), reason=f"RabbitMQ is not installed (no {RABBITMQ})"),
    pytest.mark.timeout(300),
]


class RabbitMQ:
    """A node of its own, with all that it keeps in one directory."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "node.log"
        node_port, self.port, epmd_port = _free_ports(3)
        configuration = directory / "rabbitmq.conf"
        configuration.write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console.level = error\n")
        (directory / "enabled_plugins").write_text("[].\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(directory),  # where the cookie is kept
            "RABBITMQ_NODENAME": f"agenthq-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_BASE": str(directory),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(configuration.with_suffix("")),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [RABBITMQ / "rabbitmq-server"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with self.channel():
                return True
        except (OSError, amqp.AMQPError):
            return False

    @contextmanager
    def channel(self) -> Iterator[Any]:
        with amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=2) as connection:
            yield connection.channel()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def end(self) -> None:
        self.stop()
        subprocess.run(["epmd", "-kill"], env=self._environment, check=False, capture_output=True)


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    directory = Path(tempfile.mkdtemp(prefix="agenthq-rabbitmq-"))
    node = RabbitMQ(directory)
    try:
        node.start()
        yield node
    finally:
        node.end()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def worker(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("rabbitmq")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROKER_URL", rabbitmq.url)
        url = settings().redis_url
        worker = Program(directory / "worker.log", url, "worker", "--concurrency=2", "--without-mingle")
        beat = Program(directory / "beat.log", url, "beat", "--schedule", str(directory / "schedule"))
    try:
        yield worker
    finally:
        beat.stop()
        worker.stop()


def test_queues_are_quorum_queues(rabbitmq: RabbitMQ, worker: Program) -> None:
    """Declared as any other kind, they would not be the ones that are there."""

    def declared() -> bool:
        try:
            with rabbitmq.channel() as channel:
                channel.queue_declare("outbox", passive=True)
        except amqp.NotFound:
            return False
        return True

    eventually(declared, worker, 60)
    with (
        rabbitmq.channel() as channel,
        pytest.raises(amqp.PreconditionFailed, match="x-queue-type"),
    ):
        channel.queue_declare(
            "outbox", durable=True, auto_delete=False, arguments={"x-queue-type": "classic"}
        )


WAKE = (
    "from api.waker import Waker; from models.settings import settings; Waker(settings().redis_url)._send()"
)


def test_a_wake_reaches_the_drain(
    rabbitmq: RabbitMQ, worker: Program, team: TeamSetting, redis: Redis
) -> None:
    """As a web process sends it, whose settings name this broker."""
    eventually(lambda: not redis.exists(AWAKE_KEY), worker)
    environment = os.environ | {"BROKER_URL": rabbitmq.url}
    with rabbitmq.channel() as channel:
        subprocess.run([sys.executable, "-c", WAKE], cwd=ROOT, env=environment, check=True)
        eventually(lambda: not redis.exists(AWAKE_KEY), worker)  # the drain took it away, as it went to sleep
        eventually(lambda: channel.queue_declare("outbox", passive=True).message_count == 0, worker)
    happened = happen(team)
    assert_complete(team, [happened], worker)


def test_a_rabbitmq_that_is_away_for_a_while_costs_no_event(
    rabbitmq: RabbitMQ, worker: Program, app: Flask
) -> None:
    """Beat's ticks alone bring the rest: nobody wakes the drain here."""
    team = make_team(app, roles=())
    about: list[UUID] = [happen(team)]
    assert_complete(team, about, worker)
    with stream(team, about):
        rabbitmq.stop()
        time.sleep(2)
        rabbitmq.start()
    eventually(rabbitmq.answers, worker)
    assert_complete(team, about, worker)
    assert len(about) > 60
