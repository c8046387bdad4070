"""Reservations: the same one for ever, counted against a hard limit until they end, and never silently nothing."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.api.test_usage import at_once
from tests.factories import Answer, Person, TeamSetting, execute, fetch, fold, join, make_key, make_team
from workers import usage as jobs

LARGEST = 2**63 - 1


def reserve(setting: TeamSetting, external_id: str = "call", by: Person | None = None, **more: Any) -> Answer:
    body = {"external_id": external_id, "metric": "llm_tokens_used", "quantity": 100, **more}
    return (by or setting.member).post(f"{setting.path}/usage/reservations", json=body)


def reserved(setting: TeamSetting, external_id: str = "call", **more: Any) -> str:
    answer = reserve(setting, external_id, **more)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def settle(setting: TeamSetting, id_: str, by: Person | None = None, **body: Any) -> Answer:
    return (by or setting.member).post(f"{setting.path}/usage/reservations/{id_}/settle", json=body)


def release(setting: TeamSetting, id_: str) -> Answer:
    return setting.member.post(f"{setting.path}/usage/reservations/{id_}/release")


def expire(id_: str) -> None:
    execute("UPDATE usage_reservations SET expires_at = now() WHERE id = :id", id=id_)


def this_month(setting: TeamSetting) -> tuple[int, dict[str, int]]:
    now = dt.datetime.now(dt.UTC)
    query = {"year": now.year, "month": now.month}
    totals = setting.viewer.get(f"{setting.path}/usage/monthly", query_string=query).json
    return totals["llm_tokens_used"], totals["unsettled"]


def limit(setting: TeamSetting, maximum: int, used: int = 0) -> None:
    """A hard limit of this month's tokens, of which so many are used."""
    if used:
        event = {"external_id": "before", "metric": "llm_tokens_used", "quantity": used}
        assert setting.member.post(f"{setting.path}/usage", json={"events": [event]}).status_code == 202
    set_limits(setting, llm_tokens_used=maximum)


def set_limits(setting: TeamSetting, **maxima: int) -> None:
    """As a change of plan does."""
    execute(
        "SELECT set_quotas(:id, CAST(:metrics AS text[]), CAST(:maxima AS numeric[]))",
        id=setting.id,
        metrics=list(maxima),
        maxima=list(maxima.values()),
    )


def used_of_limit(setting: TeamSetting) -> int:
    (row,) = fetch("SELECT used FROM usage_quotas WHERE team_id = :id", id=setting.id)
    return int(row.used)


def ledger(setting: TeamSetting) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = setting.viewer.get(
        f"{setting.path}/usage/ledger?metric=llm_tokens_used"
    ).json["items"]
    return rows


NOTHING = {"count": 0, "quantity": 0}


def test_what_was_really_used_is_counted_by_part(team: TeamSetting) -> None:
    made = reserve(team, model="large", workspace_id=str(team.workspace_id)).json
    assert (made["state"], made["quantity"], made["tokens"], made["ended_at"]) == ("open", 100, None, None)
    assert this_month(team) == (0, NOTHING)
    tokens = {"input": 5, "cached_input": 300, "output": 7, "reasoning": 0}
    answer = settle(team, made["id"], tokens=tokens)
    assert answer.status_code == 200
    assert answer.json["state"] == "settled"
    assert answer.json["tokens"] == {"input": 5, "cached_input": 300, "output": 7}
    assert this_month(team) == (312, NOTHING)
    rows = ledger(team)
    assert {row["part"]: row["quantity"] for row in rows} == answer.json["tokens"]
    assert {row["key"] for row in rows} == {f"reservation:{made['id']}:{row['part']}" for row in rows}
    assert {(row["model"], row["workspace_id"], row["user_id"]) for row in rows} == {
        ("large", str(team.workspace_id), str(team.member.id))
    }
    assert {row["occurred_at"] for row in rows} == {made["created_at"]}
    assert team.viewer.get(f"{team.path}/usage/reservations/{made['id']}").json == answer.json


def test_usage_is_of_whoever_reserved(team: TeamSetting) -> None:
    key = make_key(team, team.admin, "usage:create")
    id_ = reserved(team, by=key)
    assert settle(team, id_, by=team.owner, tokens={"output": 3}, model="small").json["model"] == "small"
    (row,) = ledger(team)
    assert (row["user_id"], row["api_key_id"], row["model"]) == (str(team.admin.id), key.key_id, "small")


def test_an_external_id_is_one_reservation_for_ever(app: Flask, team: TeamSetting) -> None:
    body: dict[str, Any] = {"quantity": 7, "model": "large", "expires_in_s": 60}
    first = reserve(team, **body)
    again = reserve(team, **body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json == first.json
    for other in ({"quantity": 8}, {"model": "small"}, {"model": None}, {"expires_in_s": 61}):
        refused = reserve(team, **{**body, **other})
        assert (refused.status_code, refused.json["code"]) == (409, "conflict"), other
    assert settle(team, first.json["id"], tokens={"input": 1}).status_code == 200
    assert (reserve(team, **body).status_code, reserve(team, **body).json["state"]) == (200, "settled")
    assert reserve(make_team(app), **body).status_code == 201
    assert this_month(team)[0] == 1


def test_the_same_at_once_is_one(app: Flask, team: TeamSetting) -> None:
    limit(team, 150)
    answers = at_once(app, team, lambda person: reserve(team, by=person), 8)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert used_of_limit(team) == 100


def test_to_settle_again_counts_once(team: TeamSetting) -> None:
    id_ = reserved(team)
    for _ in range(2):
        assert settle(team, id_, tokens={"input": 5, "output": 0}).status_code == 200
    assert this_month(team)[0] == 5
    for body in ({"tokens": {"input": 6}}, {"tokens": {"input": 5}, "model": "other"}):
        assert settle(team, id_, **body).status_code == 409
    assert release(team, id_).status_code == 409
    assert this_month(team)[0] == 5


def test_what_is_released_used_nothing(team: TeamSetting) -> None:
    id_ = reserved(team)
    for _ in range(2):
        assert release(team, id_).json["state"] == "released"
    assert settle(team, id_, tokens={"input": 5}).status_code == 409
    assert this_month(team) == (0, NOTHING)


def test_what_nobody_settles_is_shown_and_settled_late(team: TeamSetting) -> None:
    late, lost, unused, open_ = (reserved(team, name) for name in ("late", "lost", "unused", "open"))
    for id_ in (late, lost, unused):
        expire(id_)
    for _ in range(2):  # by the clock alone, then by the worker
        assert this_month(team) == (0, {"count": 3, "quantity": 300})
        states = {row["id"]: row["state"] for row in listed(team)}
        assert states == {late: "unsettled", lost: "unsettled", unused: "unsettled", open_: "open"}
        assert {row["id"] for row in listed(team, state="unsettled")} == {late, lost, unused}
        assert [row["id"] for row in listed(team, state="open")] == [open_]
        jobs.mark_unsettled()
    assert settle(team, late, tokens={"input": 40}).json["state"] == "settled"
    assert release(team, unused).json["state"] == "released"
    assert this_month(team) == (40, {"count": 1, "quantity": 100})


def listed(setting: TeamSetting, **query: str) -> list[dict[str, Any]]:
    answer = setting.viewer.get(f"{setting.path}/usage/reservations", query_string=query)
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json["items"]
    assert [row["created_at"] for row in items] == sorted((row["created_at"] for row in items), reverse=True)
    return items


def test_one_event_tells_of_all_that_expired(team: TeamSetting) -> None:
    for number in range(3):
        expire(reserved(team, str(number)))
    for _ in range(2):
        jobs.mark_unsettled()
    rows = fetch("SELECT details FROM outbox WHERE team_id = :id AND action = 'usage_unsettled'", id=team.id)
    assert [row.details["count"] for row in rows] == [3]


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (lambda team, id_: settle(team, id_, tokens={"input": 30}), 30),
        (lambda team, id_: settle(team, id_, tokens={"input": 130}), 130),
        (lambda team, id_: settle(team, id_, tokens={}), 0),
        (release, 0),
        (lambda _, id_: expire(id_), 100),
    ],
    ids=["less", "more", "nothing", "released", "unsettled"],
)
def test_a_hard_limit_counts_it_until_it_ends(
    team: TeamSetting, end: Callable[[TeamSetting, str], Any], left: int
) -> None:
    limit(team, 1_000, used=500)
    id_ = reserved(team)
    assert used_of_limit(team) == 600
    for _ in range(2):
        end(team, id_)
    jobs.mark_unsettled()
    assert used_of_limit(team) == 500 + left


@pytest.mark.parametrize(("quantity", "status"), [(99, 201), (100, 201), (101, 402)])
def test_both_sides_of_a_hard_limit(team: TeamSetting, quantity: int, status: int) -> None:
    limit(team, 1_000, used=900)
    answer = reserve(team, quantity=quantity)
    assert answer.status_code == status
    if status == 402:
        assert answer.json["code"] == "quota_exceeded"
        assert (answer.json["metric"], answer.json["used"], answer.json["limit"]) == (
            "llm_tokens_used",
            900,
            1_000,
        )
        assert listed(team) == []
    assert used_of_limit(team) == 900 + (quantity if status == 201 else 0)


def test_what_is_reserved_leaves_no_room_for_reports(team: TeamSetting) -> None:
    limit(team, 150)
    id_ = reserved(team)
    event = {"external_id": "a", "metric": "llm_tokens_used", "quantity": 51}
    assert team.member.post(f"{team.path}/usage", json={"events": [event]}).status_code == 402
    assert settle(team, id_, tokens={"input": 99}).status_code == 200
    assert team.member.post(f"{team.path}/usage", json={"events": [event]}).status_code == 202
    assert (used_of_limit(team), this_month(team)[0]) == (150, 150)


def test_what_was_used_is_counted_whatever_the_limit(team: TeamSetting) -> None:
    limit(team, 100)
    assert settle(team, reserved(team), tokens={"input": 101}).status_code == 200
    assert (used_of_limit(team), this_month(team)[0]) == (101, 101)
    assert reserve(team, "next", quantity=1).status_code == 402


def test_twenty_at_once_never_pass_a_hard_limit(app: Flask, team: TeamSetting) -> None:
    limit(team, 1_000)
    names = iter(range(20))
    answers = at_once(app, team, lambda person: reserve(team, str(next(names)), by=person), 20)
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [402] * 10
    assert used_of_limit(team) == 1_000
    ids = iter([answer.json["id"] for answer in answers if answer.status_code == 201])
    ended = at_once(app, team, lambda person: settle(team, next(ids), by=person, tokens={"input": 1}), 10)
    assert {answer.status_code for answer in ended} == {200}
    assert used_of_limit(team) == this_month(team)[0] == 10


def test_settled_twice_at_once_counts_once(app: Flask, team: TeamSetting) -> None:
    limit(team, 1_000)
    id_ = reserved(team)
    answers = at_once(app, team, lambda person: settle(team, id_, by=person, tokens={"input": 9}), 6)
    assert {answer.status_code for answer in answers} == {200}
    assert (used_of_limit(team), this_month(team)[0]) == (9, 9)
    fold()
    assert this_month(team)[0] == 9


def test_what_was_reserved_in_another_month_is_none_of_this_ones(team: TeamSetting) -> None:
    limit(team, 1_000)
    old = reserved(team)
    execute(
        "UPDATE usage_reservations SET created_at = created_at - interval '32 days' WHERE id = :id", id=old
    )
    set_limits(team, llm_tokens_used=1_000)
    assert used_of_limit(team) == 0
    assert settle(team, old, tokens={"input": 5}).status_code == 200
    assert used_of_limit(team) == 0
    assert this_month(team)[0] == 0


def test_a_new_plan_counts_what_is_reserved(team: TeamSetting) -> None:
    unlimited = reserved(team, "unlimited")
    lost = reserved(team, "lost", quantity=7)
    expire(lost)
    jobs.mark_unsettled()
    for maximum in (1_000, 500):
        limit(team, maximum)
        assert used_of_limit(team) == 107
    set_limits(team)
    between = reserved(team, "between", quantity=20)
    limit(team, 1_000)
    assert used_of_limit(team) == 127
    assert settle(team, unlimited, tokens={"input": 3}).status_code == 200
    assert release(team, between).status_code == 200
    assert used_of_limit(team) == 10


def test_the_months_turn_makes_a_limit_whole(team: TeamSetting) -> None:
    limit(team, 100, used=100)
    assert reserve(team, quantity=1).status_code == 402
    execute("UPDATE usage_quotas SET period = period - interval '1 month' WHERE team_id = :id", id=team.id)
    assert reserve(team).status_code == 201
    assert used_of_limit(team) == 100


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("quantity", 0, 422),
        ("quantity", 1, 201),
        ("quantity", LARGEST, 201),
        ("quantity", LARGEST + 1, 422),
        ("expires_in_s", 0, 422),
        ("expires_in_s", 1, 201),
        ("expires_in_s", 86_400, 201),
        ("expires_in_s", 86_401, 422),
        ("metric", "api_calls", 422),
        ("metric", "llm_tokens_used", 201),
    ],
)
def test_both_sides_of_each_bound(team: TeamSetting, field: str, value: Any, status: int) -> None:
    answer = reserve(team, **{field: value})
    assert answer.status_code == status
    if status == 422:
        assert list(answer.json["errors"]) == [field]


def test_it_is_for_a_place_that_one_can_see(app: Flask, team: TeamSetting) -> None:
    task = team.task()
    private = team.owner.post(
        f"{team.path}/workspaces", json={"name": "Vault", "visibility": "private"}
    ).json["id"]
    foreign = make_team(app)
    for body, field in (
        ({"workspace_id": private}, "workspace_id"),
        ({"workspace_id": str(foreign.workspace_id)}, "workspace_id"),
        ({"task_id": foreign.task()["id"]}, "task_id"),
        (
            {
                "workspace_id": team.owner.post(f"{team.path}/workspaces", json={"name": "B"}).json["id"],
                "task_id": task["id"],
            },
            "task_id",
        ),
    ):
        refused = reserve(team, **body)
        assert (refused.status_code, list(refused.json["errors"])) == (422, [field])
    assert reserve(team, task_id=task["id"]).json["workspace_id"] == str(team.workspace_id)
    hidden = reserved(team, "hidden", by=team.owner, workspace_id=private)
    assert hidden not in {row["id"] for row in listed(team)}
    assert team.viewer.get(f"{team.path}/usage/reservations/{hidden}").status_code == 404
    assert settle(team, hidden, tokens={"input": 1}).status_code == 404
    assert settle(team, hidden, by=team.owner, tokens={"input": 1}).status_code == 200


def test_a_viewer_reserves_nothing(team: TeamSetting) -> None:
    refused = reserve(team, by=join(team, "viewer"))
    assert (refused.status_code, refused.json["missing"]) == (403, "usage:create")
