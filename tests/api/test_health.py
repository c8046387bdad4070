"""Whether the process lives, and whether it can serve."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from flask.testing import FlaskClient
from sqlalchemy import create_engine

from api import health
from models import database
from models.settings import settings
from tests.factories import Answer, TeamSetting, drain, execute

AWAY = "127.0.0.1:1"


def ready(client: FlaskClient) -> Answer:
    return client.get("/health/ready")


def test_a_live_process_answers(client: FlaskClient) -> None:
    answer: Answer = client.get("/health/live")
    assert (answer.status_code, answer.json) == (200, {"status": "live"})


@pytest.fixture(autouse=True)
def nothing_waits() -> None:
    drain()


def test_it_is_ready_when_database_and_redis_are_there(client: FlaskClient) -> None:
    answer = ready(client)
    assert (answer.status_code, answer.json) == (
        200,
        {
            "status": "ready",
            "checks": {"database": "ok", "migrations": "ok", "outbox": "ok", "redis": "ok"},
        },
    )


def test_without_redis_it_is_degraded_and_serves(
    client: FlaskClient, environment: Callable[[str, str], None]
) -> None:
    environment("REDIS_URL", f"redis://{AWAY}/0")
    answer = ready(client)
    assert (answer.status_code, answer.json["status"], answer.json["checks"]["redis"]) == (
        200,
        "degraded",
        "away",
    )


def test_without_its_database_it_is_not_ready_and_says_so(
    client: FlaskClient, environment: Callable[[str, str], None]
) -> None:
    environment("DATABASE_URL", f"postgresql://{AWAY}/nothing")
    answer = ready(client)
    assert (answer.status_code, answer.json["status"]) == (503, "unavailable")
    assert answer.json["checks"]["database"] == "away"
    call: Answer = client.get("/api/v1/me", headers={"Authorization": "Bearer ahq_something"})
    assert (call.status_code, call.json["code"]) == (503, "unavailable")
    assert call.headers["Retry-After"]
    assert AWAY not in call.text
    assert client.get("/health/live").status_code == 200


def test_a_database_that_is_behind_is_not_served_and_one_that_is_ahead_is(client: FlaskClient) -> None:
    head, known = health.revisions()
    before = min(known - {head})
    for revision, status, said in (
        (before, 503, "behind"),
        ("ffffffffffff", 200, "ahead"),
        (head, 200, "ok"),
    ):
        execute("UPDATE alembic_version SET version_num = :revision", revision=revision)
        answer = ready(client)
        assert (answer.status_code, answer.json["checks"]["migrations"]) == (status, said)
    execute("DELETE FROM alembic_version")
    missing = ready(client)
    execute("INSERT INTO alembic_version VALUES (:head)", head=head)
    assert (missing.status_code, missing.json["checks"]["migrations"]) == (503, "missing")
    execute("ALTER TABLE alembic_version RENAME TO hidden")
    missing = ready(client)
    execute("ALTER TABLE hidden RENAME TO alembic_version")
    assert (missing.status_code, missing.json["status"]) == (503, "unavailable")
    assert missing.json["checks"]["migrations"] == "missing"
    assert ready(client).status_code == 200


def test_events_that_wait_for_a_worker_are_told(client: FlaskClient, team: TeamSetting) -> None:
    drain()
    team.task()
    for seconds, outbox in ((29, "ok"), (31, "waiting")):
        execute("UPDATE outbox SET created_at = now() - :s * interval '1 s'", s=seconds)
        answer = ready(client)
        assert (answer.status_code, answer.json["checks"]["outbox"]) == (200, outbox)
        assert answer.json["status"] == ("ready" if outbox == "ok" else "degraded")
    drain()
    assert ready(client).json["status"] == "ready"


def test_they_need_no_credential_and_mind_a_bad_one_not(client: FlaskClient) -> None:
    for path in ("/health/live", "/health/ready"):
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 200


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Sets a variable of the environment for this test, as if the process had started with it."""

    def start_with(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        settings.cache_clear()
        monkeypatch.setattr(database, "engine", cache(lambda: create_engine(settings().database_url)))

    yield start_with
    database.engine().dispose()
    monkeypatch.undo()
    settings.cache_clear()
