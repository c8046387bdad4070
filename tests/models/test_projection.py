"""From the outbox to the log: every event once, numbered without gaps, whoever drains and whatever dies."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.database import engine, transaction
from models.errors import Unavailable
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import activity, workspaces
from models.queries import workspaces as workspace_queries
from tests.factories import TeamSetting, drain, make_team
from tests.models.concurrency import raised, together


def happen(team: TeamSetting, count: int) -> list[UUID]:
    """So many events in one transaction; the ids of what they are about."""
    ids = [uuid7() for _ in range(count)]
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        for workspace_id in ids:
            record(session, access, WorkspaceCreated(workspace_id=workspace_id, name="Research"))
    return ids


def rows(statement: str, **parameters: object) -> list[Any]:
    with transaction() as session:
        return list(session.execute(text(statement), parameters))


def log_of(team: TeamSetting) -> list[Any]:
    return rows("SELECT * FROM activity_logs WHERE team_id = :id ORDER BY seq", id=team.id)


def state_of(team: TeamSetting) -> tuple[int, int, list[int]]:
    """What waits, the head, and the numbers in the log."""
    (waiting,) = rows("SELECT count(*) AS n FROM outbox WHERE team_id = :id", id=team.id)
    (head,) = rows("SELECT seq FROM activity_heads WHERE team_id = :id", id=team.id)
    return waiting.n, head.seq, [row.seq for row in log_of(team)]


@pytest.fixture
def quiet(bare_team: TeamSetting) -> TeamSetting:
    """A team whose events are all in the log, as are everyone else's."""
    drain()
    return bare_team


def test_writers_and_drainers_at_once_lose_repeat_and_reorder_nothing(app: Flask) -> None:
    teams = [make_team(app, roles=()) for _ in range(3)]
    drain()
    before = {team.id: len(log_of(team)) for team in teams}
    names: Iterator[int] = iter(range(1_000_000))
    writing = threading.Event()
    writing.set()

    def write() -> None:
        for number in range(45):
            team = teams[number % 3]
            with transaction() as session:
                access = team.owner.enter(session, team.id)
                workspace = workspace_queries.get(session, access, team.workspace_id, for_update=True)
                workspaces.update(session, access, workspace, name=f"name {next(names)}")

    def project() -> int:
        moved = 0
        while True:
            last = not writing.is_set()
            with transaction() as session:
                batch = len(activity.project(session, limit=7, teams=2))
            moved += batch
            if last and not batch:
                return moved

    def write_all() -> None:
        try:
            assert raised(together(*[write] * 4)) == []
        finally:
            writing.clear()

    outcomes = together(write_all, *[project] * 3)
    assert raised(outcomes) == []
    drain()  # what a drainer passed over because another held its team when it looked last
    for team in teams:
        log = log_of(team)
        assert [row.seq for row in log] == list(range(1, len(log) + 1))
        assert len(log) == before[team.id] + 60
        assert len({row.id for row in log}) == len(log)
        assert state_of(team)[:2] == (0, len(log))
        # Each renaming says from what to what: the log's order is the order of the changes exactly if they join up.
        renamings = [row.metadata["changes"]["name"] for row in log if row.action == "workspace_updated"]
        assert len(renamings) == 60
        assert [was for was, _ in renamings] == ["Research", *(became for _, became in renamings[:-1])]


def test_draining_twice_is_draining_once(quiet: TeamSetting) -> None:
    happen(quiet, 5)
    assert drain() == 5
    log = log_of(quiet)
    assert drain() == 0
    assert log_of(quiet) == log


def test_the_log_keeps_the_outboxs_order_and_all_it_says(quiet: TeamSetting) -> None:
    ids = happen(quiet, 20)
    waiting = rows("SELECT * FROM outbox WHERE team_id = :id ORDER BY id", id=quiet.id)
    with transaction() as session:
        projected = activity.project(session, limit=500)
    log = log_of(quiet)[-20:]
    assert [row.resource_id for row in log] == ids
    assert [(row.team_id, row.seq, row.id, row.action) for row in projected] == [
        (row.team_id, row.seq, row.id, row.action) for row in log
    ]
    for was, row in zip(waiting, log, strict=True):
        assert (row.id, row.metadata, row.created_at) == (was.event_id, was.details, was.created_at)
        for column in (
            *("user_id", "agent_id", "api_key_id", "resource_type", "resource_name", "workspace_id"),
            *("ip_address", "user_agent", "request_id"),
        ):
            assert getattr(row, column) == getattr(was, column)
    assert [row.workspace_id for row in projected] == [row.workspace_id for row in log] == ids
    assert [row.agent_id for row in projected] == [row.agent_id for row in log]


def test_a_limit_cuts_batches_and_not_events(app: Flask, quiet: TeamSetting) -> None:
    other = make_team(app, roles=())
    drain()
    mine, theirs = happen(quiet, 5), happen(other, 5)
    sizes = []
    while True:
        with transaction() as session:
            sizes.append(len(activity.project(session, limit=3)))
        if not sizes[-1]:
            break
    assert sizes == [3, 3, 3, 1, 0]
    assert [row.resource_id for row in log_of(quiet)[-5:]] == mine
    assert [row.resource_id for row in log_of(other)[-5:]] == theirs


def test_a_team_that_another_drainer_holds_is_passed_over(app: Flask, quiet: TeamSetting) -> None:
    other = make_team(app, roles=())
    drain()
    happen(quiet, 2)
    happen(other, 3)
    with engine().connect() as holder, holder.begin():
        holder.execute(text("SELECT FROM activity_heads WHERE team_id = :id FOR UPDATE"), {"id": quiet.id})
        assert drain() == 3
        assert state_of(quiet)[0] == 2
    assert drain() == 2


class FellOver(BaseException):
    """The process ends here; no `except Exception` may heal it."""


def fall_before(marker: str) -> Callable[[], None]:
    """The next statement with `marker` in it never reaches the database; the returned function ends the spell."""

    def fall(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if marker in statement:
            raise FellOver

    event.listen(engine(), "before_cursor_execute", fall)
    return lambda: event.remove(engine(), "before_cursor_execute", fall)


@pytest.mark.parametrize("marker", ["WITH RECURSIVE waiting", "WITH taken AS"], ids=["claim", "project"])
def test_a_fall_between_statements_changes_nothing(quiet: TeamSetting, marker: str) -> None:
    happen(quiet, 4)
    before = state_of(quiet)
    heal = fall_before(marker)
    try:
        with pytest.raises(FellOver):
            drain()
    finally:
        heal()
    assert state_of(quiet) == before
    assert drain() == 4
    assert state_of(quiet)[1:] == (before[1] + 4, list(range(1, before[1] + 5)))


def kill_connection(session: Session) -> None:
    pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with engine().connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def project_and(session: Session, then: Callable[[Session], None]) -> None:
    assert len(activity.project(session, limit=500)) == 4
    then(session)


def raise_inside(_: Session) -> None:
    raise FellOver


@pytest.mark.parametrize(
    ("then", "error"), [(raise_inside, FellOver), (kill_connection, Unavailable)], ids=["raise", "kill"]
)
def test_a_fall_before_the_commit_changes_nothing(
    quiet: TeamSetting, then: Callable[[Session], None], error: type[BaseException]
) -> None:
    happen(quiet, 4)
    before = state_of(quiet)

    def fall() -> None:
        with transaction() as session:
            project_and(session, then)

    with pytest.raises(error):
        fall()
    assert state_of(quiet) == before
    assert drain() == 4
    log = log_of(quiet)
    assert [row.seq for row in log] == list(range(1, before[1] + 5))
    assert len({row.id for row in log}) == len(log)


def event_at(team: TeamSetting, moment: datetime) -> UUID:
    """An event that was recorded then, by the database's clock; its id."""
    with transaction() as session:
        record(
            session,
            team.owner.enter(session, team.id),
            WorkspaceCreated(workspace_id=uuid7(), name="Research"),
        )
        event_id: UUID = session.execute(
            text(
                "UPDATE outbox SET created_at = :moment "
                "WHERE id = (SELECT max(id) FROM outbox WHERE team_id = :id) RETURNING event_id"
            ),
            {"moment": moment, "id": team.id},
        ).scalar_one()
        return event_id


def partition_of(event_id: UUID) -> str:
    ((name,),) = rows("SELECT tableoid::regclass::text FROM activity_logs WHERE id = :id", id=event_id)
    return str(name)


def ensure(first: date, months: int) -> None:
    with transaction() as session:
        activity.ensure_partitions(session, first=first, months=months)


def partitions(pattern: str) -> dict[str, str]:
    found = rows(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_class c "
        "JOIN pg_inherits i ON i.inhrelid = c.oid "
        "WHERE i.inhparent = 'activity_logs'::regclass AND c.relname LIKE :pattern ORDER BY 1",
        pattern=pattern,
    )
    return {row.relname: row.bound for row in found}


def test_this_month_and_the_next_ones_have_partitions(quiet: TeamSetting) -> None:
    now = datetime.now(UTC)
    assert f"activity_logs_y{now:%Y}m{now:%m}" in partitions("activity_logs_y%")
    (event_id,) = rows("SELECT id FROM activity_logs WHERE team_id = :id LIMIT 1", id=quiet.id)[0]
    assert partition_of(event_id) == f"activity_logs_y{now:%Y}m{now:%m}"


def test_what_has_no_month_lands_in_the_default_partition(quiet: TeamSetting) -> None:
    past = event_at(quiet, datetime(1999, 12, 31, 23, 59, 59, 999999, UTC))
    future = event_at(quiet, datetime(2199, 1, 1, tzinfo=UTC))
    assert drain() == 2
    assert partition_of(past) == partition_of(future) == "activity_logs_default"
    assert state_of(quiet)[2] == list(range(1, len(log_of(quiet)) + 1))


def test_partitions_are_named_by_their_month_and_made_once() -> None:
    ensure(date(2101, 11, 30), 3)
    made = {
        "activity_logs_y2101m11": "FOR VALUES FROM ('2101-11-01 00:00:00+00') TO ('2101-12-01 00:00:00+00')",
        "activity_logs_y2101m12": "FOR VALUES FROM ('2101-12-01 00:00:00+00') TO ('2102-01-01 00:00:00+00')",
        "activity_logs_y2102m01": "FOR VALUES FROM ('2102-01-01 00:00:00+00') TO ('2102-02-01 00:00:00+00')",
    }
    assert partitions("activity_logs_y210%") == made
    ensure(date(2101, 11, 1), 3)
    assert partitions("activity_logs_y210%") == made


def test_a_month_takes_its_rows_out_of_the_default_partition(quiet: TeamSetting) -> None:
    before = event_at(quiet, datetime(2110, 4, 30, 23, 59, 59, tzinfo=UTC))
    first = event_at(quiet, datetime(2110, 5, 1, tzinfo=UTC))
    last = event_at(quiet, datetime(2110, 5, 31, 23, 59, 59, tzinfo=UTC))
    assert drain() == 3
    log = log_of(quiet)
    ensure(date(2110, 5, 1), 1)
    assert partition_of(before) == "activity_logs_default"
    assert partition_of(first) == partition_of(last) == "activity_logs_y2110m05"
    assert log_of(quiet) == log
    later = event_at(quiet, datetime(2110, 5, 15, tzinfo=UTC))
    assert drain() == 1
    assert partition_of(later) == "activity_logs_y2110m05"


def test_a_made_partition_has_the_parents_keys_and_indexes() -> None:
    ensure(date(2120, 1, 1), 1)

    def shape(table: str) -> tuple[list[str], list[str]]:
        constraints = rows(
            "SELECT pg_get_constraintdef(oid) AS it FROM pg_constraint "
            "WHERE conrelid = CAST(:t AS regclass) AND contype IN ('p', 'f') ORDER BY 1",
            t=table,
        )
        indexes = rows(
            "SELECT regexp_replace(indexdef, '^.* USING ', '') AS it FROM pg_indexes "
            "WHERE tablename = :t ORDER BY 1",
            t=table,
        )
        return [row.it for row in constraints], [row.it for row in indexes]

    assert shape("activity_logs_y2120m01") == shape("activity_logs")
    assert len(shape("activity_logs")[1]) == 13


def test_two_workers_make_the_same_months_at_once() -> None:
    assert raised(together(*[lambda: ensure(date(2130, 1, 1), 3)] * 4)) == []
    assert len(partitions("activity_logs_y2130%")) == 3


def test_draining_goes_on_while_a_month_is_made(quiet: TeamSetting) -> None:
    for month in range(1, 7):
        event_at(quiet, datetime(2140, month, 3, tzinfo=UTC))

    def make() -> None:
        for month in range(1, 7):
            ensure(date(2140, month, 1), 1)

    outcomes = together(make, drain, drain)
    assert raised(outcomes) == []
    assert sum(outcomes[1:]) + drain() == 6
    assert state_of(quiet)[2] == list(range(1, len(log_of(quiet)) + 1))
    assert all(
        row.name != "activity_logs_default"
        for row in rows(
            "SELECT tableoid::regclass::text AS name FROM activity_logs "
            "WHERE team_id = :id AND created_at > '2140-01-01'",
            id=quiet.id,
        )
    )
