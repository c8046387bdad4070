"""The streamed export under gunicorn's gevent worker: what a client sees of a database that goes, and the server of a client."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

from api.streams import AT_ONCE
from tests.api.exports import happen_often
from tests.factories import TeamSetting, fetch, make_team

ROOT = Path(__file__).parents[2]
ROWS = 60_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("web") / "log"
    environment = {**os.environ, "PORT": str(port), "WEB_WORKERS": "1", "WEB_ROLE": "api"}
    command = [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.conf.py", "wsgi:app"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        eventually(lambda: serves(port), log)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def serves(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def eventually(condition: Callable[[], object], log: Path | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log and log.read_text()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def team(app: Flask) -> TeamSetting:
    setting = make_team(app, roles=())
    happen_often(setting.id, setting.owner.id, ROWS)
    return setting


@contextmanager
def opened(address: str, team: TeamSetting, method: str = "GET") -> Iterator[http.client.HTTPResponse]:
    """An export of which nothing but the headers has been read; the client goes away at the end."""
    connection = http.client.HTTPConnection(address, timeout=30)
    path = f"/api/v1{team.path}/activity/export"
    with closing(connection):
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.request(method, path, headers={"Authorization": f"Bearer {team.owner.token}"})
        with closing(connection.getresponse()) as answer:
            yield answer


def streams() -> list[Any]:
    """The connections that read an export; one that is given back has said something else since."""
    return fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'FETCH FORWARD%'"
    )


def test_it_comes_whole_in_chunks(address: str, team: TeamSetting) -> None:
    with opened(address, team) as answer:
        assert (answer.status, answer.getheader("Transfer-Encoding")) == (200, "chunked")
        assert answer.read().count(b"\n") > ROWS


def test_head_has_no_body(address: str, team: TeamSetting) -> None:
    with opened(address, team, "HEAD") as answer:
        assert (answer.status, answer.read()) == (200, b"")


def test_a_database_that_goes_in_the_middle_is_no_end(address: str, team: TeamSetting) -> None:
    with opened(address, team) as answer:
        begun = answer.read(10_000)
        eventually(streams)
        assert fetch("SELECT pg_terminate_backend(:pid)", pid=streams()[0].pid)
        with pytest.raises(http.client.IncompleteRead) as raised:
            answer.read()
    assert 0 < len(begun) + len(raised.value.partial) < ROWS * 300
    with opened(address, team) as answer:
        assert answer.read().count(b"\n") > ROWS


def test_a_client_that_goes_away_is_noticed(address: str, team: TeamSetting) -> None:
    with opened(address, team) as answer:
        answer.read(10_000)
        eventually(streams)
    eventually(lambda: not streams())


def test_others_are_served_while_slow_readers_read(address: str, team: TeamSetting) -> None:
    with ExitStack() as held:
        answers = [held.enter_context(opened(address, team)) for _ in range(AT_ONCE)]
        assert [answer.status for answer in answers] == [200] * AT_ONCE
        with opened(address, team) as refused:
            assert (refused.status, refused.getheader("Retry-After")) == (503, "10")
        headers = {"Authorization": f"Bearer {team.owner.token}"}
        with httpx.Client(base_url=f"http://{address}/api/v1", headers=headers) as client:
            assert [client.get(team.path).status_code for _ in range(30)] == [200] * 30
    eventually(lambda: not streams())
    with opened(address, team) as answer:
        assert answer.status == 200
