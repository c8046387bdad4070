"""supervisord and its programs: starts them in order, restarts whatever dies, stops them in the opposite order."""

# ruff: noqa: S603 (every command here is put together here, of nobody's input)

import configparser
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn
from xmlrpc.client import ServerProxy  # to our own supervisord, through its socket  # nosec B411

import psutil
from supervisor.xmlrpc import SupervisorTransport

from api.embedded import StackError, log_tail, private_directory, socket_directory
from models.processes import die_with_parent

ROOT = Path(__file__).resolve().parent.parent
MARK = "AGENTHQ_STACK"
"""The variable that all processes of a stack carry, with its data directory."""


def end_leftovers(data: Path) -> None:
    """Ends what a supervisord that was killed left behind: two servers on the same files would destroy them."""
    left = stack_processes(data)
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(number)  # type: ignore[no-untyped-call]
        _, left = psutil.wait_procs(left, timeout=10)  # type: ignore[no-untyped-call]


def stack_processes(data: Path) -> list[psutil.Process]:
    """The processes of a stack on this data directory, save the one that supervises it."""
    return [process for process in psutil.process_iter() if _is_marked(process, data)]  # type: ignore[no-untyped-call]


def _is_marked(process: psutil.Process, data: Path) -> bool:
    with suppress(psutil.Error, OSError):
        return bool(process.environ().get(MARK) == str(data))  # type: ignore[no-untyped-call]
    return False


@dataclass(frozen=True, slots=True)
class Program:
    """One long-running process and how it is stopped."""

    name: str
    command: Sequence[str]
    stop_signal: str = "TERM"
    stop_seconds: int = 7
    """How long it may take to stop before it is killed."""
    directory: Path = ROOT


class Supervisor:
    """supervisord with groups of programs, which start when told, in this order, and stop in the opposite one.

    It runs in a session of its own, so that a Ctrl-C reaches this process alone, and stops everything in order when
    this process dies. All of its processes carry a mark in their environment, so that none can outlive it unnoticed.
    """

    def __init__(
        self, data: Path, environment: Mapping[str, str], groups: Mapping[str, Sequence[Program]]
    ) -> None:
        self.data = data
        self.log = data / "log"
        self.environment = {**environment, MARK: str(data)}
        self._groups = groups
        self._control = socket_directory(data / "control") / "supervisord.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Starts supervisord without any program."""
        for directory in (self.log, self._control.parent):
            private_directory(directory, (os.geteuid(), os.getegid()))
        configuration = self.data / "supervisord.conf"
        with configuration.open("w") as file:
            self._configuration().write(file)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
        with (self.log / "supervisord.log").open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (one system call, no lock)
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        deadline = time.monotonic() + 15
        while self._states("") is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"supervisord does not come up. {log_tail(self.log / 'supervisord.log')}")
            time.sleep(0.02)

    def start(self, group: str, problem: Callable[[], str | None]) -> None:
        """Starts a group's programs and returns once `problem` finds none; raises StackError when that does not come."""
        if self._groups[group]:
            self._rpc().startProcessGroup(group, False)
        begun = time.monotonic()
        while True:
            found = problem()
            states = self._states(group) or {}
            failing = [name for name, state in states.items() if state in {"BACKOFF", "FATAL"}]
            if not found and not failing:
                return
            waited = time.monotonic() - begun
            if waited > 60 or (failing and waited > 3):
                blamed = failing or list(states)
                logs = "\n".join(log_tail(self.log / f"{name}.log") for name in blamed)
                raise StackError(
                    f"{' and '.join(blamed)} did not come up: {found or 'ends again and again'}\n{logs}"
                )
            time.sleep(0.1)

    def wait(self) -> NoReturn:
        """Returns never; raises StackError when supervisord ends by itself."""
        if self._process is not None:
            self._process.wait()
        raise StackError(f"supervisord ended unexpectedly. {log_tail(self.log / 'supervisord.log')}")

    def stop(self) -> None:
        """Stops all programs, last group first, and supervisord; nothing of them is left."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        end_leftovers(self.data)

    def _rpc(self) -> Any:
        # Only the transport knows the socket, the address is a formality; after a failed call it is of no more use.
        transport = SupervisorTransport(serverurl=f"unix://{self._control}")  # type: ignore[no-untyped-call]
        return ServerProxy("http://localhost", transport=transport).supervisor

    def _states(self, group: str) -> dict[str, str] | None:
        """Each program's state by its name; None while supervisord does not answer."""
        try:
            programs = self._rpc().getAllProcessInfo()
        except (OSError, HTTPException):
            return None
        return {program["name"]: program["statename"] for program in programs if program["group"] == group}

    def _configuration(self) -> configparser.RawConfigParser:
        sections: dict[str, dict[str, object]] = {
            # In the foreground it also logs to its standard output, which is where the log is kept.
            "supervisord": {"nodaemon": "true", "logfile": "/dev/null", "logfile_maxbytes": 0,
                            "pidfile": self.data / "supervisord.pid"},
            "unix_http_server": {"file": self._control, "chmod": "0700"},
            "rpcinterface:supervisor": {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
            "supervisorctl": {"serverurl": f"unix://{self._control}"},  # supervisorctl -c var/supervisord.conf status
        }  # fmt: skip
        for priority, (group, programs) in enumerate(self._groups.items(), start=1):
            if programs:
                names = ",".join(program.name for program in programs)
                sections[f"group:{group}"] = {"programs": names, "priority": priority}
            sections |= {f"program:{program.name}": self._program(program) for program in programs}
        parser = configparser.RawConfigParser()
        for title, section in sections.items():
            parser[title] = {name: str(value).replace("%", "%%") for name, value in section.items()}
        return parser

    def _program(self, program: Program) -> dict[str, object]:
        return {
            "command": shlex.join(program.command),
            "directory": program.directory,
            "autostart": "false",
            "autorestart": "true",
            "startsecs": 5,  # whatever dies younger is started again a second later than the time before
            "startretries": 1_000_000,
            "stopsignal": program.stop_signal,
            "stopwaitsecs": program.stop_seconds,
            "killasgroup": "true",  # not stopasgroup: a server tells its own children to stop, after their work
            "redirect_stderr": "true",
            "stdout_logfile": self.log / f"{program.name}.log",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 3,
        }
