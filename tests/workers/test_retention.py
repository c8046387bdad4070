"""Purging what has expired: what goes, what stays, that it still verifies, and who may die or get in the way meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.database import transaction
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import checkpoints, retention
from models.queries.chain import DIGEST
from models.settings import settings
from tests.audit import tamper
from tests.factories import Person, TeamSetting, drain, execute, fetch, make_person, make_team
from tests.models.concurrency import raised, together
from workers import activity as activity_jobs
from workers import maintenance
from workers import retention as jobs

RECOMPUTED = f"""
SELECT (activity_chain(coalesce(h.purged_hash, activity_genesis(h.team_id)), {DIGEST} ORDER BY l.seq)) AS recomputed,
       (SELECT hash FROM activity_heads WHERE team_id = :id) AS head
FROM activity_logs l JOIN activity_heads h ON h.team_id = l.team_id WHERE l.team_id = :id
"""


def happen(team: TeamSetting, *ages: str) -> None:
    """An event for each, so long ago, in this order; what waited in the outbox is as old as the first of them."""
    for number, age in enumerate(ages):
        with transaction() as session:
            access = team.owner.enter(session, team.id)
            record(session, access, WorkspaceCreated(workspace_id=uuid7(), name="Research"))
        everything = "" if number == 0 else "AND id = (SELECT max(id) FROM outbox WHERE team_id = :id)"
        execute(
            f"UPDATE outbox SET created_at = now() - CAST(:age AS interval) WHERE team_id = :id {everything}",
            age=age,
            id=team.id,
        )
    drain()


def seqs(team: TeamSetting) -> list[int]:
    return [
        row.seq for row in fetch("SELECT seq FROM activity_logs WHERE team_id = :id ORDER BY seq", id=team.id)
    ]


def head(team: TeamSetting) -> Any:
    return fetch("SELECT * FROM activity_heads WHERE team_id = :id", id=team.id)[0]


def purges(team: TeamSetting) -> list[dict[str, Any]]:
    """What the log says of them, the oldest first."""
    drain()
    found = fetch(
        "SELECT metadata FROM activity_logs WHERE team_id = :id AND action = 'activity_purged' ORDER BY seq",
        id=team.id,
    )
    return [row.metadata for row in found]


def assert_chained(team: TeamSetting) -> None:
    """What is left chains from the hash of the last row purged to the head, by PostgreSQL's own recomputation."""
    ((recomputed, ends),) = fetch(RECOMPUTED, id=team.id)
    assert bytes(recomputed) == bytes(ends)
    assert seqs(team) == list(range(head(team).purged_seq + 1, head(team).seq + 1))


@pytest.fixture
def bare(app: Flask) -> TeamSetting:
    """A team of its owner alone, on the free plan from the beginning: team_created is its only event."""
    owner = make_person(app, "Owner")
    made = owner.post("/teams", json={"name": "Design"}).json
    return TeamSetting(id=UUID(made["id"]), owner=owner, people={}, workspace_id=uuid7())


def on_plan(team: TeamSetting, plan: str) -> None:
    execute("UPDATE teams SET plan = :plan WHERE id = :id", plan=plan, id=team.id)


@pytest.mark.parametrize(
    ("plan", "chosen", "days"),
    [
        ("free", None, 30),
        ("free", 7, 7),
        ("pro", None, 365),
        ("pro", 1_095, 1_095),
        ("enterprise", None, 1_095),
        ("enterprise", 3_650, 3_650),
        ("free", 90, 30),  # chosen on a larger plan
    ],
)
def test_a_row_stays_as_long_as_the_team_keeps_it(
    bare: TeamSetting, plan: str, chosen: int | None, days: int
) -> None:
    on_plan(bare, plan)
    execute("UPDATE teams SET retention_days = :days WHERE id = :id", days=chosen, id=bare.id)
    happen(bare, f"{days} days 1 minute", f"{days - 1} days 23:59:00", "1 minute")
    jobs.prune()
    assert seqs(bare) == [3, 4]
    assert purges(bare) == [{"team_id": str(bare.id), "from_seq": 1, "to_seq": 2, "rows": 2, "days": days}]
    assert_chained(bare)
    jobs.prune()
    assert purges(bare) == purges(bare)[:1]


def test_a_purge_is_told_in_a_sentence(bare: TeamSetting) -> None:
    happen(bare, "31 days", "1 day")
    jobs.prune()
    drain()
    newest = bare.owner.get(f"{bare.path}/activity?limit=1").json["items"][0]
    assert newest["summary"] == "The system purged the log's rows 1 to 2, older than 30 days"
    assert (newest["action"], newest["user_id"]) == ("activity_purged", None)


def test_a_purge_begins_at_the_beginning_and_skips_nothing(bare: TeamSetting) -> None:
    """An old row behind a young one waits for it: the log has no holes."""
    happen(bare, "40 days", "20 days", "35 days", "1 day")
    jobs.prune()
    assert seqs(bare) == [3, 4, 5]
    assert_chained(bare)


def test_nothing_old_is_nothing_to_do(bare: TeamSetting) -> None:
    happen(bare, "29 days", "1 day")
    before = seqs(bare)
    jobs.prune()
    assert (seqs(bare), purges(bare), head(bare).purged_hash) == (before, [], None)


def test_everything_old_goes_and_the_log_goes_on(bare: TeamSetting) -> None:
    happen(bare, "40 days", "35 days")
    jobs.prune()
    assert seqs(bare) == []
    assert purges(bare)[0]["to_seq"] == 3
    assert seqs(bare) == [4]
    assert_chained(bare)


def test_a_checkpoint_covers_what_is_purged(bare: TeamSetting) -> None:
    happen(bare, "40 days", "35 days", "1 day")
    jobs.prune()
    (signed,) = fetch("SELECT seq FROM checkpoints WHERE team_id = :id", id=bare.id)
    assert signed.seq >= head(bare).purged_seq == 3
    drain()
    with transaction() as session:
        made = checkpoints.sign(session, bare.id)  # what is left, from the purged hash on
    assert made is not None
    assert made.seq == head(bare).seq


def test_without_a_key_nothing_is_purged_that_is_not_signed(
    bare: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(bare, "40 days", "35 days")
    with transaction() as session:
        assert checkpoints.sign(session, bare.id)
    happen(bare, "34 days", "1 day")
    seed = settings().signing_key
    monkeypatch.setenv("SIGNING_KEY", "")
    settings.cache_clear()
    try:
        with pytest.raises(checkpoints.Unverifiable, match="not of our keys"), transaction() as session:
            retention.prune(session, bare.id, 10)
        jobs.prune()
        assert seqs(bare) == [1, 2, 3, 4, 5]
    finally:
        monkeypatch.setenv("SIGNING_KEY", seed or "")
        settings.cache_clear()
    jobs.prune()
    assert seqs(bare)[0] == 5


def test_a_log_that_does_not_verify_is_not_purged(app: Flask, bare: TeamSetting) -> None:
    happen(bare, "40 days", "35 days", "1 day")
    tamper("UPDATE activity_logs SET action = 'x' WHERE team_id = :id AND seq = 2", id=bare.id)
    sound = make_team(app, roles=())
    happen(sound, "400 days", "1 day")
    jobs.prune()
    assert seqs(bare) == [1, 2, 3, 4]
    assert seqs(sound)[0] > 1  # the others have their turn


def test_large_logs_go_in_parts(bare: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ROWS_AT_ONCE", 3)
    happen(bare, *["40 days"] * 7, "1 day")
    jobs.prune()
    said = [(each["from_seq"], each["to_seq"], each["rows"]) for each in purges(bare)]
    assert said == [(1, 3, 3), (4, 6, 3), (7, 8, 2)]
    assert_chained(bare)


class FellOver(BaseException):
    """The worker's process ends here."""


def test_a_worker_that_dies_before_its_commit_changes_nothing(
    bare: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(bare, "40 days", "35 days", "1 day")
    prune = retention.prune

    def die(*arguments: Any) -> int:
        assert prune(*arguments) == 3
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(retention, "prune", die)
        with pytest.raises(FellOver):
            jobs.prune_team(bare.id, time.monotonic() + 10)
    assert (seqs(bare), purges(bare)) == ([1, 2, 3, 4], [])
    jobs.prune()
    assert seqs(bare)[0] == 4


PRUNING = (
    "from workers import retention; retention.ROWS_AT_ONCE = 1; print('begun', flush=True); retention.prune()"
)


def test_a_worker_that_is_killed_while_pruning_loses_nothing_and_the_next_goes_on(bare: TeamSetting) -> None:
    happen(bare, *["40 days"] * 150, "1 day", "1 day")
    last = head(bare).seq
    kept = [last - 1, last]
    killed_in_the_middle = 0
    for _ in range(4):
        worker = subprocess.Popen(
            [sys.executable, "-c", PRUNING], env=dict(os.environ), stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "begun\n"
        before = head(bare).purged_seq
        deadline = time.monotonic() + 20
        while head(bare).purged_seq < before + 20 and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        killed_in_the_middle += worker.poll() is None
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
        drain()
        assert_chained(bare)
        said = purges(bare)
        assert sum(each["rows"] for each in said) == head(bare).purged_seq
        assert [each["from_seq"] for each in said] == list(range(1, head(bare).purged_seq + 1))
    assert killed_in_the_middle >= 2
    jobs.prune()
    assert seqs(bare)[:2] == kept
    assert_chained(bare)


def test_any_number_of_workers_may_purge_at_once(bare: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ROWS_AT_ONCE", 2)
    happen(bare, *["40 days"] * 19, "1 day")
    assert raised(together(*[jobs.prune] * 4)) == []
    said = purges(bare)
    assert [(each["from_seq"], each["rows"]) for each in said] == [(n, 2) for n in range(1, 21, 2)]
    assert_chained(bare)


def test_draining_goes_on_meanwhile(bare: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ROWS_AT_ONCE", 2)
    happen(bare, *["40 days"] * 19)

    def write() -> None:
        for _ in range(10):
            with transaction() as session:
                access = bare.owner.enter(session, bare.id)
                record(session, access, WorkspaceCreated(workspace_id=uuid7(), name="Research"))
            drain()

    assert raised(together(jobs.prune, write, jobs.prune, drain)) == []
    assert sum(each["rows"] for each in purges(bare)) == 20
    assert_chained(bare)


def hold(team: TeamSetting, by: Person | None = None) -> None:
    answer = (by or team.owner).put(f"{team.path}/legal-hold", json={"reason": "The case"})
    assert answer.status_code == 200


def test_under_a_legal_hold_nothing_is_purged(bare: TeamSetting) -> None:
    happen(bare, "40 days", "1 day")
    hold(bare)
    jobs.prune()
    with transaction() as session:  # nor by who had it on a list before
        assert retention.prune(session, bare.id, 10) == 0
    drain()
    assert seqs(bare) == [1, 2, 3, 4]
    assert bare.owner.delete(f"{bare.path}/legal-hold").status_code == 204
    jobs.prune()
    assert seqs(bare)[0] == 3


def test_a_hold_that_is_placed_while_somebody_purges_ends_it(bare: TeamSetting) -> None:
    happen(bare, *["40 days"] * 30)

    def purge() -> list[int]:
        purged = []
        for _ in range(60):
            with transaction() as session:
                purged.append(retention.prune(session, bare.id, 1))
        return purged

    def place() -> int:
        while head(bare).purged_seq < 3:
            time.sleep(0.001)
        hold(bare)
        left: int = head(bare).purged_seq
        return left

    purged, at_hold = together(purge, place)
    assert sum(purged) == at_hold == head(bare).purged_seq
    drain()
    assert_chained(bare)


def due(team: TeamSetting) -> None:
    execute("UPDATE teams SET deleted_at = now() - interval '31 days' WHERE id = :id", id=team.id)


def exists(team: TeamSetting) -> bool:
    return bool(fetch("SELECT FROM teams WHERE id = :id", id=team.id))


def test_a_deleted_team_under_a_hold_stays_and_its_owner_can_bring_it_back(bare: TeamSetting) -> None:
    hold(bare)
    assert bare.owner.delete(bare.path).status_code == 204
    due(bare)
    maintenance.purge_teams()
    assert exists(bare)
    assert [row["id"] for row in bare.owner.get("/teams?deleted=true").json["items"]] == [str(bare.id)]
    assert bare.owner.post(f"{bare.path}/restore").status_code == 200
    assert bare.owner.delete(f"{bare.path}/legal-hold").status_code == 204
    assert bare.owner.delete(bare.path).status_code == 204
    due(bare)
    assert bare.owner.post(f"{bare.path}/restore").status_code == 404
    maintenance.purge_teams()
    assert not exists(bare)


def test_a_shorter_period_counts_thirty_days_later(bare: TeamSetting) -> None:
    on_plan(bare, "pro")
    happen(bare, "400 days", "300 days", "20 days", "1 day")
    shortened: list[Callable[[], Any]] = [
        lambda: bare.owner.patch(bare.path, json={"retention_days": 7}),
        lambda: bare.owner.put(f"{bare.path}/plan", json={"plan": "free"}),
    ]
    for shorten in shortened:
        assert shorten().status_code == 200
        shown = bare.owner.get(bare.path).json
        assert (shown["retention_days_in_force"], shown["retention_shortens_at"] is not None) == (365, True)
        jobs.prune()
        drain()
        assert seqs(bare)[0] == 3
    execute(
        "UPDATE teams SET longer_retention_until = now() + interval '1 minute' WHERE id = :id", id=bare.id
    )
    jobs.prune()
    assert seqs(bare)[0] == 3
    execute("UPDATE teams SET longer_retention_until = now() WHERE id = :id", id=bare.id)
    shown = bare.owner.get(bare.path).json
    assert (shown["retention_days_in_force"], shown["retention_shortens_at"]) == (7, None)
    jobs.prune()
    assert seqs(bare)[0] == 5
    assert purges(bare)[-1]["days"] == 7


def partitions() -> set[str]:
    found = fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'activity_logs'::regclass"
    )
    return {row.name for row in found}


def ensure(first: str, months: int) -> None:
    execute("SELECT ensure_activity_partitions(CAST(:first AS date), :months)", first=first, months=months)


def month(ago: int) -> str:
    """The first day of the month so many months ago, and its partition's name."""
    ((name,),) = fetch(
        "SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => :ago), 'YYYY-MM-DD')",
        ago=ago,
    )
    return str(name)


def named(first: str) -> str:
    return f"activity_logs_y{first[:4]}m{first[5:7]}"


def test_past_months_that_hold_nothing_are_dropped(bare: TeamSetting) -> None:
    ensure("2019-01-01", 3)
    ensure(month(2), 3)
    activity_jobs.ensure_partitions()
    happen(bare, "1 day")
    with transaction() as session:
        record(
            session,
            bare.owner.enter(session, bare.id),
            WorkspaceCreated(workspace_id=uuid7(), name="Research"),
        )
    execute("UPDATE outbox SET created_at = '2019-02-03' WHERE team_id = :id", id=bare.id)
    drain()
    before = partitions()
    dropped = 0
    for _ in range(10):  # what a call can't have at once, as somebody reads, it leaves to the next
        with transaction() as session:
            dropped += retention.drop_empty_partitions(session)
    gone = before - partitions()
    assert dropped == len(gone)
    assert {"activity_logs_y2019m01", "activity_logs_y2019m03"} <= gone
    assert all(
        fetch(f"SELECT EXISTS (SELECT FROM {name}) AS filled")[0].filled for name in {named(month(2))} - gone
    )
    assert {
        "activity_logs_y2019m02",
        "activity_logs_default",
        named(month(1)),
        named(month(0)),
    } <= partitions()
    assert not {name for name in gone if name > named(month(2))}
    with transaction() as session:
        assert retention.drop_empty_partitions(session) == 0


def test_a_drop_waits_for_nobody_who_is_reading(bare: TeamSetting) -> None:
    ensure("2018-01-01", 1)
    started = time.monotonic()
    with transaction() as reader:
        reader.connection().exec_driver_sql("SELECT count(*) FROM activity_logs")
        with transaction() as session:
            assert retention.drop_empty_partitions(session) == 0
    assert time.monotonic() - started < 2
    assert "activity_logs_y2018m01" in partitions()
    jobs.prune()
    assert "activity_logs_y2018m01" not in partitions()


def test_dropping_making_and_draining_at_once(bare: TeamSetting) -> None:
    def drop() -> None:
        for _ in range(5):
            with transaction() as session:
                retention.drop_empty_partitions(session)

    def make() -> None:
        for year in range(2010, 2015):
            ensure(f"{year}-01-01", 1)

    def write() -> None:
        for _ in range(10):
            with transaction() as session:
                access = bare.owner.enter(session, bare.id)
                record(session, access, WorkspaceCreated(workspace_id=uuid7(), name="Research"))
            drain()

    assert raised(together(drop, make, write, drop)) == []
    drain()
    assert seqs(bare) == list(range(1, 12))
    drop()
    assert not partitions() & {f"activity_logs_y{year}m01" for year in range(2010, 2015)}
