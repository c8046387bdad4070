"""Reports on usage: storage by day, breakdowns, projections, and the proof that they all say what the ledger says."""

import datetime as dt
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import time_machine
from click.testing import Result
from flask import Flask

from api.commands.usage import usage as command
from models.database import transaction
from models.queries.usage import storage_gb_months
from tests.api.test_usage import event, report
from tests.factories import Answer, TeamSetting, execute, fold, make_agent, make_key, make_team

UTC = dt.UTC
DAY_S = 86_400


def get(setting: TeamSetting, report_: str, **query: Any) -> Answer:
    return setting.viewer.get(f"{setting.path}/usage/{report_}", query_string=query)


def storage(setting: TeamSetting, since: str, until: str) -> dict[str, tuple[int, int, int]]:
    answer = get(setting, "storage", **{"from": since, "to": until, "limit": 200})
    assert answer.status_code == 200, answer.text
    return {
        item["date"]: (item["close"], item["peak"], item["byte_seconds"]) for item in answer.json["items"]
    }


def change(setting: TeamSetting, quantity: int, at: str) -> None:
    assert report(setting, event(quantity, "storage_bytes", occurred_at=at)).status_code == 202


def test_storage_is_measured_by_the_time_that_it_was_there(team: TeamSetting) -> None:
    assert storage(team, "2026-03-01", "2026-03-31") == {}
    change(team, 100, "2026-03-02T06:00:00Z")
    change(team, 50, "2026-03-02T12:00:00Z")
    change(team, -120, "2026-03-02T18:00:00Z")
    change(team, 10, "2026-03-04T00:00:00Z")
    hour = 3_600
    expected = {
        "2026-03-02": (30, 150, 6 * hour * (100 + 150 + 30)),
        "2026-03-03": (30, 30, 30 * DAY_S),
        "2026-03-04": (40, 40, 40 * DAY_S),
        "2026-03-05": (40, 40, 40 * DAY_S),
    }
    for _ in range(2):
        assert storage(team, "2026-03-01", "2026-03-05") == expected
        fold()
    assert storage(team, "2026-03-03", "2026-03-03") == {"2026-03-03": expected["2026-03-03"]}
    # A late change belongs to its day, and to every day after it.
    change(team, 1, "2026-03-03T12:00:00Z")
    late = storage(team, "2026-03-01", "2026-03-05")
    assert late["2026-03-02"] == expected["2026-03-02"]
    assert late["2026-03-03"] == (31, 31, 30 * DAY_S + DAY_S // 2)
    assert late["2026-03-05"] == (41, 41, 41 * DAY_S)


def test_storage_of_the_largest_levels_is_exact(team: TeamSetting) -> None:
    largest = 2**63 - 1
    for _ in range(3):
        change(team, largest, "2026-03-02T00:00:00Z")
    days = storage(team, "2026-03-02", "2026-03-03")
    assert set(days.values()) == {(3 * largest, 3 * largest, 3 * largest * DAY_S)}


def test_today_is_measured_until_now_and_no_day_lies_ahead(team: TeamSetting) -> None:
    now = dt.datetime.now(UTC)
    change(team, 1_000, (now - dt.timedelta(hours=30)).isoformat())
    days = storage(team, str((now - dt.timedelta(days=3)).date()), str((now + dt.timedelta(days=9)).date()))
    assert list(days)[-1] == str(dt.datetime.now(UTC).date())
    total = sum(byte_seconds for _, _, byte_seconds in days.values())
    elapsed = (dt.datetime.now(UTC) - now).total_seconds()
    assert 0 <= total - 1_000 * 30 * 3_600 <= 1_000 * (elapsed + 1)


def test_storage_is_paged_by_day(team: TeamSetting) -> None:
    change(team, 7, "2026-03-01T00:00:00Z")
    query = {"from": "2026-02-01", "to": "2026-03-05", "limit": 2}
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(team, "storage", **query, **cursor).json
        seen += [item["date"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [f"2026-03-0{day}" for day in range(1, 6)]
    last_day_of_all = {"cursor": "WyI5OTk5LTEyLTMxIl0"}
    assert get(team, "storage", **query, **last_day_of_all).json["items"] == []


def gb_months(setting: TeamSetting, since: str, until: str, **more: Any) -> Fraction:
    with transaction() as session:
        times = (dt.datetime.fromisoformat(each) for each in (since, until))
        return Fraction(storage_gb_months(session, setting.id, *times, **more))


def test_gb_months_are_shares_of_their_month(team: TeamSetting) -> None:
    change(team, 3 * 10**9, "2026-01-20T12:00:00Z")
    change(team, 10**9, "2026-02-15T00:00:00.25Z")
    assert (
        abs(gb_months(team, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z") - Fraction(3 * 23, 62)) < 10**-30
    )
    whole = gb_months(team, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")
    assert abs(whole - (3 + Fraction(14 * DAY_S * 10**6 - 250_000, 28 * DAY_S * 10**6))) < 10**-30
    at = "2026-02-20T07:08:09.123456Z"
    parts = gb_months(team, "2026-02-01T00:00:00Z", at), gb_months(team, at, "2026-03-01T00:00:00Z")
    assert abs(sum(parts) - whole) < 10**-30
    assert gb_months(team, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z") == 4
    assert gb_months(team, at, at) == 0
    assert gb_months(team, "2099-03-01T00:00:00Z", "2099-04-01T00:00:00Z") == 0
    before = dt.datetime.now(UTC)
    change(team, 10**9, "2026-03-01T00:00:00Z")
    assert gb_months(team, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z") == 5
    known = gb_months(team, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", recorded_until=before)
    assert known == 4
    with pytest.raises(ValueError, match="more than one month"):
        gb_months(team, "2026-03-01T00:00:00Z", "2026-04-01T00:00:01Z")


def breakdown(setting: TeamSetting, *groups: str, **query: Any) -> list[dict[str, Any]]:
    query = {"from": "2026-03-01", "to": "2026-03-31", "limit": 200, "group_by": groups, **query}
    answer = get(setting, "breakdown", **query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json["items"]
    return items


def test_a_breakdown_names_whose_it_is(team: TeamSetting) -> None:
    agent = make_agent(team)["id"]
    key = make_key(team, team.owner, "usage:create", agent_id=agent)
    place = {"workspace_id": str(team.workspace_id), "occurred_at": "2026-03-05T12:00:00Z"}
    assert key.post(f"{team.path}/usage", json={"events": [event(5, **place)]}).status_code == 202
    assert report(team, event(7, model="large", **place), event(9, "api_calls", **place)).status_code == 202
    expected = [
        {"user_name": "Member", "metric": "api_calls", "quantity": 9},
        {"user_name": "Member", "metric": "llm_tokens_used", "quantity": 7},
        {"user_name": "Owner", "metric": "llm_tokens_used", "quantity": 5},
    ]
    for _ in range(2):
        items = breakdown(team, "user")
        assert (
            sorted(
                ({name: item[name] for name in expected[0]} for item in items),
                key=lambda item: tuple(item.values()),
            )
            == expected
        )
        assert {item["user_id"] for item in items} == {str(team.owner.id), str(team.member.id)}
        (scout,) = [item for item in breakdown(team, "agent", "api_key") if item["agent_id"]]
        assert (scout["agent_id"], scout["agent_name"], scout["api_key_id"], scout["api_key_name"]) == (
            agent,
            "Scout",
            key.key_id,
            "Robot",
        )
        tokens = breakdown(team, "workspace", "model", metric="llm_tokens_used")
        assert [(item["workspace_name"], item["model"], item["quantity"]) for item in tokens] == [
            ("Research", None, 5),
            ("Research", "large", 7),
        ]
        fold()
    # What is gone keeps its usage.
    assert team.owner.delete(f"{team.path}/agents/{agent}").status_code == 204
    (gone,) = [item for item in breakdown(team, "agent") if item["agent_id"]]
    assert (gone["agent_id"], gone["agent_name"], gone["quantity"]) == (agent, None, 5)


def test_a_breakdown_is_exact_half_folded_and_paged(team: TeamSetting) -> None:
    for day in range(1, 6):
        at = f"2026-03-0{day}T00:00:00Z"
        assert (
            report(team, event(10**day, occurred_at=at), event(1, "api_calls", occurred_at=at)).status_code
            == 202
        )
        if day == 3:
            fold()
    seen: list[Any] = []
    query: dict[str, Any] = {
        "from": "2026-03-02",
        "to": "2026-03-05",
        "group_by": ["date", "user"],
        "limit": 3,
    }
    while query:
        page = get(team, "breakdown", **query).json
        seen += [(item["date"], item["metric"], item["quantity"]) for item in page["items"]]
        query = {**query, "cursor": page["next_cursor"]} if page["next_cursor"] else {}
    expected: list[Any] = []
    for day in range(2, 6):
        date = f"2026-03-0{day}"
        expected += [(date, "api_calls", 1), (date, "llm_tokens_used", 10**day)]
    assert seen == expected


@pytest.mark.parametrize(
    ("report_", "query", "name"),
    [
        ("breakdown", "group_by=team", "group_by"),
        ("breakdown", "group_by=", "group_by"),
        ("breakdown", "metric=x", "metric"),
        ("breakdown", "from=2026-01-02&to=2026-01-01", "to"),
        ("breakdown", "from=2025-01-01&to=2026-01-03", "from"),
        ("storage", "from=2025-01-01&to=2026-01-03", "from"),
        ("storage", "to=x", "to"),
        ("projection", "year=2026", "month"),
        ("projection", "year=9000&month=1", "month"),
        ("verify", "month=1", "year"),
        ("verify", "year=2026&month=13", "month"),
    ],
)
def test_a_bad_question_is_422(shared: TeamSetting, report_: str, query: str, name: str) -> None:
    answer = shared.owner.get(f"{shared.path}/usage/{report_}?{query}")
    assert (answer.status_code, list(answer.json["errors"])) == (422, [name])


@pytest.fixture
def the_11th(team: TeamSetting) -> Iterator[TeamSetting]:
    """Noon of 11 April 2026, by the clock of the web process: a third of the month and a half of a day is over."""
    for day, quantity in ((1, 100), (4, 70), (11, 40)):
        assert report(team, event(quantity, occurred_at=f"2026-04-{day:02}T06:00:00Z")).status_code == 202
    change(team, 1_000, "2026-03-20T00:00:00Z")
    change(team, 210, "2026-04-05T00:00:00Z")
    # A session opened today is not over then.
    with time_machine.travel(dt.datetime(2026, 4, 11, 12, tzinfo=UTC), tick=False):
        yield team


def projection(setting: TeamSetting, year: int, month: int) -> dict[str, tuple[int, int, int]]:
    answer = get(setting, "projection", year=year, month=month)
    assert answer.status_code == 200, answer.text
    return {
        metric: (each["used"], each["linear"], each["last_7_days"])
        for metric, each in answer.json["metrics"].items()
    }


def test_a_projection_goes_on_at_two_paces(the_11th: TeamSetting) -> None:
    found = projection(the_11th, 2026, 4)
    # 210 in 10.5 days; 70 in the seven days from the 4th to the 10th; 19.5 days are left.
    assert found["llm_tokens_used"] == (210, 600, 210 + 195)
    # A level: it grew by 210 in 10.5 days, and by 210 in the seven.
    assert found["storage_bytes"] == (1_210, 1_210 + 390, 1_210 + 585)
    assert found["tasks_created"] == (0, 0, 0)
    past = projection(the_11th, 2026, 3)
    assert past["storage_bytes"] == (1_000, 1_000, 1_000)
    assert past["llm_tokens_used"] == (0, 0, 0)
    assert get(the_11th, "projection", year=2026, month=5).status_code == 422


def verified(setting: TeamSetting, year: int = 2026, month: int = 3) -> dict[str, Any]:
    answer = get(setting, "verify", year=year, month=month)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_verify_recounts_from_the_ledger(team: TeamSetting) -> None:
    assert report(team, event(5, occurred_at="2026-03-05T00:00:00Z")).status_code == 202
    assert report(team, event(9, occurred_at="2026-04-01T00:00:00Z")).status_code == 202
    change(team, 7, "2026-03-31T23:59:59Z")
    for _ in range(2):
        found = verified(team)
        assert found["valid"] is True
        assert found["metrics"]["llm_tokens_used"] == {"ledger": 5, "breakdown": 5, "daily": 5}
        assert found["metrics"]["storage_bytes"] == {"ledger": 7, "breakdown": 7, "daily": 7}
        assert found["metrics"]["tasks_created"] == {"ledger": 0, "breakdown": 0, "daily": 0}
        fold()
    # Two that are wrong on two days cancel out in the month, and are found all the same.
    execute(
        "UPDATE usage_stats SET llm_tokens_used = 4 WHERE team_id = :id AND date = '2026-03-05'", id=team.id
    )
    assert (verified(team)["valid"], verified(team)["metrics"]["llm_tokens_used"]["daily"]) == (False, 4)
    execute(
        "INSERT INTO usage_stats (team_id, date, llm_tokens_used) VALUES (:id, '2026-03-06', 1)", id=team.id
    )
    assert (verified(team)["valid"], verified(team)["metrics"]["llm_tokens_used"]["daily"]) == (False, 5)
    assert verified(team, month=4)["valid"] is True


def test_calls_are_proved_too(team: TeamSetting) -> None:
    now = dt.datetime.now(UTC)
    for _ in range(3):
        found = verified(team, now.year, now.month)
        assert found["valid"] is True
        fold()
    (calls,) = {verified(team, now.year, now.month)["metrics"]["api_calls"]["ledger"]}
    assert calls > 3


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(command, list(arguments))


@pytest.fixture
def exported(app: Flask, team: TeamSetting, tmp_path: Path) -> Path:
    """March, as an operator exports it."""
    for day in (1, 5, 31):
        at = f"2026-03-{day:02}T23:59:59Z"
        assert (
            report(team, event(2**62, occurred_at=at), event(day, "api_calls", occurred_at=at)).status_code
            == 202
        )
    change(team, 7, "2026-03-02T00:00:00Z")
    assert report(team, event(9, occurred_at="2026-04-01T00:00:00Z")).status_code == 202
    fold()
    written = run(app, "export", str(team.id), "2026", "3")
    assert written.exit_code == 0
    file = tmp_path / "march.ndjson"
    file.write_text(written.output)
    return file


def test_an_export_is_recounted_by_anyone(app: Flask, team: TeamSetting, exported: Path) -> None:
    rows = [json.loads(line) for line in exported.read_text().splitlines()]
    assert len(rows) == 7
    assert sum(row["quantity"] for row in rows if row["metric"] == "llm_tokens_used") == 3 * 2**62
    for arguments in ((), ("--export", str(exported))):
        found = run(app, "verify", str(team.id), "2026", "3", *arguments)
        assert (found.exit_code, found.output.splitlines()[0].split(";")[0]) == (0, "0 differences")
        assert f"llm_tokens_used {3 * 2**62}" in found.output


def test_each_difference_is_named(app: Flask, team: TeamSetting, exported: Path) -> None:
    lines = exported.read_text().splitlines()
    exported.write_text("\n".join([*lines, *lines]))
    twice = run(app, "verify", str(team.id), "2026", "3", "--export", str(exported))
    assert twice.exit_code == 0  # each row once
    calls = next(line for line in lines if '"api_calls"' in line and '"quantity":5' in line)
    exported.write_text("\n".join(line for line in lines if line != calls))
    execute(
        "UPDATE usage_stats SET storage_bytes = 8 WHERE team_id = :id AND date = '2026-03-02'", id=team.id
    )
    execute(
        "UPDATE usage_breakdowns SET quantity = 6 WHERE team_id = :id AND metric = 'storage_bytes'",
        id=team.id,
    )
    found = run(app, "verify", str(team.id), "2026", "3", "--export", str(exported))
    assert found.exit_code == 1
    assert found.output.splitlines()[:2] == [
        "2026-03-02 storage_bytes: ledger 7, breakdown 6, daily 8",
        "2026-03-05 api_calls: export 0, ledger 5",
    ]
    exported.write_text("no export")
    broken = run(app, "verify", str(team.id), "2026", "3", "--export", str(exported))
    assert (broken.exit_code, "This is no export" in broken.output) == (1, True)


def test_an_invoice_is_compared_with_the_ledger_that_it_was_counted_from(
    app: Flask, team: TeamSetting
) -> None:
    assert report(team, event(50, occurred_at="2026-03-05T00:00:00Z")).status_code == 202
    change(team, 10**9, "2026-03-01T00:00:00Z")
    execute(
        "INSERT INTO invoices (id, team_id, period_start, period_end, currency, total, counted_at)"
        " VALUES (uuid7(), :id, '2026-03-01', '2026-04-01', 'USD', 0, now())",
        id=team.id,
    )
    for position, (metric, quantity) in enumerate(
        (("llm_tokens_used", 20), ("llm_tokens_used", 30), ("storage_bytes", 1))
    ):
        execute(
            "INSERT INTO invoice_lines (team_id, invoice_id, position, kind, description, plan, metric, quantity, unit, starts_on,"
            " ends_on, unrounded, amount, details) SELECT team_id, id, :position, 'usage', '', 'pro', :metric, :quantity, 'units',"
            " '2026-03-01', '2026-04-01', 0, 0, '{}' FROM invoices WHERE team_id = :id",
            id=team.id,
            position=position,
            metric=metric,
            quantity=quantity,
        )
    # Late usage is no difference: it is the next invoice's adjustment.
    assert report(team, event(7, occurred_at="2026-03-06T00:00:00Z")).status_code == 202
    finalized = (
        "UPDATE invoices SET state = 'final', number = :number, finalized_at = now(), seller = '{}', buyer = '{}'"
        " WHERE team_id = :id"
    )
    execute("UPDATE invoice_lines SET quantity = 31 WHERE team_id = :id AND position = 1", id=team.id)
    draft = run(app, "verify", str(team.id), "2026", "3")
    assert draft.exit_code == 0
    execute(finalized, id=team.id, number=str(team.id))
    found = run(app, "verify", str(team.id), "2026", "3")
    assert found.exit_code == 1
    assert found.output.splitlines()[0] == f"invoice {team.id} llm_tokens_used: lines 51, ledger 50"
    assert "storage_bytes: lines" not in found.output


def test_a_month_of_nobody_has_no_differences(app: Flask) -> None:
    team = make_team(app, roles=())
    found = run(app, "verify", str(team.id), "2020", "1")
    assert (found.exit_code, "0 differences" in found.output) == (0, True)
    assert run(app, "export", str(team.id), "2020", "1").output == ""
    for bad in (("x", "2020", "1"), (str(team.id), "1999", "1"), (str(team.id), "2020", "13")):
        assert run(app, "verify", *bad).exit_code == 2
