"""House rules of the source that imports can't say; each with a line that passes and one that fails."""

import pytest

from tests.architecture.sources import calls_of, reads_environment, sources

COMMITS = {"models/database.py"}
"""`transaction()` is the only place that commits."""
READERS = {
    "models/settings.py": "the settings",
    "api/local.py": "hands the environment on to the processes that it starts",
    "api/embedded.py": "hands the environment on to the servers that it starts",
    "api/supervision.py": "hands the environment on to the processes that it starts",
    "api/gunicorn.conf.py": "gunicorn's own, before anything is imported",
    "api/cli.py": "the demo login's password, which is no setting",
}
"""Who reads the environment, and why."""


def test_only_transaction_commits() -> None:
    assert {path for path, source in sources() if calls_of("commit", source)} == COMMITS


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("with transaction() as session: session.flush()", False),
        ("note = 'session.commit() is elsewhere'", False),
        ("batch.committed = True", False),
        ("session.commit()", True),
        ("db.session.commit()", True),
        ("get_session().commit()", True),
    ],
)
def test_a_commit_is_recognised(line: str, found: bool) -> None:
    assert bool(calls_of("commit", line)) is found


def test_only_the_settings_read_the_environment() -> None:
    readers = {path for path, source in sources() if reads_environment(source)}
    assert "models/settings.py" in readers
    assert readers <= set(READERS)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from models.settings import settings", False),
        ("environ = request.environ", False),
        ("import os\nos.environ['A']", True),
        ("import os\nos.getenv('A')", True),
        ("from os import environ", True),
        ("from environs import Env", True),
    ],
)
def test_a_reader_of_the_environment_is_recognised(line: str, found: bool) -> None:
    assert bool(reads_environment(line)) is found
