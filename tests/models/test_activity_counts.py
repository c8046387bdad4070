"""The log, counted: exact whatever was folded, by however many, wherever they died; and right after a purge."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import event, insert, text
from uuid_utils.compat import uuid7

from models.database import engine, transaction
from models.operations import activity, activity_counts
from models.queries import activity_facets
from models.queries.activity_facets import Facets
from models.tables import OutboxEvent
from tests.factories import Person, TeamSetting, drain, execute, fetch, fold_log, make_agent, make_team
from tests.models.concurrency import raised, together
from workers.activity import fold as fold_task

TABLES = ("activity_folds", "activity_counts", "activity_days", "activity_people")


def happen(team: TeamSetting, count: int, *, seed: int = 1, agent: str | None = None) -> None:
    """So many events of several months, actors and workspaces, drained."""
    dice = random.Random(seed)
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {
            "event_id": uuid7(),
            "team_id": team.id,
            "action": dice.choice(["task_created", "task_failed", "old"]),
            "user_id": dice.choice([team.owner.id, team.member.id, None]),
            "agent_id": UUID(agent) if agent and dice.random() < 0.3 else None,
            "workspace_id": dice.choice([team.workspace_id, None]),
            "resource_type": "task",
            "resource_id": uuid7(),
            "details": {},
            "created_at": now - timedelta(days=100 * dice.random()),
        }
        for _ in range(count)
    ]
    with transaction() as session:
        session.connection().execute(insert(OutboxEvent.__table__), rows)  # type: ignore[arg-type]
    drain()


def facets(team: TeamSetting, by: Person | None = None, **wanted: Any) -> Facets:
    with transaction() as session:
        return activity_facets.count(session, (by or team.owner).enter(session, team.id), **wanted)


def shown(found: Facets) -> dict[str, dict[str, int]]:
    return {
        name: {facet.value: facet.count for facet in getattr(found, name)}
        for name in ("actions", "users", "agents", "workspaces")
    } | {"total": {"": found.total}}


def log_of(team: TeamSetting) -> list[Any]:
    return fetch("SELECT * FROM activity_logs WHERE team_id = :id", id=team.id)


def naive(
    team: TeamSetting,
    since: datetime | None = None,
    until: datetime | None = None,
    workspace_id: UUID | None = None,
    hidden: UUID | None = None,
    log: list[Any] | None = None,
) -> dict[str, dict[str, int]]:
    rows = [
        row
        for row in (log or log_of(team))
        if (since is None or row.created_at >= since)
        and (until is None or row.created_at < until)
        and workspace_id in (None, row.workspace_id)
        and (hidden is None or row.workspace_id != hidden)
    ]

    def counted(column: str) -> dict[str, int]:
        return dict(Counter(str(value) for row in rows if (value := getattr(row, column)) is not None))

    return {
        "actions": counted("action"),
        "users": counted("user_id"),
        "agents": counted("agent_id"),
        "workspaces": counted("workspace_id"),
        "total": {"": len(rows)},
    }


def state() -> list[Any]:
    return [sorted(map(str, fetch(f"SELECT to_jsonb(t) - 'id' FROM {table} t"))) for table in TABLES]


@pytest.fixture
def busy(team: TeamSetting) -> TeamSetting:
    happen(team, 120, agent=make_agent(team)["id"])
    return team


def spans() -> list[tuple[datetime | None, datetime | None]]:
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    before = (month - timedelta(days=1)).replace(day=1)
    return [
        (None, None),
        (month, None),
        (before, month),
        (month + timedelta(microseconds=1), None),
        (None, month - timedelta(microseconds=1)),
        (now - timedelta(days=50), now - timedelta(days=1)),
        (now - timedelta(days=2), now - timedelta(days=1)),
        (before + timedelta(days=3), month),
        (before, month + timedelta(hours=1)),
        (now, now - timedelta(days=3)),
        (datetime.max.replace(tzinfo=UTC), None),
        (None, datetime.min.replace(tzinfo=UTC)),
        (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    ]


@pytest.mark.parametrize("folded", [0, 50, 10_000])
def test_the_counts_are_those_of_the_rows(busy: TeamSetting, folded: int) -> None:
    if folded:
        with transaction() as session:
            activity_counts.fold(session, limit=folded, teams=10_000)
    log = log_of(busy)
    for since, until in spans():
        for workspace_id in (None, busy.workspace_id, uuid7()):
            found = facets(busy, since=since, until=until, workspace_id=workspace_id)
            expected = naive(busy, since, until, workspace_id, log=log)
            assert shown(found) == expected, (since, until, workspace_id)


def test_they_have_the_names_of_today(busy: TeamSetting) -> None:
    assert busy.member.patch("/me", json={"name": "Mina"}).status_code == 200
    found = facets(busy)
    assert {facet.value: facet.name for facet in found.users}[str(busy.member.id)] == "Mina"
    assert [facet.name for facet in found.agents] == ["Scout"]
    assert [facet.name for facet in found.workspaces] == ["Research"]
    assert busy.owner.delete(f"{busy.path}/workspaces/{busy.workspace_id}").status_code == 204
    drain()
    assert [facet.name for facet in facets(busy).workspaces] == [None]


def test_the_most_frequent_come_first_and_no_more_than_the_limit(
    busy: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = facets(busy)
    counts = [facet.count for facet in whole.actions]
    assert counts == sorted(counts, reverse=True)
    monkeypatch.setattr(activity_facets, "MOST", len(counts))
    assert facets(busy) == whole
    monkeypatch.setattr(activity_facets, "MOST", 2)
    assert list(facets(busy).actions) == list(whole.actions)[:2]
    assert facets(busy).total == whole.total


@pytest.mark.parametrize("folded", [False, True])
def test_what_a_member_may_not_see_counts_for_nothing(busy: TeamSetting, folded: bool) -> None:
    made = busy.owner.post(f"{busy.path}/workspaces", json={"name": "Vault", "visibility": "private"})
    room = UUID(made.json["id"])
    drain()
    if folded:
        fold_log()
    hidden = naive(busy, hidden=room)
    assert shown(facets(busy, busy.member)) == hidden != shown(facets(busy)) == naive(busy)
    assert facets(busy, busy.member, workspace_id=room).total == 0
    assert facets(busy, workspace_id=room).total == 1
    assert busy.owner.delete(f"{busy.path}/workspaces/{room}").status_code == 204
    drain()
    assert str(room) not in shown(facets(busy, busy.member))["workspaces"]
    assert shown(facets(busy))["workspaces"][str(room)] == 2


def test_folding_twice_is_folding_once(busy: TeamSetting) -> None:
    fold_log()
    before = state()
    assert fold_log() == 0
    fold_task()
    assert state() == before
    head = fetch("SELECT seq FROM activity_heads WHERE team_id = :id", id=busy.id)
    assert fetch("SELECT seq FROM activity_folds WHERE team_id = :id", id=busy.id) == head


class FellOver(BaseException):
    """The worker's process ends here."""


@pytest.mark.parametrize(
    "dies_before", ["INSERT INTO activity_folds", "SELECT f.team_id", "WITH new", "COMMIT"]
)
def test_a_fold_that_dies_changes_nothing(busy: TeamSetting, dies_before: str) -> None:
    fold_log()
    happen(busy, 10, seed=2)
    before = state()

    def dies(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if dies_before in statement:
            raise FellOver

    def fold() -> None:
        with transaction() as session:
            activity_counts.fold(session, limit=5)
            raise FellOver

    event.listen(engine(), "before_cursor_execute", dies)
    try:
        with pytest.raises(FellOver):
            fold()
    finally:
        event.remove(engine(), "before_cursor_execute", dies)
    assert state() == before
    assert shown(facets(busy)) == naive(busy)
    fold_log()
    assert shown(facets(busy)) == naive(busy)


def test_they_are_exact_while_rows_arrive_and_many_fold(app: Flask, busy: TeamSetting) -> None:
    teams = [busy, make_team(app)]
    writing = threading.Event()
    writing.set()

    def write() -> None:
        try:
            for seed in range(6):
                for team in teams:
                    happen(team, 15, seed=seed)
        finally:
            writing.clear()

    def fold() -> None:
        while writing.is_set():
            with transaction() as session:
                activity_counts.fold(session, limit=4)

    def read() -> None:
        last = 0
        while writing.is_set():
            total = facets(busy).total
            assert total >= last
            last = total

    assert raised(together(write, fold, fold, read)) == []
    for team in teams:
        assert shown(facets(team)) == naive(team)
    fold_log()
    for team in teams:
        assert shown(facets(team)) == naive(team)


# What is purged counts no more


def purge(team: TeamSetting, up_to: int, at_most: int = 1_000) -> int:
    with transaction() as session:
        session.execute(
            text("SELECT seq FROM activity_heads WHERE team_id = :id FOR UPDATE"), {"id": team.id}
        )
        return activity.purge(session, team.id, up_to=up_to, at_most=at_most)


def fold_some(limit: int) -> None:
    with transaction() as session:
        activity_counts.fold(session, limit=limit, teams=10_000)


@pytest.mark.parametrize(
    "before",
    [lambda: None, lambda: fold_some(30), fold_log],
    ids=["not counted", "counted in part", "counted"],
)
@pytest.mark.parametrize("up_to", [20, 60, 10**6])
def test_a_purge_keeps_the_counts_right(busy: TeamSetting, before: Callable[[], object], up_to: int) -> None:
    before()
    rows = fetch("SELECT count(*) AS n FROM activity_logs WHERE team_id = :id", id=busy.id)[0].n
    assert purge(busy, up_to) == min(up_to, rows)
    assert shown(facets(busy)) == naive(busy)
    happen(busy, 5, seed=3)
    fold_log()
    assert fold_log() == 0
    for since, until in spans():
        assert shown(facets(busy, since=since, until=until)) == naive(busy, since, until)
    assert fetch("SELECT n FROM activity_counts WHERE team_id = :id AND n = 0", id=busy.id) == []


def test_a_purge_and_a_fold_at_once_leave_the_counts_right(busy: TeamSetting) -> None:
    def erase() -> None:
        for _ in range(8):
            purge(busy, 10**6, at_most=9)

    def fold() -> None:
        for _ in range(25):
            with transaction() as session:
                activity_counts.fold(session, limit=7)

    assert raised(together(erase, fold, fold)) == []
    assert shown(facets(busy)) == naive(busy)
    fold_log()
    assert shown(facets(busy)) == naive(busy)


def test_rows_that_move_to_their_months_partition_still_count(busy: TeamSetting) -> None:
    moment = datetime(2151, 3, 4, tzinfo=UTC)
    happen(busy, 1)
    execute(
        "INSERT INTO outbox (event_id, team_id, action, resource_type, resource_id, details, created_at)"
        " VALUES (uuid7(), :id, 'old', 'task', uuid7(), '{}', :moment)",
        id=busy.id,
        moment=moment,
    )
    drain()
    fold_log()
    with transaction() as session:
        activity.ensure_partitions(session, first=moment.date(), months=1)
    assert facets(busy, since=moment).total == 1
    assert shown(facets(busy)) == naive(busy)
