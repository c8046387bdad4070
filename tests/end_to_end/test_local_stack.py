"""`python -m api.local`: one command serves the product, whatever dies comes back, and nothing is left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from api.supervision import MARK, ROOT, stack_processes

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]


@dataclass
class Stack:
    """A running stack, seen from outside."""

    data: Path
    port: int
    process: subprocess.Popen[str]
    output: str = ""

    def api(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Asks again while the product is disturbed, as a client should; the key keeps that from doing things twice."""
        headers = {"Idempotency-Key": str(uuid4())} | request.pop("headers", {})

        def answer() -> httpx.Response | None:
            with suppress(httpx.TransportError):
                answer = self.once(method, path, headers=headers, **request)
                disturbed = answer.status_code == 503 or "still running" in answer.text
                return None if disturbed else answer
            return None

        answered: httpx.Response = eventually(answer, 20)
        return answered

    def once(self, method: str, path: str, **request: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, timeout=10, trust_env=False, **request)

    def program(self, name: str) -> int | None:
        """The process that supervisord started under this name; None while it has none (0 would be our own group)."""
        supervisord = int((self.data / "supervisord.pid").read_text())
        for process in stack_processes(self.data):
            with suppress(psutil.Error):
                environment = process.environ()  # type: ignore[no-untyped-call]
                if process.ppid() == supervisord and environment.get("SUPERVISOR_PROCESS_NAME") == name:
                    return int(process.pid)
        return None

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            answer = self.once("GET", "/health/ready")
            return answer.status_code == 200 and answer.json()["status"] == "ready"
        return False


def launch(data: Path, port: int) -> "subprocess.Popen[str]":
    given = {
        name: value
        for name, value in os.environ.items()
        if name not in {"DATABASE_URL", "REDIS_URL", "ENCRYPTION_KEY", "SIGNING_KEY", MARK}
    }
    return subprocess.Popen(
        [sys.executable, "-m", "api.local"],
        cwd=ROOT,
        env=given | {"AGENTHQ_DATA": str(data), "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    data, port = tmp_path_factory.mktemp("stack"), free_port()
    with launch(data, port) as process:
        running = Stack(data, port, process)
        assert process.stdout is not None
        for line in process.stdout:
            running.output += line
            if "Ctrl-C" in line:
                break
        try:
            yield running
        finally:
            process.terminate()  # what the last test did, unless it failed
            process.wait(30)


def sign_in(stack: Stack) -> dict[str, str]:
    login = re.search(r"login: (\S+), password (\S+)", stack.output)
    assert login, stack.output
    answer = stack.api("POST", "/api/v1/auth/login", json={"email": login[1], "password": login[2]})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def assert_change_reaches_the_log(stack: Stack, headers: dict[str, str]) -> None:
    made = stack.api("POST", "/api/v1/teams", json={"name": "Kill test"}, headers=headers)
    assert made.status_code == 201, made.text
    path = f"/api/v1/teams/{made.json()['id']}/activity"

    def actions() -> list[str]:
        items = stack.api("GET", path, headers=headers).json()["items"]
        return [item["action"] for item in items]

    eventually(lambda: "team_created" in actions())
    assert set(actions()) <= {"team_created", "activity_read"}  # asking is noted


def test_prints_where_it_serves_and_a_login_that_works(stack: Stack) -> None:
    assert f"http://127.0.0.1:{stack.port}" in stack.output
    assert stack.is_ready()
    assert_change_reaches_the_log(stack, sign_in(stack))


def test_a_second_stack_on_the_same_data_is_refused(stack: Stack) -> None:
    with launch(stack.data, free_port()) as second:
        output, _ = second.communicate(timeout=30)
    assert (second.returncode, "already runs" in output) == (1, True)


def test_a_port_in_use_is_refused_before_anything_starts(stack: Stack, tmp_path: Path) -> None:
    with launch(tmp_path, stack.port) as second:
        output, _ = second.communicate(timeout=30)
    assert (second.returncode, f"port {stack.port}" in output) == (1, True)
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize("program", ["postgres", "valkey", "web", "worker", "beat"])
def test_what_is_killed_comes_back_and_loses_nothing(stack: Stack, program: str) -> None:
    headers = sign_in(stack)
    killed = eventually(lambda: stack.program(program))  # the one before may have taken it down with it
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: stack.program(program) not in {None, killed} and stack.is_ready())
    assert_change_reaches_the_log(stack, headers)


def test_secrets_on_disk_are_their_owners(stack: Stack) -> None:
    for secret in ("demo-password", "encryption-key", "signing-key", "valkey/password", "valkey/valkey.conf"):
        assert (stack.data / secret).stat().st_mode & 0o077 == 0
    assert (stack.data / "postgres" / "socket").stat().st_mode & 0o077 == 0 or len(str(stack.data)) > 60


def test_sigterm_ends_everything_and_the_next_run_finds_its_data(stack: Stack) -> None:
    begun = time.monotonic()
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(30) == 0
    assert time.monotonic() - begun < 15
    assert stack_processes(stack.data) == []

    with launch(stack.data, stack.port) as again:
        eventually(stack.is_ready)
        headers = sign_in(stack)  # with the password of the first run
        names = [t["name"] for t in stack.api("GET", "/api/v1/teams", headers=headers).json()["items"]]
        assert "Kill test" in names
        again.kill()  # and when its parent is killed, the rest goes as well
        again.wait()
        eventually(lambda: not stack_processes(stack.data))
