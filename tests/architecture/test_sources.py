"""House rules of the source that imports can't say; each with a line that passes and one that fails."""

import pytest

from tests.architecture.sources import (
    calls_of,
    compares_secrets,
    makes_rows,
    reads_environment,
    sources,
    unexplained_exceptions,
)

COMMITS = {"models/database.py"}
"""`transaction()` is the only place that commits."""
SEATS = {"models/operations/members.py"}
"""`seat` is the only place that makes a member: under the team's lock, and after its callers looked at seats and power."""
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


def test_only_the_owner_of_membership_makes_members() -> None:
    assert {path for path, source in sources() if makes_rows("TeamMember", "team_members", source)} == SEATS


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("seat(session, team, user, role)", False),
        ("select(TeamMember).where(TeamMember.team_id == team_id)", False),
        ("update_rows(TeamMember).values(role=by)", False),
        ("session.execute(insert(OutboxEvent.__table__))", False),
        ("class TeamMember(TeamOwned, Base): ...", False),
        ("text('SELECT role FROM team_members')", False),
        ("session.add(TeamMember(team_id=team.id))", True),
        ("tables.TeamMember()", True),
        ("session.execute(insert(TeamMember), rows)", True),
        ("postgresql.insert(TeamMember.__table__)", True),
        ("session.bulk_insert_mappings(TeamMember, rows)", True),
        ("text('INSERT INTO team_members (id) VALUES (uuid7())')", True),
        ("text('insert  into team_members SELECT 1')", True),
    ],
)
def test_the_making_of_a_member_is_recognised(line: str, found: bool) -> None:
    assert bool(makes_rows("TeamMember", "team_members", line)) is found


def test_no_secret_is_compared_by_equality() -> None:
    assert {path for path, source in sources() if compares_secrets(source)} == {"models/production.py"}
    # which compares a setting with a user's name, in no request


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("hmac.compare_digest(sent, token)", False),
        ("Invitation.token_hash == hash_secret(token)", False),
        ("token is None", False),
        ("sent == settings().metrics_token", True),
        ("if password != given: ...", True),
        ("signature == hmac.digest(key, body, 'sha256')", True),
    ],
)
def test_a_comparison_of_secrets_is_recognised(line: str, found: bool) -> None:
    assert bool(compares_secrets(line)) is found


def test_what_bandit_passes_over_has_a_reason() -> None:
    assert {path for path, source in sources() if unexplained_exceptions(source)} == set()
    assert sum("# nosec" in source for _, source in sources()) > 3


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import xml  # it parses nothing  # nosec B406", False),
        ("A = 'ahq_'  # noqa: S105  what each begins with  # nosec B105", False),
        ("import xml  # it parses nothing  # nosec", True),
        ("import xml  # nosec B406", True),
        ("A = 'ahq_'  # noqa: S105  # nosec B105", True),
    ],
)
def test_an_exception_without_a_reason_is_recognised(line: str, found: bool) -> None:
    assert bool(unexplained_exceptions(line)) is found
