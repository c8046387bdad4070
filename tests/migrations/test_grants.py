"""The application's role where the tables belong to another one: the product works, and what is logged stays as it is."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from alembic import command
from flask import Flask
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from uuid_utils.compat import uuid7

from models.database import engine, transaction
from models.grants import Refused
from models.operations import activity, checkpoints, teams
from models.settings import settings
from tests.conftest import alembic_config
from tests.factories import TeamSetting, drain, execute, fetch, fold, make_team
from tests.migrations.test_migrations import _plain, empty, server_15

__all__ = ["empty", "server_15"]  # fixtures


def as_role(url: str, role: str) -> str:
    return make_url(url).set(username=role).render_as_string(hide_password=False)


def maker_of_roles(url: str) -> psycopg.Connection[Any]:
    """A connection that may make roles: the tests' own, or that of the embedded server's superuser."""
    for each in (url, as_role(url, "postgres")):
        try:
            connection = psycopg.connect(_plain(each), autocommit=True)
        except psycopg.OperationalError:
            continue
        ((may,),) = connection.execute(
            "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchall()
        if may:
            return connection
        connection.close()
    pytest.skip("no role at hand may make another one")


def forget() -> None:
    engine().dispose()
    engine.cache_clear()
    settings.cache_clear()


@pytest.fixture
def app_role(empty: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role of its own for the application, on an empty database that another one owns; its URL is the product's."""
    role = f"app_{uuid7().hex}"
    with maker_of_roles(empty) as maker:
        maker.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'".encode())
        url = make_url(as_role(empty, role)).set(password=role).render_as_string(hide_password=False)
        monkeypatch.setenv("DATABASE_OWNER_URL", empty)
        monkeypatch.setenv("DATABASE_URL", url)
        forget()
        try:
            yield role
        finally:
            forget()
            monkeypatch.setenv("DATABASE_URL", empty)
            monkeypatch.delenv("DATABASE_OWNER_URL")
            settings.cache_clear()
            maker.execute(f"DROP OWNED BY {role}".encode())
            maker.execute(f"DROP ROLE {role}".encode())


@pytest.fixture
def signed(app_role: str, app: Flask) -> TeamSetting:
    """A team with a log and a checkpoint, made by the application's role."""
    command.upgrade(alembic_config(), "head")
    ((role,),) = fetch("SELECT current_user::text")
    assert role == app_role
    team = make_team(app)
    drain()
    with transaction() as session:
        assert checkpoints.sign(session, team.id)
    return team


def test_the_product_works_as_that_role(signed: TeamSetting) -> None:
    task = signed.task()
    assert signed.member.post(f"{signed.path}/tasks/{task['id']}/start").status_code == 200
    assert signed.owner.patch(signed.path, json={"name": "Tides"}).status_code == 200
    assert drain() >= 2
    assert fold() >= 1
    verified = signed.viewer.get(f"{signed.path}/activity/verify").json
    assert (verified["valid"], verified["checkpoint"] is not None) == (True, True)
    execute("SELECT erase_activity_origin(:id, :person)", id=signed.id, person=signed.owner.id)
    with transaction() as session:
        assert activity.purge(session, signed.id, up_to=2, at_most=10) == 2
    execute("SELECT ensure_activity_partitions('2150-01-01', 2)")
    verified = signed.viewer.get(f"{signed.path}/activity/verify").json
    assert (verified["valid"], verified["first_seq"]) == (True, 3)
    assert signed.owner.delete(signed.path).status_code == 204
    execute("UPDATE teams SET deleted_at = now() - interval '31 days' WHERE id = :id", id=signed.id)
    with transaction() as session:
        assert teams.purge_one(session) == signed.id
    assert fetch("SELECT FROM checkpoints WHERE team_id = :id", id=signed.id) == []


def test_migrating_again_grants_the_same(signed: TeamSetting) -> None:
    grants = (
        "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    before = fetch(grants)
    command.upgrade(alembic_config(), "head")
    assert fetch(grants) == before
    command.check(alembic_config())


FORBIDDEN: dict[str, str] = {
    "update": "UPDATE activity_logs SET resource_name = 'else'",
    "delete": "DELETE FROM activity_logs",
    "delete, as a purge would": "DELETE FROM activity_logs",
    "truncate": "TRUNCATE activity_logs",
    "read a partition": "SELECT FROM activity_logs_default",
    "insert into a partition": "INSERT INTO activity_logs_default SELECT * FROM activity_logs LIMIT 1",
    "update a partition": "UPDATE {partition} SET resource_name = 'else'",
    "delete from a partition": "DELETE FROM {partition}",
    "truncate a partition": "TRUNCATE {partition}",
    "detach a partition": "ALTER TABLE activity_logs DETACH PARTITION {partition}",
    "drop a partition": "DROP TABLE {partition}",
    "disable the trigger": "ALTER TABLE activity_logs DISABLE TRIGGER append_only",
    "disable all triggers": "ALTER TABLE activity_logs DISABLE TRIGGER USER",
    "disable a partition's trigger": "ALTER TABLE {partition} DISABLE TRIGGER USER",
    "drop the trigger": "DROP TRIGGER append_only ON activity_logs",
    "replace the trigger's function": (
        "CREATE OR REPLACE FUNCTION refuse_activity_change() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NEW; END'"
    ),
    "replace the digest": (
        "CREATE OR REPLACE FUNCTION activity_genesis(team_id uuid) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea'"
    ),
    "pass by the triggers": "SET session_replication_role = replica",
    "become the owner": "SET ROLE {owner}",
    "make a function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "make a table": "CREATE TABLE mine (id int)",
    "update a checkpoint": "UPDATE checkpoints SET seq = seq + 1",
    "delete a checkpoint": "DELETE FROM checkpoints",
    "truncate the checkpoints": "TRUNCATE checkpoints",
    "disable the checkpoints' trigger": "ALTER TABLE checkpoints DISABLE TRIGGER append_only",
    "update a key": "UPDATE signing_keys SET public_key = public_key",
    "delete a key": "DELETE FROM signing_keys",
    "migrate": "UPDATE alembic_version SET version_num = 'x'",
}


def test_what_is_logged_stays_as_it_is(signed: TeamSetting) -> None:
    (row,) = fetch("SELECT tableoid::regclass::text AS name FROM activity_logs LIMIT 1")
    owner = make_url(os.environ["DATABASE_OWNER_URL"]).username
    before = fetch("SELECT * FROM activity_logs ORDER BY team_id, seq")

    def attempt(statement: str) -> None:
        with transaction() as session:
            session.execute(text("SELECT set_config('agenthq.activity_change', 'purge', true)"))
            session.execute(text(statement))

    for name, statement in FORBIDDEN.items():
        with pytest.raises(ProgrammingError) as refused:
            attempt(statement.format(partition=row.name, owner=owner))
        assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege), name
    assert fetch("SELECT * FROM activity_logs ORDER BY team_id, seq") == before
    verified = signed.viewer.get(f"{signed.path}/activity/verify").json
    assert verified["valid"]


@pytest.mark.parametrize("empty", ["ours"], indirect=True)
@pytest.mark.parametrize(
    ("role", "reason"),
    [(lambda owner: owner, "must be another"), (lambda _: "postgres", "must be another")],
    ids=["the owner", "a superuser"],
)
def test_a_role_that_may_do_all_anyway_is_refused(
    empty: str, monkeypatch: pytest.MonkeyPatch, role: Callable[[str], str], reason: str
) -> None:
    owner = make_url(empty).username
    assert owner is not None
    monkeypatch.setenv("DATABASE_OWNER_URL", empty)
    monkeypatch.setenv("DATABASE_URL", as_role(empty, role(owner)))
    forget()
    with pytest.raises(Refused, match=reason):
        command.upgrade(alembic_config(), "head")
