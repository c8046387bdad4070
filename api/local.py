"""The whole product on one machine: `python -m api.local` is what `make run` executes.

supervisord runs PostgreSQL and Valkey (from their wheels, unless DATABASE_URL or REDIS_URL name others), the web
server, the Celery worker and beat, and restarts whatever dies. This process prepares their data, starts them in order,
waits until the product is ready and stops them in the opposite order.
"""

import argparse
import base64
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from environs import EnvError
from sqlalchemy.exc import SQLAlchemyError

from api.cli import DEMO_EMAIL, seed
from api.embedded import EmbeddedServer, PostgresServer, StackError, ValkeyServer, port_problem, write_secret
from api.supervision import ROOT, Program, Supervisor, end_leftovers
from models.database import forget_engine
from models.errors import DomainError
from models.grants import Refused
from models.settings import Settings

__all__ = ["PostgresServer", "StackError", "ValkeyServer", "main"]

EMBEDDED = "embedded"
"""Stands for the URL of a server that the stack brings itself."""


class StopRequested(BaseException):
    """SIGINT or SIGTERM came; like KeyboardInterrupt, no `except Exception` swallows it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stack until a signal; returns the exit code."""
    arguments = _parse(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _request_stop)
    try:
        settings = _settings()
        with _exclusive(settings.data_directory):
            return _serve(settings, arguments)
    except StopRequested:
        return 0
    except (StackError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m api.local", description="The whole product on one machine."
    )
    parser.add_argument("--demo", nargs="?", const="", metavar="TRACE", help="replay a trace, then stop")
    parser.add_argument("--keep", action="store_true", help="with --demo: keep serving after the replay")
    return parser.parse_args(argv)


def _settings() -> Settings:
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ[name] = os.environ.get(name) or EMBEDDED
    try:
        settings = Settings.from_environment()
    except EnvError as error:
        raise StackError(str(error)) from error
    return replace(settings, data_directory=settings.data_directory.absolute())


@contextmanager
def _exclusive(data: Path) -> Iterator[None]:
    """Holds the data directory for this process alone; raises StackError when another stack runs on it."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"a stack already runs on {data}; stop it, or set AGENTHQ_DATA to another directory"
            ) from None
        yield


def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    end_leftovers(settings.data_directory)
    if problem := port_problem(settings.port, settings.bind_host):
        raise StackError(
            f"can't listen on port {settings.port} ({problem}); free it, or set PORT to another one"
        )
    servers = _embedded_servers(settings)
    databases = [
        Program(server.name, server.prepare(), stop_signal="INT", directory=Path("/")) for server in servers
    ]
    environment = _environment(settings, servers, demo=arguments.demo is not None)
    groups = {"databases": databases, "app": _app_programs(settings)}
    supervisor = Supervisor(settings.data_directory, environment, groups)
    try:
        _start(supervisor, settings, servers)
        if arguments.demo is not None:
            code = _replay(supervisor, settings, arguments.demo)
            if not arguments.keep:
                return code
        supervisor.wait()
    finally:
        _ignore_signals()
        _say("Stopping")
        supervisor.stop()
        _say("Stopped")


def _start(supervisor: Supervisor, settings: Settings, servers: Sequence[EmbeddedServer]) -> None:
    _say(f"Starting in {settings.data_directory}")
    supervisor.launch()
    supervisor.start("databases", lambda: next(filter(None, (server.problem() for server in servers)), None))
    _say("Migrating the database")
    _migrate_and_seed(supervisor.environment | {"DEMO_PASSWORD": _demo_password(settings)})
    _say("Starting web, worker and beat")
    supervisor.start("app", lambda: _readiness_problem(settings))
    _say(f"AgentHQ is ready at {_address(settings)}")
    _say(f"Demo login: {DEMO_EMAIL}, password {_demo_password(settings)}")
    _say(f"Logs are in {supervisor.log}; Ctrl-C stops everything")


def _migrate_and_seed(environment: Mapping[str, str]) -> None:
    """Does `flask db upgrade` and `flask seed` in this process, which has imported what they need: seconds less."""
    os.environ.update(environment)
    config = Config(ROOT / "migrations" / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations").replace("%", "%%"))
    try:
        command.upgrade(config, "head")
        seed.main([], standalone_mode=False)
    except EnvError as error:
        raise StackError(str(error)) from error
    except (SQLAlchemyError, CommandError, DomainError, Refused) as error:
        raise StackError(f"the database can't be migrated: {error}") from error
    finally:
        forget_engine()


def _embedded_servers(settings: Settings) -> list[EmbeddedServer]:
    data = settings.data_directory
    servers: list[EmbeddedServer] = []
    if settings.database_url == EMBEDDED:
        servers.append(PostgresServer(data / PostgresServer.name))
    if settings.redis_url == EMBEDDED:
        servers.append(ValkeyServer(data / ValkeyServer.name))
    return servers


def _environment(settings: Settings, servers: Sequence[EmbeddedServer], *, demo: bool) -> dict[str, str]:
    """What the children's environment is: ours, the servers' addresses, and for the demo no rate limit in its way."""
    unlimited = dict.fromkeys(("RATE_LIMIT_AUTH", "RATE_LIMIT_API"), "1000000 per minute") if demo else {}
    addresses = {PostgresServer.name: "DATABASE_URL", ValkeyServer.name: "REDIS_URL"}
    return {
        **unlimited,
        **{
            name: value for name, value in os.environ.items() if name != "DATABASE_OWNER_URL"
        },  # not theirs to know
        **{addresses[server.name]: server.url for server in servers},
        "AGENTHQ_DATA": str(settings.data_directory),
        "SIGNING_KEY": settings.signing_key or _kept_key(settings, "signing-key"),
        "ENCRYPTION_KEY": os.environ.get("ENCRYPTION_KEY") or _kept_key(settings, "encryption-key"),
        "PROMETHEUS_MULTIPROC_DIR": str(_empty(settings.data_directory / "metrics")),
        "PYTHONUNBUFFERED": "1",
    }


def _empty(directory: Path) -> Path:
    """The directory, with nothing in it: what an earlier run counted would add to this one's."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _app_programs(settings: Settings) -> list[Program]:
    celery = [sys.executable, "-m", "celery", "--app", "workers.app"]
    level = f"--loglevel={settings.log_level}"
    schedule = f"--schedule={settings.data_directory / 'beat-schedule'}"
    return [
        Program(
            "web",
            [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.conf.py", "wsgi:app"],
            stop_seconds=35,
        ),
        Program("worker", [*celery, "worker", level, "--without-gossip", "--without-mingle"]),
        Program("beat", [*celery, "beat", level, schedule]),
    ]


def _address(settings: Settings) -> str:
    host = "127.0.0.1" if settings.bind_host == "0.0.0.0" else settings.bind_host  # noqa: S104  compared, not bound  # nosec B104
    return f"http://{host}:{settings.port}"


def _readiness_problem(settings: Settings) -> str | None:
    try:
        answer = httpx.get(f"{_address(settings)}/health/ready", timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        return str(error)
    if answer.status_code == 200:
        return None
    return f"/health/ready answers {answer.status_code}: {answer.text[:500]}"


def _demo_password(settings: Settings) -> str:
    """The demo user's password: random, made once for each data directory."""
    file = settings.data_directory / "demo-password"
    if not file.exists():
        write_secret(file, secrets.token_hex(8))
    return file.read_text()


def _kept_key(settings: Settings, name: str) -> str:
    """A key of 32 random bytes in base64, made once for each data directory."""
    file = settings.data_directory / name
    if not file.exists():
        write_secret(file, base64.b64encode(secrets.token_bytes(32)).decode())
    return file.read_text()


def _replay(supervisor: Supervisor, settings: Settings, trace: str) -> int:
    """Runs the demo on our own terminal; returns its exit code."""
    command = [sys.executable, "-m", "api.demo", "--url", _address(settings)]
    if trace:
        command += ["--trace", str(Path(trace).absolute())]
    return subprocess.run(command, cwd=ROOT, env=supervisor.environment, check=False).returncode


def _request_stop(number: int, frame: FrameType | None) -> NoReturn:
    _ignore_signals()
    raise StopRequested


def _ignore_signals() -> None:
    """From here on we stop; a second Ctrl-C must not cut that short."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
