"""What the benchmarks share: servers with a scratch database, percentiles and a table."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from api.embedded import PostgresServer, ValkeyServer
from models.settings import settings, sqlalchemy_url

SCRATCH = "agenthq_benchmark"
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
UNLIMITED = "1000000000 per minute"


@contextmanager
def servers(*, durable: bool) -> Iterator[None]:
    """
    PostgreSQL, with a scratch database made by the migrations, and Valkey, as this process's settings name them.

    Those of DATABASE_URL and REDIS_URL if they are given, else embedded ones whose data goes when this ends.
    """
    os.environ |= {"RATE_LIMIT_AUTH": UNLIMITED, "RATE_LIMIT_API": UNLIMITED, "LOG_LEVEL": "WARNING"}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agenthq-bench-")))
        for name, server_class in (("DATABASE_URL", PostgresServer), ("REDIS_URL", ValkeyServer)):
            if name not in os.environ:
                server = server_class(directory / server_class.name, durable=durable).start()
                stack.callback(server.stop)
                os.environ[name] = server.url
        os.environ["DATABASE_URL"] = _made_scratch_database(os.environ["DATABASE_URL"])
        settings.cache_clear()
        migrations = Config(MIGRATIONS / "alembic.ini")
        migrations.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(migrations, "head")
        yield


def _made_scratch_database(url: str) -> str:
    given = make_url(sqlalchemy_url(url))
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{SCRATCH}" WITH (FORCE)'.encode())
        connection.execute(f'CREATE DATABASE "{SCRATCH}"'.encode())
    return given.set(database=SCRATCH).render_as_string(hide_password=False)


def plain_url(url: str) -> str:
    """The URL as psycopg itself takes it."""
    return url.replace("+psycopg", "", 1)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the figures to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        first, *rest = (cell.ljust(width) if not index else cell.rjust(width)
                        for index, (cell, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        print("  ".join((first, *rest)))
