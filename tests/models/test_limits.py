"""Hard limits: exact whoever counts at once, and whenever they begin. In a database of its own, whose newest book has some."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.database import transaction
from models.errors import QuotaExceeded
from models.operations import price_books, replays, usage
from models.operations.usage import Caller, UsageEvent, next_month
from models.tables.usage import Metric
from tests.books import changed, hard, load
from tests.factories import TeamSetting, execute, fetch, fold, make_team
from tests.models.concurrency import raised, together

SOFT, UNREACHED, HARD = 2, 3, 4
GB = 10**9


@pytest.fixture(scope="module", autouse=True)
def _books(own_database: None) -> None:
    """The newest limits what it can, on the pro plan; of those before, one limits nothing, and one where nobody gets to."""
    load(changed(SOFT))
    load(changed(UNREACHED, pro={"tasks_completed": hard(10**9), "api_calls": hard(10**9)}))
    limits = {"tasks_created": 10, "llm_tokens_used": 100, "storage_bytes": 2, "tasks_completed": 3}
    load(changed(HARD, pro={metric: hard(included) for metric, included in limits.items()}))


@pytest.fixture
def limited(app: Flask) -> TeamSetting:
    return make_team(app, roles=())


def move(setting: TeamSetting, version: int) -> bool:
    with transaction() as session:
        return price_books.move(session, setting.id, version)


def report(setting: TeamSetting, *events: UsageEvent) -> int:
    with transaction() as session:
        return usage.report(session, setting.owner.enter(session, setting.id), events).accepted


def tokens(quantity: int, at: datetime | None = None, key: str | None = None) -> UsageEvent:
    return UsageEvent(key or uuid7().hex, Metric.llm_tokens_used, quantity, at)


def storage(quantity: int, at: datetime | None = None) -> UsageEvent:
    return UsageEvent(uuid7().hex, Metric.storage_bytes, quantity, at)


def used(setting: TeamSetting, metric: Metric) -> int | None:
    rows = fetch(
        "SELECT used FROM usage_quotas WHERE team_id = :id AND metric = :metric", id=setting.id, metric=metric
    )
    return int(rows[0][0]) if rows else None


def counted(setting: TeamSetting, metric: Metric) -> int:
    ((total,),) = fetch(
        "SELECT coalesce(sum(quantity), 0) FROM usage_ledger WHERE team_id = :id AND metric = :metric",
        id=setting.id,
        metric=metric,
    )
    return int(total)


def last_month() -> datetime:
    return datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1)


def make_task(setting: TeamSetting) -> Any:
    path = f"{setting.path}/workspaces/{setting.workspace_id}/tasks"
    return setting.owner.app.test_client().post(
        f"/api/v1{path}", json={"title": "A"}, headers={"Authorization": f"Bearer {setting.owner.token}"}
    )


def test_of_20_at_once_exactly_10_make_a_task(limited: TeamSetting) -> None:
    answers = together(*[lambda: make_task(limited)] * 20)
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [402] * 10
    ((tasks,),) = fetch("SELECT count(*) FROM tasks WHERE team_id = :id", id=limited.id)
    assert (tasks, used(limited, Metric.tasks_created), counted(limited, Metric.tasks_created)) == (
        10,
        10,
        10,
    )
    refused = make_task(limited)
    expected = {
        "status": 402,
        "code": "quota_exceeded",
        "metric": "tasks_created",
        "used": 10,
        "limit": 10,
        "resets_at": next_month(datetime.now(UTC)).strftime("%Y-%m-%dT00:00:00Z"),
        "upgrade": "PUT /teams/{team_id}/plan",
    }
    assert {key: refused.json[key] for key in expected} == expected
    assert refused.mimetype == "application/problem+json"


def test_what_a_refused_request_did_is_undone(limited: TeamSetting) -> None:
    tasks = [limited.task() for _ in range(4)]
    for task in tasks:
        assert limited.owner.post(f"{limited.path}/tasks/{task['id']}/start").status_code == 200
    codes = [
        limited.owner.post(
            f"{limited.path}/tasks/{task['id']}/complete", json={"llm_tokens_used": 1}
        ).status_code
        for task in tasks
    ]
    assert codes == [200, 200, 200, 402]
    assert limited.owner.get(f"{limited.path}/tasks/{tasks[3]['id']}").json["status"] == "processing"
    assert (used(limited, Metric.tasks_completed), used(limited, Metric.llm_tokens_used)) == (3, 3)
    assert counted(limited, Metric.llm_tokens_used) == 3


def test_a_batch_that_would_pass_is_refused_whole(limited: TeamSetting) -> None:
    assert report(limited, tokens(60), tokens(40)) == 2  # to the limit
    for batch in ([tokens(1)], [UsageEvent("x", Metric.api_calls, 5), tokens(1)]):
        with pytest.raises(QuotaExceeded) as refused:
            report(limited, *batch)
        assert (refused.value.members["used"], refused.value.members["limit"]) == (100, 100)
    assert (counted(limited, Metric.llm_tokens_used), used(limited, Metric.llm_tokens_used)) == (100, 100)
    ((before,),) = fetch(
        "SELECT count(*) FROM usage_ledger WHERE team_id = :id AND key = 'external:x'", id=limited.id
    )
    assert before == 0


def test_the_first_that_passes_is_refused_from_below(limited: TeamSetting) -> None:
    report(limited, tokens(60))
    with pytest.raises(QuotaExceeded):
        report(limited, tokens(41))
    assert report(limited, tokens(40)) == 1


def test_what_was_sent_before_is_no_new_use(limited: TeamSetting) -> None:
    assert report(limited, tokens(100, key="run")) == 1
    assert report(limited, tokens(100, key="run")) == 0
    assert used(limited, Metric.llm_tokens_used) == 100


def test_late_usage_of_an_earlier_month_has_no_limit_and_uses_none(limited: TeamSetting) -> None:
    report(limited, tokens(100))
    assert report(limited, tokens(500, last_month())) == 1
    assert used(limited, Metric.llm_tokens_used) == 100
    with pytest.raises(QuotaExceeded):
        report(limited, tokens(1))


def test_at_the_months_turn_the_quota_is_whole_again(limited: TeamSetting) -> None:
    report(limited, tokens(100))
    execute(
        "UPDATE usage_quotas SET period = (period - interval '1 month')::date WHERE team_id = :id",
        id=limited.id,
    )
    with pytest.raises(QuotaExceeded) as refused:
        report(limited, tokens(101))
    assert refused.value.members["used"] == 0
    outcomes = together(*[lambda: report(limited, tokens(10))] * 15)
    assert sorted(raised(outcomes), key=str) == [QuotaExceeded] * 5
    ((period,),) = fetch(
        "SELECT period FROM usage_quotas WHERE team_id = :id AND metric = 'llm_tokens_used'", id=limited.id
    )
    assert (period, used(limited, Metric.llm_tokens_used)) == (datetime.now(UTC).date().replace(day=1), 100)


def test_whoever_comes_late_to_a_month_that_is_over_does_not_reset_the_next(limited: TeamSetting) -> None:
    """A transaction that began before midnight counts after one that began later."""
    report(limited, tokens(40))
    execute(
        "UPDATE usage_quotas SET period = (period + interval '1 month')::date WHERE team_id = :id",
        id=limited.id,
    )
    assert report(limited, tokens(90)) == 1
    assert used(limited, Metric.llm_tokens_used) == 40


def test_storage_is_limited_by_its_level(limited: TeamSetting) -> None:
    assert report(limited, storage(2 * GB, last_month())) == 1  # whenever it came, it is there
    with pytest.raises(QuotaExceeded) as refused:
        report(limited, storage(1))
    expected = {"metric": "storage_bytes", "used": 2 * GB, "limit": 2 * GB, "resets_at": None}
    assert {key: refused.value.members[key] for key in expected} == expected
    execute(
        "UPDATE usage_quotas SET period = (period - interval '1 month')::date WHERE team_id = :id",
        id=limited.id,
    )
    with pytest.raises(QuotaExceeded):  # a new month frees nothing
        report(limited, storage(1))
    assert report(limited, storage(-5)) == 1
    with pytest.raises(QuotaExceeded):
        report(limited, storage(6))
    outcomes = together(*[lambda: report(limited, storage(1))] * 8)
    assert raised(outcomes) == [QuotaExceeded] * 3
    assert used(limited, Metric.storage_bytes) == counted(limited, Metric.storage_bytes) == 2 * GB


def test_a_limit_begins_and_ends_with_the_plan(limited: TeamSetting) -> None:
    report(limited, tokens(70), storage(GB, last_month()), tokens(1_000, last_month()))
    fold()
    report(limited, tokens(20))
    put = f"{limited.path}/plan"
    assert limited.owner.put(put, json={"plan": "enterprise"}).status_code == 200
    assert fetch("SELECT FROM usage_quotas WHERE team_id = :id", id=limited.id) == []
    report(limited, tokens(1_000))
    assert limited.owner.put(put, json={"plan": "pro"}).status_code == 200
    rows = fetch(
        "SELECT metric, maximum, used FROM usage_quotas WHERE team_id = :id ORDER BY metric", id=limited.id
    )
    assert [tuple(row) for row in rows] == [
        ("llm_tokens_used", 100, 1_090),
        ("storage_bytes", 2 * GB, GB),
        ("tasks_completed", 3, 0),
        ("tasks_created", 10, 0),
    ]
    with pytest.raises(QuotaExceeded):
        report(limited, tokens(1))


@pytest.mark.parametrize("round_", range(4))
def test_a_limit_that_begins_while_others_count_begins_exact(app: Flask, round_: int) -> None:
    """Many count and fold while the limit comes and goes: whenever it is there, it says what the ledger says."""
    setting = make_team(app, roles=())
    assert move(setting, SOFT)
    stop = threading.Event()
    differences: list[tuple[int, int]] = []

    def count() -> None:
        while not stop.is_set():
            with transaction() as session:
                access = setting.owner.enter(session, setting.id)
                usage.count(session, access, {Metric.tasks_completed: 1}, key=uuid7().hex)
                if round_ % 2:  # counted, and not committed for a while
                    stop.wait(0.002)

    def count_calls() -> None:
        number = 0
        while not stop.is_set():
            with transaction() as session:
                usage.count_api_calls(session, {Caller(setting.id): 1}, batch=f"{uuid7()}:{number}")
            number += 1

    def fold_on() -> None:
        while not stop.is_set():
            with transaction() as session:
                usage.fold(session, 50)

    def change() -> None:
        try:
            for _ in range(12):
                assert move(setting, UNREACHED)
                with transaction() as session:  # both sums in one snapshot, and nobody in between
                    session.connection().exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    row = (
                        session.connection()
                        .exec_driver_sql(
                            "SELECT (SELECT used FROM usage_quotas WHERE team_id = %(id)s AND metric = 'tasks_completed'),"
                            " (SELECT sum(quantity) FROM usage_ledger WHERE team_id = %(id)s AND metric = 'tasks_completed')",
                            {"id": setting.id},
                        )
                        .one()
                    )
                differences.append((int(row[0]), int(row[1] or 0)))
                assert move(setting, SOFT)
        finally:
            stop.set()

    assert raised(together(*[count] * 4, count_calls, fold_on, change)) == []
    assert len(differences) == 12
    assert [pair for pair in differences if pair[0] != pair[1]] == []
    assert differences[-1][1] > 20


def test_batches_of_many_teams_and_plan_changes_do_not_deadlock(app: Flask) -> None:
    settings = [make_team(app, roles=()) for _ in range(4)]
    for setting in settings:
        move(setting, UNREACHED)

    def count_all(order: int) -> None:
        for number in range(25):
            calls = {Caller(setting.id): 1 for setting in settings[::order]}
            with transaction() as session:
                usage.count_api_calls(session, calls, batch=f"{uuid7()}:{number}")

    def change(setting: TeamSetting) -> None:
        for _ in range(5):
            move(setting, SOFT)
            move(setting, UNREACHED)

    calls = [lambda order=order: count_all(order) for order in (1, -1, 1, -1)]
    changes = [lambda setting=setting: change(setting) for setting in settings]
    assert raised(together(*calls, *changes)) == []
    for setting in settings:
        # Making the team counted a call or two, too.
        assert used(setting, Metric.api_calls) == counted(setting, Metric.api_calls) >= 100


def test_a_full_seat_says_what_a_full_quota_says(limited: TeamSetting) -> None:
    execute("UPDATE teams SET max_members = 1 WHERE id = :id", id=limited.id)
    body = {"email": f"{uuid7().hex}@example.com", "role": "viewer"}
    refused = limited.owner.post(f"{limited.path}/invitations", json=body)
    assert (refused.status_code, refused.json["code"]) == (409, "seat_limit_reached")
    expected = {"metric": "seats", "used": 1, "limit": 1, "upgrade": "PUT /teams/{team_id}/plan"}
    assert {key: refused.json[key] for key in expected} == expected


def test_what_is_used_of_a_limit_is_counted_anew_from_the_usage(limited: TeamSetting) -> None:
    report(limited, tokens(30), storage(2))
    fold()
    report(limited, tokens(12))
    limited.task()
    assert replayed(limited, rebuild=False) == []
    execute(
        "UPDATE usage_quotas SET used = used + 1 WHERE team_id = :id AND metric <> 'tasks_completed'",
        id=limited.id,
    )
    wrong = {"llm_tokens_used": (42, 43), "storage_bytes": (2, 3), "tasks_created": (1, 2)}
    assert replayed(limited, rebuild=False) == replayed(limited, rebuild=True) == differences(wrong)
    assert replayed(limited, rebuild=False) == []
    with pytest.raises(QuotaExceeded):
        report(limited, tokens(59))
    report(limited, tokens(58))
    assert used(limited, Metric.llm_tokens_used) == 100


def test_a_limit_of_a_month_that_is_over_is_no_difference(limited: TeamSetting) -> None:
    execute("UPDATE usage_quotas SET period = '2026-01-01', used = 1 WHERE team_id = :id", id=limited.id)
    assert replayed(limited, rebuild=True) == differences({"storage_bytes": (0, 1)})


def replayed(setting: TeamSetting, *, rebuild: bool) -> list[tuple[str, str, int]]:
    with transaction() as session:
        found = replays.replay_quotas(session, setting.id, rebuild=rebuild)
    return [(each.row["metric"], each.side, int(each.row["used"])) for each in found]


def differences(wrong: dict[str, tuple[int, int]]) -> list[tuple[str, str, int]]:
    return [(metric, side, wrong[metric][n]) for metric in wrong for n, side in enumerate(("right", "kept"))]
