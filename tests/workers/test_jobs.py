"""The other tasks: each twice, and once after it died before its commit."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.database import transaction
from models.operations import activity, idempotency, reservations, sessions, usage
from models.operations.usage import UsageEvent
from models.queries import usage as queries
from models.tables.usage import Metric
from tests.factories import TeamSetting
from tests.models.concurrency import FellOver, dying
from workers import activity as activity_jobs
from workers import maintenance
from workers import usage as usage_jobs


def rows(statement: str, **parameters: object) -> Sequence[Any]:
    with transaction() as session:
        return session.execute(text(statement), parameters).all()


def run(statement: str, **parameters: object) -> None:
    with transaction() as session:
        session.execute(text(statement), parameters)


def report(team: TeamSetting, count: int) -> None:
    with transaction() as session:
        events = [UsageEvent(uuid7().hex, Metric.llm_tokens_used, 10) for _ in range(count)]
        usage.report(session, team.owner.enter(session, team.id), events)


def folded(team: TeamSetting) -> int:
    ((found,),) = rows(
        "SELECT coalesce(sum(llm_tokens_used), 0) FROM usage_stats WHERE team_id = :id", id=team.id
    )
    return int(found)


def pending(team: TeamSetting) -> int:
    return len(rows("SELECT FROM usage_pending WHERE team_id = :id", id=team.id))


def test_the_fold(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    usage_jobs.fold()
    report(team, 7)
    with monkeypatch.context() as patched:
        patched.setattr(usage, "fold", dying(usage.fold))
        with pytest.raises(FellOver):
            usage_jobs.fold()
    assert (folded(team), pending(team)) == (0, 7)
    monkeypatch.setattr(usage_jobs, "BATCH", 2)
    for _ in range(2):
        usage_jobs.fold()
        assert (folded(team), pending(team)) == (70, 0)
    with transaction() as session:
        day = rows("SELECT min(date) AS date FROM usage_stats WHERE team_id = :id", id=team.id)[0].date
        total = queries.total(session, team.owner.enter(session, team.id), since=day, until=day)
    assert total.llm_tokens_used == 70


def test_the_search_for_what_nobody_settled(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    usage_jobs.mark_unsettled()
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        for number in range(5):
            reservations.reserve(
                session, access, external_id=str(number), metric=Metric.llm_tokens_used, quantity=10
            )
    run(
        "UPDATE usage_reservations SET expires_at = now() WHERE team_id = :id AND external_id <> '4'",
        id=team.id,
    )

    def found() -> tuple[int, list[int]]:
        marked = rows(
            "SELECT FROM usage_reservations WHERE team_id = :id AND state = 'unsettled'", id=team.id
        )
        told = rows(
            "SELECT details FROM outbox WHERE team_id = :id AND action = 'usage_unsettled' ORDER BY id",
            id=team.id,
        )
        return len(marked), [row.details["count"] for row in told]

    with monkeypatch.context() as patched:
        patched.setattr(reservations, "mark_unsettled", dying(reservations.mark_unsettled))
        with pytest.raises(FellOver):
            usage_jobs.mark_unsettled()
    assert found() == (0, [])
    monkeypatch.setattr(usage_jobs, "BATCH", 3)
    for _ in range(2):
        usage_jobs.mark_unsettled()
        assert found() == (4, [3, 1])


def partitions() -> set[str]:
    return {
        row.name
        for row in rows(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'activity_logs'::regclass"
        )
    }


def test_the_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    activity_jobs.ensure_partitions()
    made = partitions()
    (last,) = rows("SELECT to_char(now() + interval '3 months', '\"activity_logs_y\"YYYY\"m\"MM') AS name")
    assert last.name in made
    run(f"DROP TABLE {last.name}")
    with monkeypatch.context() as patched:
        patched.setattr(activity, "ensure_partitions", dying(activity.ensure_partitions))
        with pytest.raises(FellOver):
            activity_jobs.ensure_partitions()
    assert partitions() == made - {last.name}
    for _ in range(2):
        activity_jobs.ensure_partitions()
        assert partitions() == made


def test_expired_sessions_go_and_others_stay(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    run("UPDATE sessions SET expires_at = now() WHERE user_id = :id", id=team.viewer.id)

    def left() -> list[bool]:
        return [
            bool(rows("SELECT FROM sessions WHERE user_id = :id", id=person.id))
            for person in (team.viewer, team.member)
        ]

    with monkeypatch.context() as patched:
        patched.setattr(sessions, "expire", dying(sessions.expire))
        with pytest.raises(FellOver):
            maintenance.expire_sessions()
    assert left() == [True, True]
    for _ in range(2):
        maintenance.expire_sessions()
        assert left() == [False, True]


def test_expired_idempotency_keys_go_and_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = uuid7().bytes
    for key, age in (("old", "25 hours"), ("young", "23 hours")):
        run(
            "INSERT INTO idempotency_keys (scope, key, fingerprint, status, created_at) "
            "VALUES (:scope, :key, '', 200, now() - CAST(:age AS interval))",
            scope=scope,
            key=key,
            age=age,
        )

    def left() -> list[str]:
        return [
            row.key for row in rows("SELECT key FROM idempotency_keys WHERE scope = :s ORDER BY 1", s=scope)
        ]

    with monkeypatch.context() as patched:
        patched.setattr(idempotency, "expire", dying(idempotency.expire))
        with pytest.raises(FellOver):
            maintenance.expire_idempotency_keys()
    assert left() == ["old", "young"]
    for _ in range(2):
        maintenance.expire_idempotency_keys()
        assert left() == ["young"]
