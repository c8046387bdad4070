"""The migrations, from nothing to the models and back, on the server that we bring and on the oldest that we support."""

import ast
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import text

from models.access.permissions import BUILT_IN_ROLES
from models.database import engine, transaction
from models.settings import settings, sqlalchemy_url
from tests.conftest import _named, _recreate, alembic_config
from tests.factories import drain, fold, make_team

ROOT = Path(__file__).parents[2]
VERSIONS = ROOT / "migrations" / "versions"
POSTGRESQL_15 = Path("/usr/lib/postgresql/15/bin")
LEFT = """
SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'type ' || typname FROM pg_type
WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
ORDER BY 1
"""
SHAPE = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = 'public'
UNION ALL
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
ORDER BY 1, 2, 3
"""


@pytest.fixture(scope="module")
def server_15() -> Iterator[str]:
    """PostgreSQL 15 on a socket of its own, as nobody where the tests run as root; its URL."""
    if not (POSTGRESQL_15 / "initdb").exists():
        pytest.skip(f"PostgreSQL 15 is not installed (no {POSTGRESQL_15})")
    directory = Path(tempfile.mkdtemp(prefix="pg15-"))  # short, as a socket's path must be
    user = None if os.geteuid() else "nobody"
    if user:
        shutil.chown(directory, user, pwd.getpwnam(user).pw_gid)
    cluster = directory / "cluster"
    initdb: list[str | Path] = [
        POSTGRESQL_15 / "initdb",
        "-D",
        cluster,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    subprocess.run([*initdb, "--locale=C", "--no-sync"], user=user, check=True, capture_output=True, cwd="/")
    options: list[str | Path] = [
        "-k",
        directory,
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
        "-c",
        "max_connections=50",
    ]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [POSTGRESQL_15 / "postgres", "-D", cluster, *options], user=user, cwd="/", stdout=log, stderr=log
        )
    try:
        url = f"postgresql://postgres@/postgres?host={directory}"
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert server.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["ours", "15"])
def empty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty database, which is the product's for the test."""
    given = os.environ["DATABASE_URL"]
    on = given if request.param == "ours" else str(request.getfixturevalue("server_15"))
    name = f"agenthq_migrations_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    url = _named(on, name)
    monkeypatch.setenv("DATABASE_URL", on)
    _recreate(name)
    monkeypatch.setenv("DATABASE_URL", url)
    engine().dispose()
    engine.cache_clear()
    settings.cache_clear()
    yield url
    engine().dispose()
    engine.cache_clear()
    settings.cache_clear()
    monkeypatch.setenv("DATABASE_URL", on)
    with psycopg.connect(_plain(on), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    monkeypatch.setenv("DATABASE_URL", given)


def _plain(url: str) -> str:
    return sqlalchemy_url(url).replace("+psycopg", "")


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(_plain(url)) as connection:
        return connection.execute(statement.encode()).fetchall()


def left(url: str) -> list[str]:
    return [name for (name,) in rows(url, LEFT) if name != "relation alembic_version"]


def test_up_down_and_up_again(empty: str) -> None:
    command.upgrade(alembic_config(), "head")
    command.check(alembic_config())  # raises if the models say otherwise
    up = rows(empty, SHAPE)
    assert len(up) > 200

    command.downgrade(alembic_config(), "base")
    assert left(empty) == []

    command.upgrade(alembic_config(), "head")
    assert rows(empty, SHAPE) == up
    command.upgrade(alembic_config(), "head")
    assert rows(empty, SHAPE) == up


def test_the_product_works_on_what_they_made(empty: str, app: Flask) -> None:
    command.upgrade(alembic_config(), "head")
    assert rows(empty, "SELECT count(*) FROM users") == [(0,)]
    with transaction() as session:
        made = session.execute(text("SELECT uuid7() FROM generate_series(1, 5)")).scalars().all()
        assert {one.version for one in made} == {7}
    team = make_team(app)
    task = team.task(assignee_id=str(team.member.id))
    team.member.post(f"{team.path}/tasks/{task['id']}/start")
    done = team.member.post(
        f"{team.path}/tasks/{task['id']}/complete", json={"llm_tokens_used": 2**62, "result": {"a": 10**30}}
    )
    assert (done.status_code, done.json["result"]) == (200, {"a": 10**30})
    assert team.owner.delete(f"{team.path}/members/{team.member.id}").status_code == 204
    assert team.owner.get(f"{team.path}/tasks/{task['id']}").json["assignee_id"] is None
    assert drain() >= 8
    assert fold() >= 3
    log = team.owner.get(f"{team.path}/activity?limit=100").json["items"]
    assert [row["seq"] for row in log] == list(range(len(log), 0, -1))
    assert rows(empty, "SELECT sum(llm_tokens_used)::bigint FROM usage_stats") == [(2**62,)]


def test_there_is_one_head() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1


def test_the_seeded_roles_are_the_catalogues() -> None:
    with transaction() as session:
        seeded = session.execute(
            text("SELECT role, resource || ':' || action, allowed FROM permissions WHERE team_id IS NULL")
        ).all()
    expected = {(role, p.value, True) for role, granted in BUILT_IN_ROLES.items() for p in granted}
    assert {tuple(row) for row in seeded} == expected
    assert len(seeded) == len(expected)


def imported(path: Path) -> set[str]:
    """The top-level packages that the file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(VERSIONS.glob("*.py")), ids=lambda path: path.stem)
def test_a_revision_imports_no_code_of_ours(path: Path) -> None:
    assert imported(path) <= {"alembic", "sqlalchemy", *sys.stdlib_module_names} - {"importlib"}


def test_the_rule_above_finds_what_it_forbids(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import json\ndef upgrade():\n    from models.plans import PLANS\n    from . import x\n")
    assert imported(bad) == {"json", "models", "."}


UPGRADE = "from alembic import command; from tests.conftest import alembic_config; command.upgrade(alembic_config(), 'head')"


def upgrade_in_a_process(url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", UPGRADE],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("empty", ["ours"], indirect=True)
def test_two_processes_that_upgrade_at_once_both_succeed(empty: str) -> None:
    both = [upgrade_in_a_process(empty) for _ in range(2)]
    for one in both:
        _, errors = one.communicate(timeout=60)
        assert one.returncode == 0, errors
    command.check(alembic_config())
    assert len(rows(empty, "SELECT * FROM alembic_version")) == 1


@pytest.mark.parametrize("empty", ["ours"], indirect=True)
def test_waiting_for_another_migration_is_no_fault_however_long(empty: str) -> None:
    """Longer than every lock timeout that we set (migrations/env.py, models/database.py)."""
    lock = int(
        next(
            node.value.value  # type: ignore[attr-defined]
            for node in ast.walk(ast.parse((ROOT / "migrations" / "env.py").read_text()))
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LOCK"
        )
    )
    with psycopg.connect(_plain(empty), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [lock])
        release = threading.Timer(5.5, lambda: other.execute("SELECT pg_advisory_unlock(%s)", [lock]))
        release.start()
        started = time.monotonic()
        command.upgrade(alembic_config(), "head")
        assert time.monotonic() - started > 5
        release.join()


def test_a_migration_does_not_wait_long_for_the_product() -> None:
    source = (ROOT / "migrations" / "env.py").read_text()
    assert "SET lock_timeout = '4s'" in source
    assert "SET statement_timeout = '60s'" in source


def test_the_tests_run_on_what_the_migrations_made() -> None:
    with transaction() as session:
        revision = session.scalar(text("SELECT version_num FROM alembic_version"))
    assert revision == ScriptDirectory.from_config(alembic_config()).get_current_head()
