"""
Real PostgreSQL and Valkey for the whole run: DATABASE_URL and REDIS_URL if they are given, else the embedded servers, or
with SERVERS=oldest the oldest that are supported (tests/servers.py).

The schema is made by the migrations, once; every xdist worker gets a copy of that database. Tests share a database and
no rows: each makes its own users and teams, so nothing has to be cleaned between them.
"""

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings as hypothesis_settings
from redis import Redis
from sqlalchemy.engine import make_url

from models.settings import settings, sqlalchemy_url
from tests.servers import server_classes
from tests.undefined import Undefined

TEMPLATE = "agenthq_test_template"
SERVERS = pytest.StashKey[list[Any]]()

# High enough that no test meets them by accident; tests/api/test_limits.py sets its own.
os.environ.setdefault("RATE_LIMIT_AUTH", "1000000 per minute")
os.environ.setdefault("RATE_LIMIT_API", "1000000 per minute")
os.environ.setdefault("LOG_LEVEL", "WARNING")
os.environ.setdefault("SIGNING_KEY", base64.b64encode(bytes(range(32))).decode())
os.environ["ENCRYPTION_KEY"] = "A" * 43 + "="
os.environ["WEBHOOK_PRIVATE_NETWORKS"] = "127.0.0.0/8"  # where the tests' receivers are

# The same examples in every run, so that a red run is the change's doing; EXPLORE=1 looks for new ones.
hypothesis_settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("EXPLORE"):
    hypothesis_settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Before xdist starts its workers, which inherit the environment."""
    if hasattr(config, "workerinput"):
        _use_own_database(config.workerinput["workerid"])
        return
    config.stash[SERVERS] = servers = []
    directory = Path(tempfile.mkdtemp(prefix="agenthq-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    os.environ.setdefault("MAIL_URL", (directory / "mail").as_uri())
    for name, server_class in zip(("DATABASE_URL", "REDIS_URL"), server_classes(), strict=True):
        if name not in os.environ:
            server = server_class(directory / name.lower(), durable=False).start()
            servers.append(server)
            config.add_cleanup(server.stop)
            os.environ[name] = server.url
    _make_template()
    _use_own_database("main")


def _make_template() -> None:
    given = os.environ["DATABASE_URL"]
    _recreate(TEMPLATE)
    os.environ["DATABASE_URL"] = _named(given, TEMPLATE)
    settings.cache_clear()
    command.upgrade(alembic_config(), "head")
    os.environ["DATABASE_URL"] = given
    from models.database import forget_engine

    forget_engine()


def _use_own_database(worker: str) -> None:
    name = f"agenthq_test_{worker}"
    _recreate(name, template=TEMPLATE)
    os.environ["DATABASE_URL"] = _named(os.environ["DATABASE_URL"], name)
    number = 1 + int(worker.removeprefix("gw")) if worker.startswith("gw") else 0
    os.environ["REDIS_URL"] = os.environ["REDIS_URL"].rpartition("/")[0] + f"/{number}"
    settings.cache_clear()
    Redis.from_url(os.environ["REDIS_URL"]).flushdb()


def _named(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def _recreate(name: str, template: str | None = None) -> None:
    url = sqlalchemy_url(os.environ["DATABASE_URL"]).replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template1"}"'.encode())


def alembic_config() -> Config:
    config = Config("migrations/alembic.ini")
    config.set_main_option("script_location", "migrations")
    return config


@pytest.fixture(scope="module")
def own_database() -> Iterator[None]:
    """A database for the tests of one module: for what would be everybody's in the shared one, such as the newest price book."""
    from models.database import engine, forget_engine

    shared = os.environ["DATABASE_URL"]
    name = f"agenthq_test_own_{os.getpid()}"

    def use(url: str) -> None:
        engine().dispose()
        forget_engine()
        os.environ["DATABASE_URL"] = url
        settings.cache_clear()

    _recreate(name, template=TEMPLATE)
    use(_named(shared, name))
    yield
    use(shared)
    with psycopg.connect(sqlalchemy_url(shared).replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def app() -> Flask:
    from api import create_app

    made = create_app()
    made.jinja_env.undefined = Undefined
    return made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Nobody's client; tests/factories.py makes people who call."""
    return app.test_client()


@pytest.fixture
def redis() -> Iterator[Redis]:
    with Redis.from_url(settings().redis_url) as connection:
        yield connection
