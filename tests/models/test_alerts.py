"""Alerts at 50, 80, 100 and 120 percent, once each. In a database of its own, whose newest book includes little."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.database import transaction
from models.operations import usage
from models.operations.alerts import thresholds_between
from models.operations.usage import Caller, Unit, UsageEvent
from models.tables.usage import THRESHOLDS, Metric
from tests.books import changed, hard, load
from tests.factories import (
    TeamSetting,
    drain,
    execute,
    fetch,
    fold,
    join,
    make_role,
    make_team,
)
from tests.models.concurrency import raised, together
from workers import mail
from workers.mailers import Mailer

GB = 10**9


@pytest.fixture(scope="module", autouse=True)
def _books(own_database: None) -> None:
    included = {"included": 100, "limit": "soft"}
    terms = {
        "llm_tokens_used": included,
        "api_calls": included,
        "storage_bytes": {"included": 1},
        "tasks_completed": {"included": 0},
    }
    load(
        changed(
            2, pro={**terms, "tasks_created": hard(10)}, enterprise={"llm_tokens_used": {"included": 1_000}}
        )
    )


def quiet(setting: TeamSetting) -> TeamSetting:
    """The calls that made it are folded and told of; nothing more comes of them."""
    fold()
    execute("DELETE FROM mails")
    return setting


def report(
    setting: TeamSetting, quantity: int, metric: str = "llm_tokens_used", at: datetime | None = None
) -> None:
    with transaction() as session:
        access = setting.owner.enter(session, setting.id)
        usage.report(session, access, [UsageEvent(uuid7().hex, Metric(metric), quantity, at)])


def told(setting: TeamSetting, metric: str = "llm_tokens_used") -> list[int]:
    """The thresholds, as the events say it, in their order."""
    rows = fetch(
        "SELECT details FROM outbox WHERE team_id = :id AND action = 'usage_limit_reached' ORDER BY id",
        id=setting.id,
    )
    alerts = fetch(
        "SELECT threshold FROM usage_alerts WHERE team_id = :id AND metric = :metric",
        id=setting.id,
        metric=metric,
    )
    thresholds = [row.details["threshold"] for row in rows if row.details["metric"] == metric]
    assert sorted(thresholds) == sorted(row.threshold for row in alerts)
    return thresholds


def mails_due() -> list[tuple[str, int]]:
    rows = fetch(
        "SELECT u.email, m.details FROM mails m JOIN users u ON u.id = m.user_id WHERE m.kind = 'usage_alert'"
        " ORDER BY u.email, (m.details ->> 'threshold')::int"
    )
    return [(row.email, row.details["threshold"]) for row in rows]


@pytest.fixture
def setting(app: Flask) -> TeamSetting:
    return quiet(make_team(app, roles=()))


def test_each_threshold_is_told_once_when_it_is_reached(setting: TeamSetting) -> None:
    steps: tuple[tuple[int, list[int]], ...] = ((49, []), (1, [50]), (29, [50]), (1, [50, 80]), (19, [50, 80]), (1, [50, 80, 100]), (19, [50, 80, 100]),
             (1, [50, 80, 100, 120]), (500, [50, 80, 100, 120]))  # fmt: skip
    for quantity, expected in steps:
        report(setting, quantity)
        assert told(setting) == expected[: len(told(setting))]  # nothing is told before the fold
        fold()
        assert told(setting) == expected
        fold()
    assert mails_due() == [(setting.owner.email, threshold) for threshold in THRESHOLDS]


def test_an_event_says_how_much_of_what(setting: TeamSetting) -> None:
    report(setting, 81)
    fold()
    rows = fetch(
        "SELECT user_id, resource_type, details FROM outbox WHERE team_id = :id AND action = 'usage_limit_reached'"
        " ORDER BY id DESC LIMIT 1",
        id=setting.id,
    )
    assert rows[0].user_id is None
    assert rows[0].details == {
        "team_id": str(setting.id),
        "metric": "llm_tokens_used",
        "threshold": 80,
        "used": 81,
        "included": 100,
        "period": datetime.now(UTC).date().replace(day=1).isoformat(),
    }


def test_of_several_at_once_a_mail_says_the_highest(setting: TeamSetting) -> None:
    report(setting, 130)
    fold()
    assert told(setting) == [50, 80, 100, 120]
    assert mails_due() == [(setting.owner.email, 120)]


def test_late_usage_of_an_earlier_month_alerts_no_one(setting: TeamSetting) -> None:
    now = datetime.now(UTC)
    before = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1)
    report(setting, 1_000, at=before)
    fold()
    assert told(setting) == []
    report(setting, 49)  # of this month, which the other does not add to
    fold()
    assert told(setting) == []
    report(setting, 1, at=now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    fold()
    assert told(setting) == [50]


def test_a_new_month_is_told_of_anew(setting: TeamSetting) -> None:
    report(setting, 50)
    fold()
    execute(
        "UPDATE usage_alerts SET period = (period - interval '1 month')::date WHERE team_id = :id",
        id=setting.id,
    )
    report(setting, 1)
    fold()
    rows = fetch(
        "SELECT threshold FROM usage_alerts WHERE team_id = :id AND metric = 'llm_tokens_used'", id=setting.id
    )
    assert [row.threshold for row in rows] == [50, 50]


def test_storage_alerts_by_its_level(setting: TeamSetting) -> None:
    report(setting, GB * 8 // 10 - 1, "storage_bytes")
    fold()
    assert told(setting, "storage_bytes") == [50]
    report(setting, 1, "storage_bytes")
    fold()
    assert told(setting, "storage_bytes") == [50, 80]
    report(setting, -GB // 2, "storage_bytes")
    report(setting, GB // 2, "storage_bytes")
    fold()
    assert told(setting, "storage_bytes") == [50, 80]


def test_what_includes_nothing_or_is_not_in_the_plan_has_no_alerts(setting: TeamSetting) -> None:
    report(setting, 5, "tasks_completed")
    fold()
    assert told(setting, "tasks_completed") == []


def test_a_larger_plan_is_another_hundred_percent(setting: TeamSetting) -> None:
    report(setting, 60)
    fold()
    assert setting.owner.put(f"{setting.path}/plan", json={"plan": "enterprise"}).status_code == 200
    report(setting, 500)
    fold()
    assert told(setting) == [50]  # was told this month
    report(setting, 240)
    fold()
    assert told(setting) == [50, 80]


def test_a_hard_limit_is_told_in_the_request_that_reaches_it(setting: TeamSetting) -> None:
    for number, expected in enumerate([[]] * 4 + [[50]] * 3 + [[50, 80]] * 2 + [[50, 80, 100]]):
        setting.task()
        assert told(setting, "tasks_created") == expected, number
    path = f"{setting.path}/workspaces/{setting.workspace_id}/tasks"
    assert setting.owner.post(path, json={"title": "A"}).status_code == 402
    fold()
    assert told(setting, "tasks_created") == [50, 80, 100]


def test_any_number_of_folders_tell_once(app: Flask) -> None:
    teams = [quiet(make_team(app, roles=())) for _ in range(3)]
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = [first + timedelta(days=day) for day in range(datetime.now(UTC).day)]
    stop = threading.Event()

    def report_all(setting: TeamSetting) -> None:
        for number in range(125):
            report(setting, 1, at=days[number % len(days)])

    def fold_on() -> None:
        while not stop.is_set():
            with transaction() as session:
                usage.fold(session, 3)

    def report_and_stop() -> None:
        try:
            assert raised(together(*[lambda setting=setting: report_all(setting) for setting in teams])) == []
        finally:
            stop.set()

    assert raised(together(report_and_stop, *[fold_on] * 4)) == []
    fold()
    for setting in teams:
        assert told(setting) == [50, 80, 100, 120]
    owners = sorted(setting.owner.email for setting in teams)
    assert mails_due() == [(email, threshold) for email in owners for threshold in THRESHOLDS]


def test_of_two_folders_of_different_days_the_later_one_tells(setting: TeamSetting) -> None:
    """Neither sees what the other has added before that commits."""
    today = datetime.now(UTC)
    another_day = today.replace(day=2 if today.day == 1 else 1)
    with transaction() as session:
        access = setting.owner.enter(session, setting.id)
        for at in (today, another_day):
            usage.append(session, access, [Unit(uuid7().hex, Metric.llm_tokens_used, 30, occurred_at=at)])
    in_time, counted = threading.Barrier(2), []

    def fold_one(session: Any) -> None:
        fold_ = session.execute

        def execute_(statement: Any, *args: Any, **kwargs: Any) -> Any:
            result = fold_(statement, *args, **kwargs)
            if statement is usage.FOLD:
                in_time.wait(20)  # both have folded, and neither has decided
            return result

        session.execute = execute_
        counted.append(usage.fold(session, 1))

    def run() -> None:
        with transaction() as session:
            fold_one(session)

    assert raised(together(run, run)) == []
    assert counted == [1, 1]
    assert told(setting) == [50]


def test_group_commits_are_told_of_by_the_fold(setting: TeamSetting) -> None:
    with transaction() as session:
        usage.count_api_calls(session, {Caller(setting.id): 70}, batch=str(uuid7()))
    fold()
    assert told(setting, "api_calls")[:1] == [50]


def test_the_owner_and_who_may_see_the_bill_get_a_mail(app: Flask) -> None:
    setting = make_team(app)
    make_role(setting, "accountant", "billing:read", "teams:read")
    accountant, suspended, gone = (join(setting, "accountant", name) for name in ("Acc", "Sus", "Gone"))
    assert setting.owner.post(f"{setting.path}/members/{suspended.id}/suspend").status_code == 200
    quiet(setting)
    report(setting, 50)
    fold()
    expected = sorted(person.email for person in (setting.owner, setting.admin, accountant, gone))
    assert mails_due() == [(email, 50) for email in expected]
    assert setting.owner.delete(f"{setting.path}/members/{gone.id}").status_code == 204
    sent = deliver()
    assert sorted(message["To"] for message in sent) == sorted(set(expected) - {gone.email})
    assert sent[0]["Subject"] == "Design has used 50 percent of its LLM tokens"
    assert "50 of 100" in sent[0].get_content()


def test_a_deleted_teams_mail_is_not_sent(setting: TeamSetting) -> None:
    report(setting, 50)
    fold()
    assert mails_due() == [(setting.owner.email, 50)]
    assert setting.owner.delete(setting.path).status_code == 204
    assert deliver() == []
    assert fetch("SELECT FROM mails") == []


def test_a_deleted_team_is_not_told(setting: TeamSetting) -> None:
    report(setting, 50)
    assert setting.owner.delete(setting.path).status_code == 204
    fold()
    assert told(setting) == []


def test_the_log_says_it(setting: TeamSetting) -> None:
    report(setting, 101)
    fold()
    drain()
    rows = setting.owner.get(f"{setting.path}/activity?action=usage_limit_reached").json["items"]
    sentence = "The system noticed that llm_tokens_used reached 100 percent of what the plan includes"
    assert next(row["summary"] for row in rows if row["metadata"]["metric"] == "llm_tokens_used") == sentence


@pytest.mark.parametrize(
    ("before", "after", "included", "reached"),
    [
        (0, 49, 100, []), (49, 50, 100, [50]), (50, 79, 100, []), (0, 100, 100, [50, 80, 100]), (119, 120, 100, [120]),
        (120, 500, 100, []), (0, 1, 1, [50, 80, 100]), (0, 5, 0, []), (60, 40, 100, []), (-5, 50, 100, [50]),
    ],
)  # fmt: skip
def test_what_lies_between(before: int, after: int, included: int, reached: list[int]) -> None:
    assert thresholds_between(before, after, included) == reached


class Recording(Mailer):
    def __init__(self) -> None:
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)


def deliver() -> list[Any]:
    mailer = Recording()
    mail.send_due(mailer)
    return mailer.messages
