"""Tasks whose lease ran out are returned: twice over, and after the worker died before its commit."""

from uuid import UUID

import pytest
from sqlalchemy import text

from models.database import transaction
from models.operations import tasks
from tests.factories import TeamSetting
from workers import tasks as jobs
from workers.app import app


class FellOver(BaseException):
    """The worker's process ends here."""


def state(task_id: UUID) -> tuple[str, int, bool]:
    with transaction() as session:
        row = session.execute(
            text("SELECT status, attempts, lease_id IS NOT NULL AS leased FROM tasks WHERE id = :id"),
            {"id": task_id},
        ).one()
    return row.status, row.attempts, row.leased


def returns(task_id: UUID) -> int:
    with transaction() as session:
        return int(
            session.execute(
                text("SELECT count(*) FROM outbox WHERE resource_id = :id AND action = 'task_returned'"),
                {"id": task_id},
            ).scalar_one()
        )


@pytest.fixture
def claimed(team: TeamSetting) -> list[UUID]:
    """Three tasks under a lease; the first one's has run out."""
    ids = [UUID(team.task()["id"]) for _ in range(3)]
    for _ in ids:
        answer = team.member.post(f"{team.path}/workspaces/{team.workspace_id}/tasks/claim", json={})
        assert answer.status_code == 200
    run_out(ids[:1])
    return ids


def run_out(ids: list[UUID]) -> None:
    with transaction() as session:
        session.execute(text("UPDATE tasks SET lease_expires_at = now() WHERE id = ANY(:ids)"), {"ids": ids})


def test_a_lease_that_ran_out_is_returned_and_others_stay(
    claimed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    return_expired = tasks.return_expired

    def die(*arguments: object) -> None:
        assert return_expired(*arguments)  # type: ignore[arg-type]  # passed on as they come
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(tasks, "return_expired", die)
        with pytest.raises(FellOver):
            jobs.return_expired()
    assert [state(task_id) for task_id in claimed] == [("processing", 1, True)] * 3
    assert returns(claimed[0]) == 0
    for _ in range(2):
        jobs.return_expired()
        assert state(claimed[0]) == ("pending", 1, False)
        assert [state(task_id) for task_id in claimed[1:]] == [("processing", 1, True)] * 2
        assert [returns(task_id) for task_id in claimed] == [1, 0, 0]


def test_a_run_returns_all_of_them(claimed: list[UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BATCH", 1)
    run_out(claimed)
    jobs.return_expired()
    assert [state(task_id)[0] for task_id in claimed] == ["pending"] * 3
    assert [returns(task_id) for task_id in claimed] == [1, 1, 1]


def test_it_ticks_every_second_in_the_maintenance_queue() -> None:
    (entry,) = (
        entry for entry in app.conf.beat_schedule.values() if entry["task"] == jobs.return_expired.name
    )
    assert entry["schedule"] == 1.0
    assert app.amqp.router.route({}, entry["task"])["queue"].name == "maintenance"
