"""The whole product as `make run` starts it, and what can be killed of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import psycopg

from api.embedded import PostgresServer
from api.supervision import MARK, ROOT
from benchmarks.measuring import plain_url

UNLIMITED = "1000000000 per minute"
OURS = ("DATABASE_URL", "REDIS_URL", "SIGNING_KEY", "ENCRYPTION_KEY", "DATABASE_OWNER_URL", MARK)
"""Of the environment, what the stack makes for itself."""
BACKEND = re.compile(r"postgres: agenthq agenthq ")


class Stack:
    """A running stack, seen from outside."""

    def __init__(self, data: Path, port: int) -> None:
        self.data = data
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health/ready", timeout=5, trust_env=False).status_code == 200
        return False

    def database(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(plain_url(PostgresServer(self.data / PostgresServer.name).url))

    def program(self, name: str) -> psutil.Process | None:
        """What supervisord runs under this name; None while it runs nothing."""
        with suppress(psutil.Error, OSError, ValueError):
            supervisord = psutil.Process(int((self.data / "supervisord.pid").read_text()))  # type: ignore[no-untyped-call]
            children: list[psutil.Process] = supervisord.children()  # type: ignore[no-untyped-call]
            for process in children:
                with suppress(psutil.Error):
                    if process.environ().get("SUPERVISOR_PROCESS_NAME") == name:  # type: ignore[no-untyped-call]
                        return process
        return None

    def children(self, name: str) -> list[psutil.Process]:
        with suppress(psutil.Error):
            if program := self.program(name):
                return list(program.children())  # type: ignore[no-untyped-call]
        return []

    def backends(self) -> list[psutil.Process]:
        """Of PostgreSQL's processes, those that serve a connection of the product's."""
        found = []
        for process in self.children("postgres"):
            with suppress(psutil.Error):
                if BACKEND.match(" ".join(process.cmdline())):  # type: ignore[no-untyped-call]
                    found.append(process)
        return found


def _program(name: str) -> Callable[[Stack], list[psutil.Process]]:
    return lambda stack: [program] if (program := stack.program(name)) else []


def _child(name: str) -> Callable[[Stack], list[psutil.Process]]:
    return lambda stack: stack.children(name)


VICTIMS: Mapping[str, Callable[[Stack], list[psutil.Process]]] = {
    "web worker": _child("web"),
    "gunicorn master": _program("web"),
    "Celery child": _child("worker"),
    "Celery worker": _program("worker"),
    "beat": _program("beat"),
    "Valkey": _program("valkey"),
    "PostgreSQL backend": Stack.backends,
    "postmaster": _program("postgres"),
}


def kill(process: psutil.Process) -> bool:
    """`kill -9`; whether there still was something to kill."""
    try:
        process.send_signal(signal.SIGKILL)  # type: ignore[no-untyped-call]
    except psutil.NoSuchProcess:
        return False
    return True


@contextmanager
def running(data: Path, port: int, **more: str) -> Iterator[Stack]:
    """The stack with `more` in its environment, once it is ready; raises AssertionError with what it printed when it does not get there."""
    given = {name: value for name, value in os.environ.items() if name not in OURS}
    settings = {
        "AGENTHQ_DATA": str(data), "PORT": str(port), "WEB_WORKERS": "3", "LOG_LEVEL": "WARNING",
        "RATE_LIMIT_AUTH": UNLIMITED, "RATE_LIMIT_API": UNLIMITED, **more,
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "api.local"],
        cwd=ROOT,
        env=given | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "is ready" in line:
                break
        else:
            raise AssertionError(f"the stack did not come up: {printed}")
        try:
            yield Stack(data, port)
        finally:
            process.terminate()
            process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns once the condition holds; raises AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
