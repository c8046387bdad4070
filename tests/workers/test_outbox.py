"""Draining: the log is whole before anyone is told, and whatever dies or is away, nothing is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.event import listen, remove
from uuid_utils.compat import uuid7

import api.waker
from models.database import engine, transaction
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import activity
from models.operations.activity import Projected
from models.tables import WorkspaceMember
from realtime.channels import team_channel
from realtime.messages import Envelope, event
from tests.factories import TeamSetting
from workers import outbox


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch, team: TeamSetting) -> None:
    """Drains that don't linger, and an outbox that starts empty."""
    monkeypatch.setattr(outbox, "LINGER_S", 0.05)
    outbox.sweep()


def happen(team: TeamSetting, count: int = 1, *, at: UUID | None = None) -> None:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        for _ in range(count):
            record(session, access, WorkspaceCreated(workspace_id=at or uuid7(), name="Research"))


def numbers(team_id: UUID) -> list[int]:
    with transaction() as session:
        return list(
            session.scalars(
                text("SELECT seq FROM activity_logs WHERE team_id = :id ORDER BY seq"), {"id": team_id}
            )
        )


def waiting(team_id: UUID) -> int:
    with transaction() as session:
        return int(
            session.scalar(text("SELECT count(*) FROM outbox WHERE team_id = :id"), {"id": team_id}) or 0
        )


@pytest.fixture
def published(team: TeamSetting, redis: Redis) -> Iterator[Callable[[int], list[bytes]]]:
    """The next so many frames on the team's channel."""
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(team_channel(team.id))
        pubsub.get_message(ignore_subscribe_messages=False, timeout=5)

        def take(count: int) -> list[bytes]:
            frames: list[bytes] = []
            deadline = time.monotonic() + 5
            while len(frames) < count and time.monotonic() < deadline:
                if message := pubsub.get_message(timeout=0.1):
                    frames.append(message["data"])
            return frames

        yield take


@pytest.mark.parametrize("task", [outbox.drain, outbox.sweep], ids=["drain", "sweep"])
def test_it_moves_everything_and_twice_is_once(
    team: TeamSetting, task: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 3)
    before = len(numbers(team.id))
    happen(team, 8)
    task()
    assert numbers(team.id) == list(range(1, before + 9))
    task()
    assert numbers(team.id) == list(range(1, before + 9))
    assert waiting(team.id) == 0


def test_what_is_published_is_what_the_log_says(
    team: TeamSetting, published: Callable[[int], list[bytes]]
) -> None:
    before = numbers(team.id)
    happen(team, 3)
    outbox.sweep()
    frames = published(3)
    with transaction() as session:
        rows = session.execute(
            text(
                "SELECT team_id, seq, id, action, user_id, agent_id, workspace_id, metadata AS details, created_at "
                "FROM activity_logs WHERE team_id = :id AND seq > :seq ORDER BY seq"
            ),
            {"id": team.id, "seq": before[-1]},
        )
        expected = [Envelope(event(Projected(*row)), row.seq).seal() for row in rows]
    assert frames == expected
    assert len(frames) == 3


def test_a_private_workspaces_events_are_published_with_their_audience(
    team: TeamSetting, published: Callable[[int], list[bytes]]
) -> None:
    happen(team)
    happen(team, at=team.workspace_id)
    with transaction() as session:
        session.add(WorkspaceMember(team_id=team.id, workspace_id=team.workspace_id, user_id=team.viewer.id))
    outbox.sweep()
    assert [Envelope.unseal(sealed).audience for sealed in published(2)] == [None, None]
    make_private(team)
    happen(team)
    happen(team, at=team.workspace_id)
    team.owner.patch(team.path, json={"name": "Renamed"})
    outbox.sweep()
    audience = frozenset({team.owner.id, team.viewer.id})
    assert [Envelope.unseal(sealed).audience for sealed in published(3)] == [None, audience, None]


def make_private(team: TeamSetting) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE workspaces SET visibility = 'private' WHERE id = :id"), {"id": team.workspace_id}
        )


def test_audiences_are_read_in_the_transaction_that_projects_and_only_for_workspaces(
    team: TeamSetting, redis: Redis
) -> None:
    seen: list[str] = []

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.extend(name for name in ("WITH taken AS", "deleted_workspaces") if name in statement)

    def commit(_connection: Any) -> None:
        seen.append("commit")

    happen(team, at=team.workspace_id)
    listen(engine(), "before_cursor_execute", execute)
    listen(engine(), "commit", commit)
    try:
        outbox.drain_batch(redis)
        in_workspace = seen.copy()
        team.owner.patch(team.path, json={"name": "Renamed"})
        seen.clear()
        outbox.drain_batch(redis)
    finally:
        remove(engine(), "before_cursor_execute", execute)
        remove(engine(), "commit", commit)
    assert in_workspace == ["WITH taken AS", "deleted_workspaces", "commit"]
    assert seen == ["WITH taken AS", "commit"]


class FellOver(BaseException):
    """The worker's process ends here."""


def test_a_fall_between_the_commit_and_the_frames_leaves_the_log_complete(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch, published: Callable[[int], list[bytes]]
) -> None:
    before = len(numbers(team.id))
    happen(team, 2)

    def fall(*_: Any) -> None:
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "publish_events", fall)
        with pytest.raises(FellOver):
            outbox.drain()
    assert numbers(team.id) == list(range(1, before + 3))
    assert waiting(team.id) == 0

    happen(team, 1)
    outbox.drain()
    assert numbers(team.id) == list(range(1, before + 4))
    # The hub sees by the number that it missed two (realtime/hub.py).
    (frame,) = published(1)
    assert Envelope.unseal(frame).seq == before + 3


def test_a_fall_before_the_commit_leaves_the_outbox_complete(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(numbers(team.id))
    happen(team, 2)
    project = activity.project

    def fall(*arguments: Any, **named: Any) -> Any:
        project(*arguments, **named)
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(activity, "project", fall)
        with pytest.raises(FellOver):
            outbox.drain()
    assert (len(numbers(team.id)), waiting(team.id)) == (before, 2)
    outbox.drain()
    assert numbers(team.id) == list(range(1, before + 3))


def test_without_redis_it_drains_all_the_same(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(outbox, "connect", lambda _url: nowhere)
    before = len(numbers(team.id))
    for task in (outbox.drain, outbox.sweep):
        happen(team, 1)
        task()
        before += 1
        assert numbers(team.id) == list(range(1, before + 1))


def test_a_drain_lingers_for_what_comes_next(
    team: TeamSetting, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LINGER_S", 0.4)
    redis.delete(outbox.AWAKE_KEY)
    drain = threading.Thread(target=outbox.drain)
    drain.start()
    try:
        for _ in range(3):
            happen(team)
            deadline = time.monotonic() + 5
            while waiting(team.id) and time.monotonic() < deadline:
                time.sleep(0.005)
            assert waiting(team.id) == 0
            assert redis.exists(outbox.AWAKE_KEY)
            time.sleep(0.1)
        assert drain.is_alive()
    finally:
        drain.join(10)
    assert not drain.is_alive()
    assert not redis.exists(outbox.AWAKE_KEY)


def test_a_drain_that_is_never_idle_makes_way(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LONGEST_RUN_S", 0.3)
    monkeypatch.setattr(outbox, "LINGER_S", 60)
    started = time.monotonic()
    outbox.drain()
    assert 0.3 <= time.monotonic() - started < 5


def test_what_commits_while_the_key_goes_is_found_by_the_last_look(
    team: TeamSetting, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its web process saw the key and sent no message: nobody else will come."""
    before = len(numbers(team.id))
    delete = redis.delete

    def commit_then_delete(*names: str) -> Any:
        if outbox.AWAKE_KEY in names:
            happen(team)
            assert not redis.set(api.waker.AWAKE_KEY, 1, nx=True)  # what the waker would have seen
        return delete(*names)

    monkeypatch.setattr(redis, "delete", commit_then_delete)
    monkeypatch.setattr(outbox, "connect", lambda _url: redis)
    outbox.drain()
    assert numbers(team.id) == list(range(1, before + 2))


def test_waker_and_drain_mean_the_same_key() -> None:
    assert api.waker.AWAKE_KEY == outbox.AWAKE_KEY
    assert outbox.POLL_S < outbox.AWAKE_FOR_S / 4 < outbox.AWAKE_FOR_S
