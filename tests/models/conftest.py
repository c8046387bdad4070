import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from unittest.mock import patch

import psycopg
import pytest
from flask import Flask

from tests.factories import TeamSetting, make_team


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    return make_team(app)


@pytest.fixture
def bare_team(app: Flask) -> TeamSetting:
    """A team of its owner alone."""
    return make_team(app, roles=())


class CountStatements(Protocol):
    def __call__(self) -> "Any": ...


@pytest.fixture
def statements() -> CountStatements:
    """`with statements() as seen:` collects the SQL that this thread sends meanwhile."""

    @contextmanager
    def watch() -> Iterator[list[str]]:
        seen: list[str] = []
        thread = threading.get_ident()
        execute = psycopg.Cursor.execute

        def see(cursor: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                seen.append(str(statement))
            return execute(cursor, statement, *args, **kwargs)

        # The driver's, and not SQLAlchemy's event: models.database.fetch_row passes SQLAlchemy by.
        with patch.object(psycopg.Cursor, "execute", see):
            yield seen

    return watch
