"""A backup and the archived log restore a database as it was at a moment (docs/operations), and what it says then is provable."""

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from alembic import command
from flask import Flask

from api.embedded import PostgresServer
from models.database import engine, forget_engine, transaction
from models.operations import checkpoints
from models.settings import settings
from tests.conftest import alembic_config
from tests.factories import TeamSetting, drain, execute, fetch, fold, fold_log, make_team

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]


class Archiving(PostgresServer):
    """Hands each segment of its log to the archive; told a moment, it starts from a backup and goes as far as that."""

    def __init__(self, directory: Path, archive: Path, until: str | None = None) -> None:
        super().__init__(directory, durable=False)
        self.archive = archive
        self.until = until

    def _configuration(self) -> Mapping[str, object]:
        archive = shlex.quote(str(self.archive))
        if self.until is not None:
            return {
                **super()._configuration(),
                "restore_command": f"cp {archive}/%f %p",
                "recovery_target_time": self.until,
                "recovery_target_action": "promote",
            }
        return {
            **super()._configuration(),
            "archive_mode": "on",
            "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/.%f && mv {archive}/.%f {archive}/%f",
        }

    def as_superuser(self, statement: str) -> str:
        with psycopg.connect(self._url("postgres", "postgres"), autocommit=True) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return str(row[0]) if row else ""

    def back_up(self, to: Path) -> None:
        program = str(self.binary.with_name("pg_basebackup"))
        url = self._url("postgres", "postgres")
        arguments = [
            f"--dbname={url}",
            f"--pgdata={to}",
            "--wal-method=none",
            "--checkpoint=fast",
            "--no-sync",
        ]
        subprocess.run([*self._prefix, program, *arguments], cwd="/", check=True, capture_output=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short and open to the user that PostgreSQL runs as."""
    made = Path(tempfile.mkdtemp(prefix="pitr-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def use() -> Iterator[object]:
    """Makes another database the product's for the test."""
    given = os.environ["DATABASE_URL"]

    def turn_to(url: str) -> None:
        engine().dispose()
        forget_engine()
        os.environ["DATABASE_URL"] = url
        settings.cache_clear()

    yield turn_to
    turn_to(given)


def settle() -> None:
    drain()
    fold()
    fold_log()


def work(team: TeamSetting, title: str) -> str:
    task = team.task(title=title)["id"]
    assert team.owner.post(f"{team.path}/tasks/{task}/start").status_code == 200
    done = team.owner.post(f"{team.path}/tasks/{task}/complete", json={"llm_tokens_used": 100, "result": {}})
    assert done.status_code == 200
    return str(task)


def titles(team: TeamSetting) -> set[str]:
    return {row[0] for row in fetch("SELECT title FROM tasks WHERE team_id = :id", id=team.id)}


def succeeds(app: Flask, *arguments: str) -> str:
    with app.app_context():
        result = app.test_cli_runner().invoke(args=arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_was_committed_before_the_moment_is_there_and_what_came_after_is_not(
    app: Flask, directory: Path, use: object
) -> None:
    assert callable(use)
    archive = directory / "archive"
    archive.mkdir()
    archive.chmod(0o777)
    first = Archiving(directory / "a", archive).start()
    try:
        use(first.url)
        command.upgrade(alembic_config(), "head")
        team = make_team(app)
        work(team, "in the backup")
        settle()
        with transaction() as session:
            checkpoints.register_key(session)
            assert checkpoints.sign(session, team.id)
        first.back_up(directory / "backup")
        work(team, "after the backup")
        settle()
        waiting = team.task(title="just committed, not yet in the log")["id"]
        moment = first.as_superuser("SELECT clock_timestamp()")
        time.sleep(0.01)
        work(team, "after the moment")
        lost = team.member.token
        execute("DELETE FROM sessions WHERE user_id = :id", id=team.member.id)
        settle()
        ends_with = first.as_superuser("SELECT pg_walfile_name(pg_switch_wal())")
        give_up = time.monotonic() + 30
        while not (archive / ends_with).exists():
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        first.stop()
    shutil.rmtree(directory / "a")  # all that is left are the backup and the archive

    second = Archiving(directory / "b", archive, until=moment)
    second._own(second._socket_directory)
    (directory / "backup").rename(directory / "b" / "cluster")
    (directory / "b" / "cluster" / "recovery.signal").touch()
    second.start()
    try:
        give_up = time.monotonic() + 60
        while second.as_superuser("SELECT pg_is_in_recovery()") == "True":
            assert time.monotonic() < give_up
            time.sleep(0.05)
        use(second.url)
        assert titles(team) == {"in the backup", "after the backup", "just committed, not yet in the log"}
        settle()
        log = team.owner.get(f"{team.path}/activity?limit=1").json["items"][0]
        assert (log["action"], log["resource_id"]) == ("task_created", waiting)
        rows = fetch("SELECT count(*), max(seq) FROM activity_logs WHERE team_id = :id", id=team.id)
        assert rows[0][0] == rows[0][1]
        said = succeeds(app, "log", "verify")
        assert " 0 problems" in said
        assert "0 rows differed" in succeeds(app, "log", "replay", "--check")
        year, month = fetch("SELECT extract(year FROM now())::int, extract(month FROM now())::int")[0]
        proven = succeeds(app, "usage", "verify", str(team.id), str(year), str(month))
        assert proven.startswith("0 differences")
        assert "tasks_created 3, tasks_completed 2, llm_tokens_used 200" in proven
        # What was revoked after the moment counts again, until an operator ends it (docs/operations).
        again = {"Authorization": f"Bearer {lost}"}
        assert app.test_client().get(f"/api/v1{team.path}", headers=again).status_code == 200
        # And life goes on.
        work(team, "a new life")
        settle()
        assert " 0 problems" in succeeds(app, "log", "verify")
    finally:
        second.stop()
