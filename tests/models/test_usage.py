"""The ledger and its sums: exact at every moment, whoever counts, folds or dies."""

import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.database import engine, transaction
from models.errors import Invalid, Unavailable
from models.operations import usage
from models.operations.usage import Caller, Reported, UsageEvent
from models.queries import usage as queries
from models.queries.paging import Page
from models.queries.usage import Counters
from models.tables.usage import Metric
from tests.factories import TeamSetting, fold, make_team
from tests.models.concurrency import raised, together

LARGEST = 2**63 - 1
EVER = {"since": date(1990, 1, 1), "until": date(2200, 1, 1)}


def report(team: TeamSetting, *events: UsageEvent) -> Reported:
    with transaction() as session:
        return usage.report(session, team.owner.enter(session, team.id), events)


def total(team: TeamSetting, **period: date) -> Counters:
    with transaction() as session:
        return queries.total(session, team.owner.enter(session, team.id), **(period or EVER))


def tokens(quantity: int, external_id: str | None = None, at: datetime | None = None) -> UsageEvent:
    return UsageEvent(external_id or uuid7().hex, Metric.llm_tokens_used, quantity, at)


def storage(quantity: int, external_id: str | None = None, at: datetime | None = None) -> UsageEvent:
    return UsageEvent(external_id or uuid7().hex, Metric.storage_bytes, quantity, at)


def rows(statement: str, **parameters: object) -> Sequence[Any]:
    with transaction() as session:
        return session.execute(text(statement), parameters).all()


def folded_tokens(team: TeamSetting) -> int:
    ((found,),) = rows(
        "SELECT coalesce(sum(llm_tokens_used), 0) FROM usage_stats WHERE team_id = :id", id=team.id
    )
    return int(found)


def test_a_key_counts_once_for_ever(app: Flask, bare_team: TeamSetting) -> None:
    assert report(bare_team, tokens(5, "run-1")) == Reported(accepted=1, duplicates=0)
    fold()
    # Another quantity, metric or day makes no other event of it, folded or not.
    assert report(bare_team, tokens(7, "run-1")) == Reported(accepted=0, duplicates=1)
    assert report(bare_team, storage(9, "run-1")) == Reported(accepted=0, duplicates=1)
    assert report(bare_team, tokens(5, "run-1", datetime(2020, 1, 1, tzinfo=UTC))) == Reported(0, 1)
    assert report(bare_team, tokens(1, "run-2"), tokens(2, "run-2")) == Reported(accepted=1, duplicates=1)
    fold()
    assert (total(bare_team).llm_tokens_used, total(bare_team).storage_bytes) == (6, 0)
    other = make_team(app, roles=())
    assert report(other, tokens(3, "run-1")) == Reported(accepted=1, duplicates=0)
    assert total(other).llm_tokens_used == 3


def test_a_reporters_id_can_not_take_the_place_of_our_own_key(team: TeamSetting) -> None:
    task = team.task()
    assert report(team, tokens(5, f"task:{task['id']}:completed:llm_tokens_used")).accepted == 1
    team.owner.post(f"{team.path}/tasks/{task['id']}/start")
    team.owner.post(f"{team.path}/tasks/{task['id']}/complete", json={"llm_tokens_used": 10})
    assert total(team).llm_tokens_used == 15


def test_the_same_key_at_once_counts_once(bare_team: TeamSetting) -> None:
    outcomes = together(*[lambda: report(bare_team, tokens(5, "run"), tokens(1, "walk"))] * 8)
    assert raised(outcomes) == []
    assert sorted(outcome.accepted for outcome in outcomes) == [0] * 7 + [2]
    assert total(bare_team).llm_tokens_used == 6


def test_counting_and_folding_at_once_is_exact_at_every_moment(bare_team: TeamSetting) -> None:
    lock = threading.Lock()
    sent = committed = 0
    counting = threading.Event()
    counting.set()

    def count() -> None:
        nonlocal sent, committed
        for number in range(60):
            with lock:
                sent += number
            with transaction() as session:
                access = bare_team.owner.enter(session, bare_team.id)
                usage.count(session, access, {Metric.llm_tokens_used: number}, key=uuid7().hex)
            with lock:
                committed += number

    def count_all() -> None:
        try:
            assert raised(together(*[count] * 4)) == []
        finally:
            counting.clear()

    def fold_on() -> None:
        while counting.is_set():
            with transaction() as session:
                usage.fold(session, 7)

    def read() -> int:
        reads = last = 0
        while counting.is_set():
            with lock:
                at_least = committed
            found = total(bare_team).llm_tokens_used
            with lock:
                at_most = sent
            assert at_least <= found <= at_most
            assert found >= last
            last, reads = found, reads + 1
        return reads

    outcomes = together(count_all, read, *[fold_on] * 3)
    assert raised(outcomes) == []
    assert outcomes[1] > 10
    expected = 4 * sum(range(60))
    assert total(bare_team).llm_tokens_used == expected
    fold()
    assert total(bare_team).llm_tokens_used == folded_tokens(bare_team) == expected


def test_folders_of_many_days_and_teams_do_not_deadlock(app: Flask) -> None:
    teams = [make_team(app, roles=()) for _ in range(2)]
    days = [datetime(2025, 3, day, tzinfo=UTC) for day in range(1, 29)]

    def report_all() -> None:
        for team in teams:
            for _ in range(5):
                report(team, *(tokens(1, at=at) for at in days))

    def fold_some() -> None:
        for _ in range(25):
            with transaction() as session:
                usage.fold(session, 40)

    assert raised(together(report_all, report_all, *[fold_some] * 4)) == []
    fold()
    for team in teams:
        assert total(team).llm_tokens_used == folded_tokens(team) == 2 * 5 * 28


def test_folding_twice_is_folding_once(bare_team: TeamSetting) -> None:
    report(bare_team, tokens(5), tokens(6))
    fold()
    before = rows("SELECT * FROM usage_stats WHERE team_id = :id", id=bare_team.id)
    assert fold() == 0
    assert rows("SELECT * FROM usage_stats WHERE team_id = :id", id=bare_team.id) == before
    assert folded_tokens(bare_team) == 11


@pytest.mark.parametrize("killed", [False, True], ids=["raise", "kill"])
def test_a_fold_that_dies_before_its_commit_folds_nothing(
    bare_team: TeamSetting,
    killed: bool,
) -> None:
    fold()
    report(bare_team, tokens(5), tokens(6))

    def die() -> None:
        with transaction() as session:
            assert usage.fold(session, 100) == 2
            if not killed:
                raise KeyboardInterrupt
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with engine().connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    with pytest.raises(Unavailable if killed else KeyboardInterrupt):
        die()
    assert (folded_tokens(bare_team), total(bare_team).llm_tokens_used) == (0, 11)
    assert fold() == 2
    assert (folded_tokens(bare_team), total(bare_team).llm_tokens_used) == (11, 11)


def test_quantities_add_up_past_64_bits(bare_team: TeamSetting) -> None:
    report(bare_team, *(tokens(LARGEST) for _ in range(3)), *(storage(LARGEST) for _ in range(3)))
    for _ in range(2):
        counted = total(bare_team)
        assert (counted.llm_tokens_used, counted.storage_bytes) == (3 * LARGEST, 3 * LARGEST)
        fold()
    report(bare_team, tokens(LARGEST), storage(-LARGEST), storage(-LARGEST), tokens(1))
    for _ in range(2):
        counted = total(bare_team)
        assert (counted.llm_tokens_used, counted.storage_bytes) == (4 * LARGEST + 1, LARGEST)
        fold()
    with transaction() as session:
        access = bare_team.owner.enter(session, bare_team.id)
        (day,) = queries.daily(session, access, **EVER, page=Page()).items
    assert (day.llm_tokens_used, day.storage_bytes) == (4 * LARGEST + 1, LARGEST)


def test_storage_never_falls_below_zero_in_a_race(bare_team: TeamSetting) -> None:
    report(bare_team, storage(100))
    outcomes = together(*[lambda: report(bare_team, storage(-30))] * 8, fold, fold)
    assert sorted(raised(outcomes), key=str) == [Invalid] * 5
    assert total(bare_team).storage_bytes == 10
    fold()
    assert total(bare_team).storage_bytes == 10


def test_storage_is_never_below_zero_on_any_day(bare_team: TeamSetting) -> None:
    now = datetime.now(UTC)
    monday, tuesday = now - timedelta(days=9), now - timedelta(days=8)
    report(bare_team, storage(50, at=tuesday))
    for folded in (False, True):
        if folded:
            fold()
        with pytest.raises(Invalid):
            report(bare_team, storage(-1, at=monday))
        with pytest.raises(Invalid):
            report(bare_team, storage(40, at=monday), storage(-91, at=tuesday))
    report(bare_team, storage(40, at=monday), storage(-90, at=tuesday))
    assert total(bare_team).storage_bytes == 0
    assert total(bare_team, since=monday.date(), until=monday.date()).storage_bytes == 40


def test_a_repeated_release_of_storage_is_no_second_one(bare_team: TeamSetting) -> None:
    report(bare_team, storage(10))
    assert report(bare_team, storage(-10, "freed")).accepted == 1
    assert report(bare_team, storage(-10, "freed")) == Reported(accepted=0, duplicates=1)
    assert total(bare_team).storage_bytes == 0


def test_a_batch_is_taken_whole_or_not_at_all(bare_team: TeamSetting) -> None:
    with pytest.raises(Invalid) as refused:
        report(bare_team, tokens(5), tokens(6, at=datetime.now(UTC) + timedelta(minutes=1)))
    assert refused.value.errors == {"events": {"1": {"occurred_at": ["This is in the future."]}}}
    with pytest.raises(Invalid):
        report(bare_team, tokens(5), storage(-1))
    assert (total(bare_team).llm_tokens_used, total(bare_team).storage_bytes) == (0, 0)


def test_a_count_shares_the_fate_of_its_transaction(bare_team: TeamSetting) -> None:
    def count_and_fall() -> None:
        with transaction() as session:
            access = bare_team.owner.enter(session, bare_team.id)
            usage.count(session, access, {Metric.tasks_created: 1}, key="a task")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_and_fall()
    assert total(bare_team).tasks_created == 0
    for _ in range(2):
        with transaction() as session:
            access = bare_team.owner.enter(session, bare_team.id)
            usage.count(session, access, {Metric.tasks_created: 1, Metric.llm_tokens_used: 0}, key="a task")
    assert total(bare_team).tasks_created == 1


def test_a_batch_of_api_calls_sent_again_adds_nothing(app: Flask, bare_team: TeamSetting) -> None:
    other = make_team(app, roles=())
    before = {team.id: total(team).api_calls for team in (bare_team, other)}
    calls = {Caller(bare_team.id): 3, Caller(other.id): 4}
    for _ in range(2):
        with transaction() as session:
            usage.count_api_calls(session, calls, batch=f"{bare_team.id}:1")
    with transaction() as session:
        usage.count_api_calls(session, calls, batch=f"{bare_team.id}:2")
    for team in (bare_team, other):
        assert total(team).api_calls == before[team.id] + 2 * calls[Caller(team.id)]


def test_a_day_is_utcs(bare_team: TeamSetting) -> None:
    late = datetime.fromisoformat("2025-06-30T23:30:00-02:00")
    report(bare_team, tokens(5, at=late))
    assert total(bare_team, since=date(2025, 7, 1), until=date(2025, 7, 1)).llm_tokens_used == 5
    assert total(bare_team, since=date(2025, 6, 1), until=date(2025, 6, 30)).llm_tokens_used == 0
