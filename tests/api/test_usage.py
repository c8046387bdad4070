"""Usage: reported once for ever, whole or not at all; API calls, counted exactly; read exactly before and after the fold."""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import text

from models.database import transaction
from tests.factories import Answer, Person, TeamSetting, fold, make_person, make_team

NUMBERS = count()
LARGEST = 2**63 - 1
METRICS = ("tasks_created", "tasks_completed", "llm_tokens_used", "api_calls", "storage_bytes")


def event(
    quantity: Any = 1, metric: str = "llm_tokens_used", external_id: str | None = None, **more: Any
) -> dict[str, Any]:
    external_id = external_id or f"event-{next(NUMBERS)}"
    return {"external_id": external_id, "metric": metric, "quantity": quantity, **more}


def report(setting: TeamSetting, *events: dict[str, Any]) -> Answer:
    return setting.member.post(f"{setting.path}/usage", json={"events": list(events)})


def accepted(setting: TeamSetting, *events: dict[str, Any]) -> tuple[int, int]:
    answer = report(setting, *events)
    assert answer.status_code == 202, answer.text
    assert set(answer.json) == {"accepted", "duplicates"}
    return answer.json["accepted"], answer.json["duplicates"]


def days(
    setting: TeamSetting, since: str = "2026-01-01", until: str = "2026-12-31"
) -> dict[str, dict[str, int]]:
    answer = setting.viewer.get(
        f"{setting.path}/usage", query_string={"from": since, "to": until, "limit": 200}
    )
    assert answer.status_code == 200, answer.text
    return {day.pop("date"): day for day in answer.json["items"]}


def month(setting: TeamSetting, month_: int, year: int = 2026) -> dict[str, int]:
    query = {"year": year, "month": month_}
    answer = setting.viewer.get(f"{setting.path}/usage/monthly", query_string=query)
    assert answer.status_code == 200, answer.text
    totals: dict[str, int] = answer.json
    assert (totals.pop("year"), totals.pop("month")) == (year, month_)
    assert totals.pop("unsettled") == {"count": 0, "quantity": 0}  # type: ignore[comparison-overlap]
    assert set(totals) == set(METRICS)
    return totals


def this_month(setting: TeamSetting) -> dict[str, int]:
    now = dt.datetime.now(dt.UTC)
    return month(setting, now.month, now.year)


def test_a_report_is_read_at_once_and_the_same_after_the_fold(team: TeamSetting) -> None:
    at = "2026-03-05T12:00:00Z"
    events = [event(10 + number, metric, occurred_at=at) for number, metric in enumerate(METRICS)]
    assert accepted(team, *events) == (5, 0)
    expected = dict(zip(METRICS, range(10, 15), strict=True))
    assert days(team, "2026-03-01", "2026-03-31") == {"2026-03-05": expected}
    assert month(team, 3) == expected
    fold()
    assert days(team, "2026-03-01", "2026-03-31") == {"2026-03-05": expected}
    assert month(team, 3) == expected
    assert accepted(team, event(100, occurred_at=at)) == (1, 0)  # half of it folded, half pending
    assert month(team, 3) == {**expected, "llm_tokens_used": 112}


def test_a_viewer_reports_nothing(team: TeamSetting) -> None:
    body = {"events": [event(5, occurred_at="2026-03-05T12:00:00Z")]}
    refused = team.viewer.post(f"{team.path}/usage", json=body)
    assert (refused.status_code, refused.json["missing"]) == (403, "usage:create")
    assert month(team, 3)["llm_tokens_used"] == 0
    assert team.member.post(f"{team.path}/usage", json=body).status_code == 202
    assert month(team, 3)["llm_tokens_used"] == 5


def test_an_external_id_counts_once_for_ever(app: Flask, team: TeamSetting) -> None:
    at = "2026-03-05T12:00:00Z"
    once = event(5, external_id="once", occurred_at=at)
    within = event(6, external_id="once", occurred_at="2026-04-01T00:00:00Z")
    assert accepted(team, once, within, event(1, external_id="other", occurred_at=at)) == (2, 1)
    assert accepted(team, once) == (0, 1)
    fold()
    # Another metric, quantity or day make no other event of it.
    assert accepted(team, {**within, "metric": "tasks_created"}, event(7, occurred_at=at)) == (1, 1)
    assert (month(team, 3)["llm_tokens_used"], month(team, 4)["llm_tokens_used"]) == (13, 0)
    other = make_team(app)
    assert accepted(other, once) == (1, 0)
    assert month(other, 3)["llm_tokens_used"] == 5


def test_an_external_id_is_taken_as_it_is(team: TeamSetting) -> None:
    ids = ("a", "A", " a", "a ", "ä", "a\u0308", "task:1", "external:a", "x" * 200)
    at = "2026-03-05T12:00:00Z"
    assert accepted(team, *(event(1, external_id=id_, occurred_at=at) for id_ in ids)) == (len(ids), 0)
    assert month(team, 3)["llm_tokens_used"] == len(ids)


def test_no_reporter_can_take_the_key_of_what_we_count(team: TeamSetting) -> None:
    task = team.task()
    at = "2026-03-05T12:00:00Z"
    assert accepted(
        team, event(1, external_id=f"task:{task['id']}:completed:tasks_completed", occurred_at=at)
    )
    assert team.member.post(f"{team.path}/tasks/{task['id']}/start").status_code == 200
    assert team.member.post(f"{team.path}/tasks/{task['id']}/complete", json={}).status_code == 200
    assert this_month(team)["tasks_completed"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"quantity": 0},
        {"quantity": -1},
        {"metric": "storage_bytes", "quantity": 0},
        {"metric": "storage_bytes", "quantity": -1},
        {"metric": "something"},
        {"external_id": ""},
        {"occurred_at": "2999-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_one_bad_event_refuses_the_whole_batch(shared: TeamSetting, bad: dict[str, Any]) -> None:
    before = month(shared, 5)
    good = [event(1, occurred_at="2026-05-01T00:00:00Z") for _ in range(2)]
    answer = report(shared, good[0], {**event(1, occurred_at="2026-05-01T00:00:00Z"), **bad}, good[1])
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["events"])
    assert month(shared, 5) == before
    assert accepted(shared, *good) == (2, 0)
    assert month(shared, 5)["llm_tokens_used"] == before["llm_tokens_used"] + 2


@pytest.mark.parametrize(
    ("metric", "quantity", "status"),
    [
        ("llm_tokens_used", 1, 202),
        ("llm_tokens_used", LARGEST, 202),
        ("llm_tokens_used", LARGEST + 1, 422),
        ("storage_bytes", LARGEST, 202),
        ("storage_bytes", LARGEST + 1, 422),
        ("storage_bytes", -LARGEST - 2, 422),
    ],
)
def test_both_sides_of_the_largest_quantity(
    team: TeamSetting, metric: str, quantity: int, status: int
) -> None:
    answer = report(team, event(quantity, metric, occurred_at="2026-03-05T12:00:00Z"))
    assert answer.status_code == status
    if status == 422:
        assert list(answer.json["errors"]["events"]["0"]) == ["quantity"]
    assert month(team, 3)[metric] == (quantity if status == 202 else 0)


def test_a_day_of_several_largest_quantities_is_exact(team: TeamSetting) -> None:
    at = "2026-03-05T12:00:00Z"
    for metric in METRICS:
        assert accepted(team, *(event(LARGEST, metric, occurred_at=at) for _ in range(3))) == (3, 0)
    expected = dict.fromkeys(METRICS, 3 * LARGEST)
    for _ in range(2):
        assert days(team, "2026-03-01", "2026-03-31") == {"2026-03-05": expected}
        assert month(team, 3) == expected
        fold()


@pytest.mark.parametrize(("count_", "status"), [(0, 422), (1, 202), (1_000, 202), (1_001, 422)])
def test_both_sides_of_the_largest_batch(team: TeamSetting, count_: int, status: int) -> None:
    events = [event(1, occurred_at="2026-03-05T12:00:00Z") for _ in range(count_)]
    answer = report(team, *events)
    assert answer.status_code == status
    assert month(team, 3)["llm_tokens_used"] == (count_ if status == 202 else 0)


@pytest.mark.parametrize(("ahead_s", "status"), [(-86_400, 202), (0, 202), (4, 202), (6, 422), (3_600, 422)])
def test_the_future_is_refused_beyond_the_tolerance(team: TeamSetting, ahead_s: int, status: int) -> None:
    with time_machine.travel(dt.datetime.now(dt.UTC), tick=False):
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ahead_s)
        answer = report(team, event(occurred_at=at.isoformat()))
    assert answer.status_code == status
    if status == 422:
        assert answer.json["errors"] == {"events": {"0": {"occurred_at": ["This is in the future."]}}}


def test_the_day_is_utcs(team: TeamSetting) -> None:
    for at in ("2026-03-05T23:59:59.999999Z", "2026-03-06T00:00:00Z", "2026-03-06T01:00:00+02:00"):
        assert accepted(team, event(1, occurred_at=at)) == (1, 0)
    assert {date: day["llm_tokens_used"] for date, day in days(team).items() if day["llm_tokens_used"]} == {
        "2026-03-05": 2,
        "2026-03-06": 1,
    }


def test_days_from_and_to_are_included_and_paged(team: TeamSetting) -> None:
    for day in range(1, 6):
        assert accepted(team, event(day, occurred_at=f"2026-03-0{day}T00:00:00Z")) == (1, 0)
    assert list(days(team, "2026-03-02", "2026-03-04")) == ["2026-03-02", "2026-03-03", "2026-03-04"]
    assert list(days(team, "2026-03-02", "2026-03-02")) == ["2026-03-02"]
    query = {"from": "2026-03-01", "to": "2026-03-31", "limit": 3}
    first = team.viewer.get(f"{team.path}/usage", query_string=query).json
    rest = team.viewer.get(f"{team.path}/usage", query_string={**query, "cursor": first["next_cursor"]}).json
    assert [day["llm_tokens_used"] for day in first["items"] + rest["items"]] == [1, 2, 3, 4, 5]
    assert (len(first["items"]), rest["next_cursor"]) == (3, None)


def test_without_days_it_is_this_month_until_today(team: TeamSetting) -> None:
    now = dt.datetime.now(dt.UTC)
    old = now - dt.timedelta(days=32)
    assert accepted(team, event(7, occurred_at=old.isoformat()), event(5)) == (2, 0)
    (day,) = team.viewer.get(f"{team.path}/usage").json["items"]
    assert (day["date"], day["llm_tokens_used"]) == (now.date().isoformat(), 5)


def test_a_month_ends_where_the_next_begins(team: TeamSetting) -> None:
    ends = ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", "2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z")
    assert accepted(team, *(event(10**number, occurred_at=at) for number, at in enumerate(ends))) == (4, 0)
    assert [month(team, each)["llm_tokens_used"] for each in (1, 2, 3, 4)] == [1, 110, 1_000, 0]
    leap = event(5, occurred_at="2024-02-29T12:00:00Z")
    assert accepted(team, leap) == (1, 0)
    assert month(team, 2, 2024)["llm_tokens_used"] == 5


def test_storage_is_a_level_that_goes_on(team: TeamSetting) -> None:
    changes = {"2026-01-10": 100, "2026-01-20": 50, "2026-03-05": -120}
    for date, quantity in changes.items():
        assert accepted(team, event(quantity, "storage_bytes", occurred_at=f"{date}T12:00:00Z")) == (1, 0)
    for _ in range(2):
        levels = {date: day["storage_bytes"] for date, day in days(team).items()}
        assert {date: levels[date] for date in changes} == {
            "2026-01-10": 100,
            "2026-01-20": 150,
            "2026-03-05": 30,
        }
        assert days(team, "2026-01-20", "2026-01-31")["2026-01-20"]["storage_bytes"] == 150
        assert [month(team, each)["storage_bytes"] for each in (1, 2, 3, 4)] == [150, 150, 30, 30]
        assert month(team, 12, 2025)["storage_bytes"] == 0
        fold()


def test_the_storage_level_falls_below_zero_on_no_day(team: TeamSetting) -> None:
    def change(quantity: int, day: str) -> dict[str, Any]:
        return event(quantity, "storage_bytes", occurred_at=f"2026-{day}T12:00:00Z")

    assert accepted(team, change(100, "01-10"), change(-90, "01-20"), change(50, "01-30")) == (3, 0)
    # 60 are there at the end; yet on the 20th there were 10.
    late = report(team, change(-11, "01-15"))
    assert (late.status_code, list(late.json["errors"])) == (422, ["events"])
    assert report(team, change(-1, "01-05")).status_code == 422
    assert accepted(team, change(-10, "01-15")) == (1, 0)
    assert report(team, change(-51, "02-01")).status_code == 422
    assert report(team, change(-1, "02-01"), change(-50, "02-01")).status_code == 422
    fold()
    assert accepted(team, change(-51, "02-01"), change(1, "02-01")) == (2, 0)  # the day closes with none
    assert month(team, 2)["storage_bytes"] == 0


def test_a_duplicate_does_not_lower_the_level_again(team: TeamSetting) -> None:
    at = "2026-01-10T12:00:00Z"
    down = event(-6, "storage_bytes", occurred_at="2026-01-11T12:00:00Z")
    assert accepted(team, event(10, "storage_bytes", occurred_at=at), down) == (2, 0)
    assert accepted(team, down, down) == (0, 2)
    assert month(team, 1)["storage_bytes"] == 4


def test_tasks_are_counted_once_with_their_tokens(team: TeamSetting) -> None:
    before = this_month(team)
    tasks = [team.task() for _ in range(3)]
    for task, body in ((tasks[0], {"llm_tokens_used": 42}), (tasks[1], {})):
        path = f"{team.path}/tasks/{task['id']}"
        assert team.member.post(f"{path}/start").status_code == 200
        assert team.member.post(f"{path}/complete", json=body).status_code == 200
        assert team.member.post(f"{path}/complete", json={"llm_tokens_used": 1_000}).status_code == 409
    assert team.member.delete(f"{team.path}/tasks/{tasks[0]['id']}").status_code == 204
    after = this_month(team)
    assert {name: after[name] - before[name] for name in METRICS[:3]} == {
        "tasks_created": 3,
        "tasks_completed": 2,
        "llm_tokens_used": 42,
    }


def ledger_calls(setting: TeamSetting) -> int:
    """What the ledger says, asked without calling the API."""
    with transaction() as session:
        return int(
            session.execute(
                text(
                    "SELECT coalesce(sum(quantity), 0) FROM usage_ledger WHERE metric = 'api_calls' AND team_id = :id"
                ),
                {"id": setting.id},
            ).scalar_one()
        )


def test_each_answered_call_with_a_valid_credential_counts(team: TeamSetting) -> None:
    owner, viewer = team.owner, team.viewer
    calls: dict[str, Callable[[], Answer]] = {
        "200": lambda: owner.get(team.path),
        "201": lambda: owner.post(f"{team.path}/workspaces", json={"name": "A"}),
        "204": lambda: team.member.delete(f"{team.path}/members/{team.member.id}"),
        "304": lambda: owner.get(team.path, headers={"If-None-Match": owner.get(team.path).headers["ETag"]}),
        "403": lambda: viewer.delete(team.path),
        "404": lambda: owner.get(f"{team.path}/tasks/{team.id}"),
        "404 unrouted": lambda: owner.get(f"{team.path}/nothing/here"),
        "405": lambda: owner.put(team.path),
        "409": lambda: owner.delete(f"{team.path}/members/{owner.id}"),
        "412": lambda: owner.patch(team.path, json={"name": "A"}, headers={"If-Match": '"stale"'}),
        "413": lambda: owner.patch(team.path, data=b" " * (1024 * 1024 + 1)),
        "422": lambda: owner.patch(team.path, json={"name": ""}),
        "422 of the query": lambda: owner.get(f"{team.path}/members?limit=0"),
        "200 in capitals": lambda: owner.get(f"/teams/{str(team.id).upper()}"),
        "HEAD": lambda: owner.call("HEAD", team.path),
        "202": lambda: report_by(owner, team),
        "200 of the log": lambda: viewer.get(f"{team.path}/activity"),
    }
    for name, call in calls.items():
        before = ledger_calls(team)
        answer = call()
        assert name.startswith(("HEAD", str(answer.status_code))), name
        assert ledger_calls(team) - before == (2 if name == "304" else 1), name


def report_by(person: Person, setting: TeamSetting) -> Answer:
    return person.post(f"{setting.path}/usage", json={"events": [event()]})


def test_what_is_no_call_of_the_team_does_not_count(app: Flask, team: TeamSetting) -> None:
    stranger = make_person(app)
    before = ledger_calls(team)
    nobody = app.test_client()
    uncounted = [
        nobody.get(f"/api/v1{team.path}"),
        nobody.get(f"/api/v1{team.path}/nothing"),
        team.owner.get(team.path, headers={"Authorization": "Bearer ahq_unknown"}),
        stranger.get(team.path),
        stranger.get(f"{team.path}/nothing"),
        stranger.patch(team.path, data=b"{"),
        team.owner.get("/teams"),
        team.owner.get("/me"),
        team.owner.get("/plans"),
        team.owner.get(f"/teams/{team.id}x"),
        nobody.get("/health/live"),
    ]
    assert [answer.status_code for answer in uncounted] == [
        401, 404, 401, 404, 404, 404, 200, 200, 200, 404, 200,
    ]  # fmt: skip
    assert ledger_calls(team) == before
    assert team.owner.get(team.path).status_code == 200
    assert ledger_calls(team) == before + 1


def test_the_usage_shows_every_call_answered_before(team: TeamSetting) -> None:
    begun = this_month(team)["api_calls"]
    for number in range(1, 4):
        assert team.owner.get(team.path).status_code == 200
        # Each question counts too, for the next one.
        assert this_month(team)["api_calls"] == begun + 2 * number
        fold()
    date = dt.datetime.now(dt.UTC).date().isoformat()
    assert days(team, date, date)[date]["api_calls"] == begun + 7


def at_once(app: Flask, setting: TeamSetting, call: Callable[[Person], Answer], times: int) -> list[Answer]:
    def one(_: int) -> Answer:
        member = setting.member
        return call(Person(app, member.id, member.email, member.name, member.token))  # a client of its own

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(times)))


def test_calls_at_the_same_time_are_each_counted_before_their_answer(app: Flask, team: TeamSetting) -> None:
    before = ledger_calls(team)
    answers = at_once(app, team, lambda person: person.get(team.path), 40)
    assert {answer.status_code for answer in answers} == {200}
    assert ledger_calls(team) - before == 40
    assert this_month(team)["api_calls"] == before + 40


def test_a_report_that_is_sent_twice_at_once_counts_once(app: Flask, team: TeamSetting) -> None:
    body = {"events": [event(number, occurred_at="2026-03-05T12:00:00Z") for number in range(1, 21)]}
    answers = at_once(app, team, lambda person: person.post(f"{team.path}/usage", json=body), 6)
    assert {answer.status_code for answer in answers} == {202}
    assert sum(answer.json["accepted"] for answer in answers) == 20
    assert month(team, 3)["llm_tokens_used"] == 210


def test_storage_that_is_freed_twice_at_once_falls_below_zero_never(app: Flask, team: TeamSetting) -> None:
    at = "2026-03-05T12:00:00Z"
    assert accepted(team, event(100, "storage_bytes", occurred_at=at)) == (1, 0)
    answers = at_once(
        app,
        team,
        lambda person: person.post(
            f"{team.path}/usage", json={"events": [event(-40, "storage_bytes", occurred_at=at)]}
        ),
        5,
    )
    assert sorted(answer.status_code for answer in answers) == [202, 202, 422, 422, 422]
    assert month(team, 3)["storage_bytes"] == 20


def test_a_call_of_a_team_just_deleted_counts(team: TeamSetting) -> None:
    before = ledger_calls(team)
    assert team.owner.delete(team.path).status_code == 204
    assert team.owner.get(team.path).status_code == 404
    assert ledger_calls(team) == before + 1
