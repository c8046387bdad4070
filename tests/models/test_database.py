"""`transaction()`: all or nothing, and the database's troubles as domain errors without its words."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, bindparam, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from models import database
from models.database import SESSION_OPTIONS, Prepared, columns_of, engine, fetch_row, transaction
from models.errors import Conflict, EmailTaken, Unavailable
from models.operations import users
from models.settings import settings
from models.tables import ActivityLog, Team, User
from tests.factories import Person, TeamSetting, drain, make_person


@pytest.fixture
def person(app: Flask) -> Person:
    return make_person(app)


def rename(person: Person, name: str, then: Callable[[Any], None] = lambda _: None) -> None:
    with transaction() as session:
        session.execute(text("UPDATE users SET name = :name WHERE id = :id"), {"name": name, "id": person.id})
        then(session)


def name_of(person: Person) -> str:
    with transaction() as session:
        return str(
            session.execute(text("SELECT name FROM users WHERE id = :id"), {"id": person.id}).scalar_one()
        )


def run(statement: str) -> Callable[[Any], None]:
    return lambda session: session.execute(text(statement))


def kill(session: Any) -> None:
    pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with engine().connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


class Stop(BaseException):
    pass


def stop(_: Any) -> None:
    raise Stop


@pytest.mark.parametrize(
    ("then", "error"),
    [
        (stop, Stop),
        (kill, Unavailable),
        (run("SELECT 1/0"), DBAPIError),
        (run("SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)"), Unavailable),
        (run("INSERT INTO permissions SELECT * FROM permissions"), IntegrityError),
    ],
    ids=["stopped", "killed", "wrong", "too long", "a constraint of ours alone"],
)
def test_what_raises_leaves_nothing(
    person: Person, then: Callable[[Any], None], error: type[BaseException]
) -> None:
    rename(person, "Before")
    with pytest.raises(error):
        rename(person, "After", then)
    assert name_of(person) == "Before"
    rename(person, "Later")
    assert name_of(person) == "Later"


def test_a_constraint_that_speaks_at_the_commit_is_translated_too(team: TeamSetting) -> None:
    def leave() -> None:
        with transaction() as session:
            session.execute(text("DELETE FROM team_members WHERE user_id = :id"), {"id": team.owner.id})

    with pytest.raises(Conflict, match="transfer the ownership first"):
        leave()


def test_a_taken_address_is_a_domain_error(person: Person) -> None:
    with pytest.raises(EmailTaken) as refused, transaction() as session:
        users.register(session, email=person.email, name="Other", password_hash="hash")
    assert person.email not in refused.value.detail


def test_a_lock_that_others_hold_is_not_waited_for_without_end(person: Person) -> None:
    with engine().connect() as other, other.begin():
        other.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": person.id})

        def wait() -> None:
            with transaction() as session:
                session.execute(text("SET LOCAL lock_timeout = 50"))
                session.execute(text("UPDATE users SET name = 'x' WHERE id = :id"), {"id": person.id})

        with pytest.raises(Unavailable):
            wait()


def test_every_connection_has_its_bounds() -> None:
    with transaction() as session:
        shown = {
            name: session.execute(text(f"SHOW {name}")).scalar_one()
            for name in (
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "timezone",
            )
        }
    assert shown == {
        "statement_timeout": "30s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "1min",
        "timezone": "UTC",
    }


@pytest.fixture
def use_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    made: list[Engine] = []

    def use(url: str, **options: Any) -> None:
        made.append(create_engine(url, **options))
        monkeypatch.setattr(database, "engine", lambda: made[-1])

    yield use
    for one in made:
        one.dispose()


SECRETIVE = "postgresql+psycopg://someone:hidden-password@127.0.0.1:{port}/secret_name"


def test_a_database_that_is_away_is_unavailable_and_says_nothing_of_itself(
    use_engine: Callable[..., None],
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        use_engine(SECRETIVE.format(port=closed.getsockname()[1]))
        with pytest.raises(Unavailable) as refused, transaction() as session:
            session.execute(text("SELECT 1"))
    for word in ("someone", "hidden-password", "127.0.0.1", "secret_name", "psycopg", "refused"):
        assert word not in f"{refused.value.detail} {refused.value.members}"


def test_a_database_that_does_not_answer_is_unavailable_within_its_bound(
    use_engine: Callable[..., None],
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        use_engine(
            SECRETIVE.format(port=silent.getsockname()[1]),
            connect_args={"options": SESSION_OPTIONS, "connect_timeout": 2},  # libpq's least
        )
        started = time.monotonic()
        with pytest.raises(Unavailable), transaction() as session:
            session.execute(text("SELECT 1"))
        assert time.monotonic() - started < 5


def test_when_all_connections_are_busy_it_is_unavailable(use_engine: Callable[..., None]) -> None:
    use_engine(settings().database_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with transaction() as busy:
        busy.execute(text("SELECT 1"))
        with pytest.raises(Unavailable), transaction() as session:
            session.execute(text("SELECT 1"))
    with transaction() as session:
        session.execute(text("SELECT 1"))


def test_an_error_shows_the_statement_and_not_what_people_wrote(person: Person) -> None:
    with pytest.raises(DBAPIError) as raised, transaction() as session:
        session.execute(
            text("UPDATE users SET name = :name || (1/0)::text WHERE id = :id"),
            {"name": "my secret name", "id": person.id},
        )
    assert "UPDATE users" in str(raised.value)
    assert "my secret name" not in str(raised.value)


def test_connections_that_a_restart_cut_are_replaced_unseen() -> None:
    with transaction() as first, transaction() as second:
        pids = [session.scalar(text("SELECT pg_backend_pid()")) for session in (first, second)]
    with transaction() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM unnest(CAST(:pids AS int[])) AS pid"
                " WHERE pid <> pg_backend_pid()"
            ),
            {"pids": pids},
        )
    for _ in range(2):
        with transaction() as one, transaction() as other:
            assert [session.scalar(text("SELECT 1")) for session in (one, other)] == [1, 1]


def test_a_row_fetched_past_sqlalchemy_is_of_the_same_transaction() -> None:
    with transaction() as session:
        session.execute(text("SET LOCAL application_name = 'one transaction'"))
        row = fetch_row(session, "SELECT current_setting('application_name'), %(number)s::int", {"number": 7})
        assert row == ("one transaction", 7)
        assert fetch_row(session, "SELECT 1 WHERE false", {}) is None


def test_a_connection_that_dies_while_a_row_is_fetched_is_unavailable_and_replaced() -> None:
    def fetch_on_a_dead_connection() -> None:
        with transaction() as session:
            kill(session)
            fetch_row(session, "SELECT 1", {})

    with pytest.raises(Unavailable):
        fetch_on_a_dead_connection()
    with transaction() as session:
        assert fetch_row(session, "SELECT 1", {}) == (1,)


def test_what_raised_is_told_though_the_connection_dies_before_it_is_rolled_back(person: Person) -> None:
    def fail(session: Any) -> None:
        kill(session)
        raise Conflict("It is so already.")

    with pytest.raises(Conflict):
        rename(person, "B", then=fail)
    assert name_of(person) == person.name  # over another connection


def test_a_row_that_takes_too_long_is_unavailable() -> None:
    def fetch_slowly() -> None:
        with transaction() as session:
            session.execute(text("SET LOCAL statement_timeout = '50ms'"))
            fetch_row(session, "SELECT pg_sleep(20)", {})

    with pytest.raises(Unavailable):
        fetch_slowly()


@pytest.mark.parametrize("table", [User, Team, ActivityLog])
def test_what_is_prepared_reads_what_an_object_has(team: TeamSetting, table: Any) -> None:
    team.task()
    drain()
    prepared = Prepared(
        select(*columns_of(table)).order_by(table.created_at.desc(), table.id).limit(bindparam("limit"))
    )
    with transaction() as session:
        objects = session.scalars(select(table).order_by(table.created_at.desc(), table.id).limit(3)).all()
        rows = prepared.rows(session, limit=3)
        assert len(rows) == len(objects) == 3 if table is ActivityLog else rows
        for row, each in zip(rows, objects, strict=True):
            assert {name: (type(value), value) for name, value in row._asdict().items()} == {
                name: (type(getattr(each, name)), getattr(each, name)) for name in row._fields
            }


def test_what_is_prepared_sees_what_the_session_has_yet_to_write(team: TeamSetting) -> None:
    prepared = Prepared(select(Team.name).where(Team.id == bindparam("id"), Team.plan != "none"))
    with transaction() as session:
        session.get_one(Team, team.id).name = "Not written yet"
        assert prepared.rows(session, id=team.id) == [("Not written yet",)]
        session.rollback()


def test_what_the_driver_alone_cannot_read_is_not_prepared() -> None:
    with pytest.raises(ValueError, match="the driver alone"):
        Prepared(select(ActivityLog.mentions))


def test_what_is_prepared_tells_a_lost_connection(team: TeamSetting) -> None:
    prepared = Prepared(select(func.pg_terminate_backend(func.pg_backend_pid()).label("ended")))
    with pytest.raises(Unavailable), transaction() as session:
        prepared.rows(session)
