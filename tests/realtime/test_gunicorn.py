"""The same sockets under gunicorn's gevent worker, as its own process: partial writes, many sockets, a stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.realtime.conftest import Connect, Team, drain, project

ROOT = Path(__file__).parents[2]


class Gunicorn:
    def __init__(self, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.log = log
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-c",
            "api/gunicorn.conf.py",
            "-w",
            "1",
            "-b",
            self.address,
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "tests.realtime.served:app"],
                cwd=ROOT,
                env=os.environ,
                stderr=output,
                stdout=output,
            )
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        host, port = self.address.split(":")
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    served = Gunicorn(tmp_path_factory.mktemp("gunicorn") / "log")
    yield served
    served.stop()
    assert "Traceback" not in served.log.read_text()


def test_large_frames_survive_partial_writes(gunicorn: Gunicorn, connect_to: Connect, team: Team) -> None:
    slow = connect_to(team, team.member, address=gunicorn.address, receive_buffer=4096).ready()
    first = team.head() + 1
    for _ in range(20):
        team.happen(3, name="x" * 60_000)
        drain()
        slow.ws.ping()  # answered between the frames, not within one
        time.sleep(0.01)
        assert slow.seqs(3) == list(range(first, first + 3))
        first += 3
    team.happen(14, name="x" * 60_000)
    drain()
    time.sleep(1)
    assert slow.seqs(14) == list(range(first, first + 14))


def test_a_slow_reader_reads_whole_frames_and_then_4008(
    gunicorn: Gunicorn, connect_to: Connect, team: Team
) -> None:
    slow = connect_to(team, team.member, address=gunicorn.address, receive_buffer=4096).ready()
    healthy = connect_to(team, team.viewer, address=gunicorn.address).ready()
    first = team.head() + 1
    for _ in range(60):
        team.happen(2, name="x" * 60_000)
        drain()
        assert len(healthy.seqs(2)) == 2
    shown, code = slow.read_to_the_end()
    assert code == 4008
    assert [message["seq"] for message in shown] == list(range(first, first + len(shown)))


def test_messages_events_and_resuming_work_across_processes(
    gunicorn: Gunicorn, connect_to: Connect, team: Team
) -> None:
    here = connect_to(team, team.member).ready()
    there = connect_to(team, team.viewer, address=gunicorn.address).ready()
    here.send("cursor", {"x": 1})
    assert here.receive() == there.receive_type("cursor")
    before = team.head()
    team.happen(3)
    drain()
    assert here.seqs(3) == there.seqs(3) == [before + 1, before + 2, before + 3]
    team.happen(2)
    project()
    assert here.seqs(2) == there.seqs(2)
    resumed = connect_to(team, team.viewer, address=gunicorn.address)
    resumed.hello(last_seq=before)
    assert resumed.seqs(5) == list(range(before + 1, before + 6))


def test_refusals_and_revocations_have_their_codes(
    gunicorn: Gunicorn, connect_to: Connect, team: Team
) -> None:
    assert connect_to(team, address=gunicorn.address).close_code() == 1008
    client = connect_to(team, team.member, address=gunicorn.address).ready()
    client.ws.send("x" * 60_000)
    assert client.close_code() == 1009
    revoked = connect_to(team, team.member, address=gunicorn.address).ready()
    team.remove(team.member)
    assert revoked.close_code() == 4001


def test_a_stop_says_1001_and_is_prompt(tmp_path: Path, connect_to: Connect, team: Team) -> None:
    served = Gunicorn(tmp_path / "log")
    clients = [connect_to(team, team.member, address=served.address).ready() for _ in range(5)]
    started = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    assert [client.close_code() for client in clients] == [1001] * 5
    assert served.process.wait(20) == 0
    assert time.monotonic() - started < 5
    log = served.log.read_text()
    assert "Traceback" not in log
    assert team.member.token not in log


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel to be told of the parent's death")
def test_workers_of_a_killed_master_let_go_of_the_port(
    tmp_path: Path, connect_to: Connect, team: Team
) -> None:
    served = Gunicorn(tmp_path / "log")
    host, port = served.address.split(":")
    client = connect_to(team, team.member, address=served.address).ready()
    with socket.create_connection((host, int(port))) as idle:  # a connection that is kept alive
        idle.sendall(b"GET /nothing HTTP/1.1\r\nHost: here\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 404")
        started = time.monotonic()
        served.process.kill()
        served.process.wait()
        assert client.close_code() == 1001
        while True:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, int(port)))
                    break
                except OSError:
                    assert time.monotonic() - started < 10, served.log.read_text()
                    time.sleep(0.05)
