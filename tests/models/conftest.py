import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from flask import Flask
from sqlalchemy import event

from models.database import engine
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

        def see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if threading.get_ident() == thread:
                seen.append(statement)

        event.listen(engine(), "before_cursor_execute", see)
        try:
            yield seen
        finally:
            event.remove(engine(), "before_cursor_execute", see)

    return watch
