"""
New migrations run while the product serves: Squawk's rules on the SQL that each would send. What is older than the baseline was
written before there was anything to keep running (docs/operations has how to write one that passes).
"""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from tests.conftest import alembic_config

BASELINE = "4c96f22b5ad8"
RULES = {
    "adding-field-with-default",
    "adding-foreign-key-constraint",
    "adding-not-nullable-field",
    "adding-primary-key-constraint",
    "adding-required-field",
    "ban-alter-domain-with-add-constraint",
    "ban-create-domain-with-constraint",
    "ban-drop-column",
    "ban-drop-database",
    "ban-drop-not-null",
    "ban-drop-table",
    "ban-truncate-cascade",
    "changing-column-type",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "renaming-column",
    "renaming-table",
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
    "syntax-error",
}
"""Of Squawk's; the others are about taste, or about the timeouts that migrations/env.py sets."""
IGNORED = "squawk_ignores"
"""What a revision may set: rules that it breaks, and why that stops nobody."""


def sql_of(upgrade: Callable[[], None]) -> str:
    """What the migration sends, without a database to send it to; transactions are env.py's."""
    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        upgrade()
    return written.getvalue()


def broken(sql: str, ignoring: Iterable[str] = ()) -> dict[str, str]:
    """The rules that it breaks, with Squawk's message."""
    command = [
        str(Path(sys.executable).with_name("squawk")),
        "--assume-in-transaction",
        "--pg-version=15",
        "--reporter=json",
        "--stdin-filepath=sql",
    ]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    assert done.returncode in {0, 1}, done.stderr
    return {
        each["rule_name"]: each["message"]
        for each in found
        if each["rule_name"] in RULES and each["rule_name"] not in set(ignoring)
    }


def newer() -> list[Any]:
    script = ScriptDirectory.from_config(alembic_config())
    return [each for each in script.iterate_revisions("head", BASELINE) if each.revision != BASELINE]


@pytest.mark.parametrize("revision", newer(), ids=lambda each: each.doc[:40])
def test_a_new_migration_stops_nobody(revision: Any) -> None:
    ignored = getattr(revision.module, IGNORED, {})
    assert all(ignored.values()), "each with its reason"
    assert broken(sql_of(revision.module.upgrade), ignored) == {}


def autocommitted(step: Callable[[], Any]) -> None:
    with op.get_context().autocommit_block():
        step()


def make_table_with_index() -> None:
    op.create_table("made", sa.Column("id", sa.Uuid(), primary_key=True), sa.Column("name", sa.Text()))
    op.create_index("ix_made", "made", ["name"])


def check(**options: Any) -> None:
    op.create_check_constraint("ck", "tasks", "attempts >= 0", **options)


def foreign_key(**options: Any) -> None:
    op.create_foreign_key("fk", "tasks", "teams", ["team_id"], ["id"], **options)


def index(**options: Any) -> None:
    op.create_index("ix", "tasks", ["title"], **options)


PASSES: dict[str, Callable[[], Any]] = {
    "a column that may be empty": lambda: op.add_column("tasks", sa.Column("note", sa.Text())),
    "a column with a constant default": lambda: op.add_column(
        "tasks", sa.Column("note", sa.Text(), server_default="", nullable=False)
    ),
    "a new table with its index": make_table_with_index,
    "an index beside the writers": lambda: autocommitted(lambda: index(postgresql_concurrently=True)),
    "a check for what is new": lambda: check(postgresql_not_valid=True),
    "then for all": lambda: op.execute("ALTER TABLE tasks VALIDATE CONSTRAINT ck"),
    "a foreign key for what is new": lambda: foreign_key(postgresql_not_valid=True),
    "uniqueness by an index that is there": lambda: op.execute(
        "ALTER TABLE tasks ADD CONSTRAINT uq UNIQUE USING INDEX ix"
    ),
}
FAILS: dict[str, tuple[Callable[[], Any], str]] = {
    "an index that stops writers": (index, "require-concurrent-index-creation"),
    "an index gone that stops everybody": (
        lambda: op.drop_index("ix", "tasks"),
        "require-concurrent-index-deletion",
    ),
    "not null by a scan": (
        lambda: op.alter_column("tasks", "note", nullable=False),
        "adding-not-nullable-field",
    ),
    "a column that old writers don't fill": (
        lambda: op.add_column("tasks", sa.Column("note", sa.Text(), nullable=False)),
        "adding-required-field",
    ),
    "a default that rewrites the table": (
        lambda: op.add_column(
            "tasks", sa.Column("key", sa.Uuid(), server_default=sa.text("gen_random_uuid()"))
        ),
        "adding-field-with-default",
    ),
    "another type": (
        lambda: op.alter_column("tasks", "title", type_=sa.String(10)),
        "changing-column-type",
    ),
    "another name": (lambda: op.alter_column("tasks", "title", new_column_name="name"), "renaming-column"),
    "another table's name": (lambda: op.rename_table("tasks", "jobs"), "renaming-table"),
    "a column gone that the old release reads": (
        lambda: op.drop_column("tasks", "title"),
        "ban-drop-column",
    ),
    "a table gone": (lambda: op.drop_table("tasks"), "ban-drop-table"),
    "a check by a scan": (check, "constraint-missing-not-valid"),
    "a foreign key by a scan": (foreign_key, "adding-foreign-key-constraint"),
    "uniqueness by a scan": (
        lambda: op.create_unique_constraint("uq", "tasks", ["title"]),
        "disallowed-unique-constraint",
    ),
}


@pytest.mark.parametrize("case", PASSES)
def test_what_stops_nobody_passes(case: str) -> None:
    assert broken(sql_of(PASSES[case])) == {}


@pytest.mark.parametrize("case", FAILS)
def test_what_stops_somebody_fails_unless_it_says_why(case: str) -> None:
    step, rule = FAILS[case]
    assert rule in broken(sql_of(step))
    assert rule not in broken(sql_of(step), [rule])
