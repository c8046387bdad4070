"""The engine of this process and `transaction()`, the only place that commits."""

import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Engine, Select, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import NullPool

from models import json_text
from models.errors import Unavailable, for_constraint
from models.settings import settings
from models.tracing import tracing

# A statement or a lock that takes longer than this is a fault, not a wait: it ends itself instead of holding others up.
SESSION_OPTIONS = "-c statement_timeout=30000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"


@cache
def engine() -> Engine:
    """This process's engine; made on first use, so after a fork and after gevent's patches."""
    _wait_by_gevent()
    made = create_engine(
        settings().database_url,
        pool_size=settings().database_pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_use_lifo=True,
        json_serializer=json_text.dumps,
        json_deserializer=json_text.loads_kept,
        hide_parameters=True,  # an error's text goes to the log, and parameters carry what people wrote
        connect_args={"options": SESSION_OPTIONS, "connect_timeout": 5},
    )
    event.listen(made, "checkout", refuse_dead_connection)
    return made


def _wait_by_gevent() -> None:
    """Where gevent has patched blocking calls, connections wait as models/waiting.py does it; elsewhere gevent is not even loaded."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        from models.waiting import wait  # noqa: PLC0415

        psycopg.waiting.wait = wait


def migration_engine() -> Engine:
    """For migrations: as the tables' owner, where that is another role than the application's."""
    owner = settings().database_owner_url
    if owner is None:
        return engine()
    return create_engine(
        owner,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"options": SESSION_OPTIONS, "connect_timeout": 5},
    )


def refuse_dead_connection(connection: psycopg.Connection[Any], *_: Any) -> None:
    """
    After a restart of the database every pooled connection is dead. libpq sees that without a round trip (the pre-ping of
    the pool would cost one per request), and the pool then replaces them all.
    """
    try:
        connection.pgconn.consume_input()  # may read the server's last words,
        connection.pgconn.consume_input()  # and then sees that it is gone
    except psycopg.OperationalError as error:
        raise InvalidatePoolError from error


def forget_engine() -> None:
    """Drops the engine a fork inherited, without closing the parent's connections."""
    if engine.cache_info().currsize:
        engine().dispose(close=False)
    engine.cache_clear()
    _autocommitting.cache_clear()
    _snapshots.cache_clear()


@cache
def _autocommitting(made: Engine) -> Engine:
    """The same pool, whose statements each commit."""
    return made.execution_options(isolation_level="AUTOCOMMIT")


@cache
def _snapshots(made: Engine) -> Engine:
    """The same pool, whose transactions read one state of the database and write nothing."""
    return made.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def transaction() -> AbstractContextManager[Session]:
    """
    One transaction: commits when the block ends, rolls back when it raises.

    A violated constraint leaves as the domain error that it stands for; a database that can't be reached as Unavailable.
    """
    return _session(engine())


def single_statements() -> AbstractContextManager[Session]:
    """
    Each statement commits by itself, which saves the two round trips of BEGIN and COMMIT: for a write that is one statement,
    and reads that need no common snapshot. Raises as `transaction` does.
    """
    return _session(_autocommitting(engine()))


def snapshot() -> AbstractContextManager[Session]:
    """
    One transaction that only reads, and all the while the database as it was at its first statement: for what is read in
    many parts. Raises as `transaction` does.
    """
    return _session(_snapshots(engine()))


@contextmanager
def _session(bind: Engine) -> Iterator[Session]:
    session = Session(bind, expire_on_commit=False)
    try:
        yield session
        with tracing.span("commit"):
            session.commit()
    except IntegrityError as error:
        _roll_back(session)
        if domain_error := for_constraint(violated_constraint(error)):
            raise domain_error from error
        raise
    except PoolTimeout as error:
        _roll_back(session)
        raise Unavailable("All database connections are busy; try again shortly.") from error
    except DBAPIError as error:
        _roll_back(session)
        if error.connection_invalidated or isinstance(
            error.orig, (psycopg.OperationalError, psycopg.InterfaceError)
        ):
            raise Unavailable("The database can't be reached or is overloaded; try again shortly.") from error
        raise
    except BaseException:
        _roll_back(session)
        raise
    finally:
        session.close()


def _roll_back(session: Session) -> None:
    """The server rolls back by itself when the connection breaks; what led here is to be told then, not that."""
    with suppress(DBAPIError):
        session.rollback()


def fetch_row(session: Session, statement: str, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The statement's first row, asked of the driver itself (see `Prepared`). For what every request begins with."""
    row: tuple[Any, ...] | None = _execute(session, statement, parameters).fetchone()
    return row


def columns_of(table: type[DeclarativeBase]) -> list[ColumnElement[Any]]:
    """For a `Prepared`: the columns that an object of the table has when it is read, by the names of its attributes."""
    return [
        getattr(table, each.key).label(each.key)
        for each in table.__mapper__.column_attrs
        if not each.deferred
    ]


class Prepared:
    """
    A SELECT of columns that is compiled once and asked of the driver itself: on the session's connection and in its transaction,
    but past SQLAlchemy, whose layers cost more than PostgreSQL needs to answer. For the reads that are asked most.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:
        """Raises ValueError for a column whose values SQLAlchemy itself would have to convert."""
        dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
        compiled = statement.compile(dialect=dialect)
        if any(column.type.result_processor(dialect, None) for column in statement.selected_columns):
            raise ValueError("Some column is of a type that the driver alone does not read")
        self._sql, self._given = str(compiled), dict(compiled.params)
        made: Any = namedtuple  # whose fields a type checker wants to see
        self._made: Callable[[tuple[Any, ...]], Any] = made("Row", statement.selected_columns.keys())._make

    def rows(self, session: Session, **parameters: Any) -> list[Any]:
        """With the selected columns' names; `parameters` are those of the statement's `bindparam`."""
        session.flush()
        return [*map(self._made, _execute(session, self._sql, self._given | parameters).fetchall())]


def _execute(session: Session, statement: str, parameters: Mapping[str, Any]) -> psycopg.Cursor[Any]:
    connection = session.connection()
    driver: Any = connection.connection.driver_connection
    cursor = connection.info.get("cursor")
    if cursor is None:  # kept with the connection: to make one costs a tenth of the whole
        cursor = connection.info["cursor"] = driver.cursor()
    try:
        found: psycopg.Cursor[Any] = cursor.execute(statement, parameters)
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)  # or the rollback would stumble over it
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error
    return found


def violated_constraint(error: IntegrityError) -> str | None:
    return error.orig.diag.constraint_name if isinstance(error.orig, psycopg.Error) else None
