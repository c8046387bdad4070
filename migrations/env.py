"""
Alembic's environment: the tables of models/tables, one transaction a migration, and no wait that could stall the product.

A revision never imports application code: it must do tomorrow what it did on the day it was written.
"""

import time
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

import models.tables  # noqa: F401  makes the metadata whole
from models.base import Base
from models.database import migration_engine
from models.grants import grant
from models.settings import settings

LOOK_S = 0.1
LOCK = 4_117_031_977  # two processes that start at once: one migrates, the other waits for it


def is_ours(_object: Any, name: str | None, type_: str, reflected: bool, _compare_to: Any) -> bool:
    """Partitions are made by the function that the first migration defines, not by revisions."""
    return not (type_ == "table" and reflected and (name or "").startswith("activity_logs_"))


def migrate(connection: Connection) -> None:
    # Waiting for another migration is no fault, however long it takes.
    # Asked again and again, outside of any transaction: an index that is made CONCURRENTLY waits for all that are open.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        connection.commit()
        time.sleep(LOOK_S)
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.execute(text("SET statement_timeout = '60s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=is_ours,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    if settings().database_owner_url:
        grant(connection, of=settings().database_url)
        connection.commit()


with migration_engine().connect() as connection:
    try:
        migrate(connection)
    finally:
        connection.invalidate()  # its session settings and its advisory lock end with it
