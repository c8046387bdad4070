"""Backfill sets: nothing counts before they are applied, all of it once, and all of it comes back off."""

from functools import partial
from typing import Any

import pytest
from flask import Flask

from models.operations import backfills as operations
from tests.api.test_usage import at_once, event, month, report
from tests.factories import Answer, Person, TeamSetting, execute, fetch, fold, make_team


def opened(setting: TeamSetting, name: str = "March") -> str:
    answer = setting.member.post(f"{setting.path}/usage/backfills", json={"name": name, "reason": "late"})
    assert answer.status_code == 201, answer.text
    return f"{setting.path}/usage/backfills/{answer.json['id']}"


def stage(setting: TeamSetting, path: str, *events: dict[str, Any]) -> Answer:
    return setting.member.post(f"{path}/events", json={"events": list(events)})


def tokens(quantity: int, external_id: str | None = None, day: int = 5, **more: Any) -> dict[str, Any]:
    return event(quantity, "llm_tokens_used", external_id, occurred_at=f"2026-03-{day:02}T12:00:00Z", **more)


def storage(quantity: int, day: int) -> dict[str, Any]:
    return event(quantity, "storage_bytes", occurred_at=f"2026-03-{day:02}T12:00:00Z")


def apply(setting: TeamSetting, path: str, by: Person | None = None) -> Answer:
    return (by or setting.owner).post(f"{path}/apply")


def revert(setting: TeamSetting, path: str, by: Person | None = None) -> Answer:
    return (by or setting.owner).post(f"{path}/revert")


def march(setting: TeamSetting) -> tuple[int, int]:
    totals = month(setting, 3)
    return totals["llm_tokens_used"], totals["storage_bytes"]


def test_a_set_counts_whole_and_comes_back_off(team: TeamSetting) -> None:
    assert report(team, tokens(1, "known")).status_code == 202
    path = opened(team)
    staged = stage(team, path, tokens(10, "a"), tokens(20, "b", day=6), tokens(30, "known"), storage(7, 5))
    assert (staged.status_code, staged.json) == (202, {"accepted": 4, "duplicates": 0})
    assert stage(team, path, tokens(99, "a")).json == {"accepted": 0, "duplicates": 1}
    assert march(team) == (1, 0)
    view = team.viewer.get(path).json
    assert (view["state"], view["events"], view["counted"], view["duplicates"]) == ("open", 4, 3, 1)
    for folded in (False, True):
        assert changes(team, path) == [
            ("2026-03-05", "llm_tokens_used", 1, 10, 1),
            ("2026-03-05", "storage_bytes", 1, 7, 0),
            ("2026-03-06", "llm_tokens_used", 1, 20, 0),
        ]
        if not folded:
            fold()
    applied = apply(team, path)
    assert (applied.status_code, applied.json["state"], applied.json["counted"]) == (200, "applied", 3)
    for _ in range(2):
        assert march(team) == (31, 7)
        fold()
    assert changes(team, path)[0] == ("2026-03-05", "llm_tokens_used", 1, 10, 11)
    # What was counted by it is known from then on.
    assert report(team, tokens(10, "a")).json == {"accepted": 0, "duplicates": 1}
    reverted = revert(team, path)
    assert (reverted.status_code, reverted.json["state"]) == (200, "reverted")
    for _ in range(2):
        assert march(team) == (1, 0)
        fold()
    assert report(team, tokens(10, "a")).json == {"accepted": 0, "duplicates": 1}
    rows = team.viewer.get(f"{team.path}/usage/ledger", query_string={"set_id": view["id"]}).json["items"]
    assert (len(rows), sum(row["quantity"] for row in rows)) == (6, 0)
    assert {row["reason"] for row in rows if row["reverses"]} == {"The backfill March was reverted."}


def changes(setting: TeamSetting, path: str, **query: Any) -> list[tuple[Any, ...]]:
    items = setting.viewer.get(f"{path}/changes", query_string=query).json["items"]
    return [
        tuple(item[name] for name in ("date", "metric", "events", "quantity", "counted")) for item in items
    ]


def test_each_is_done_once(team: TeamSetting) -> None:
    path = opened(team)
    assert stage(team, path, tokens(10)).status_code == 202
    assert revert(team, path).status_code == 409
    assert apply(team, path).status_code == 200
    assert apply(team, path).status_code == 409
    assert stage(team, path, tokens(5)).status_code == 409
    assert revert(team, path).status_code == 200
    for again in (apply, revert):
        refused = again(team, path)
        assert (refused.status_code, refused.json["backfill_state"]) == (409, "reverted")
    assert march(team) == (0, 0)


def test_applied_or_reverted_by_many_at_once_counts_once(app: Flask, team: TeamSetting) -> None:
    path = opened(team)
    assert stage(team, path, *(tokens(1) for _ in range(50))).status_code == 202
    team.member.token = team.owner.token  # at_once calls as the member
    for decide, total in ((apply, 50), (revert, 0)):
        answers = at_once(app, team, partial(decide, team, path), 6)
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
        assert march(team)[0] == total


def test_what_was_corrected_before_is_not_taken_back_twice(team: TeamSetting) -> None:
    path = opened(team)
    assert stage(team, path, tokens(10), tokens(20)).status_code == 202
    assert apply(team, path).status_code == 200
    row = team.viewer.get(f"{team.path}/usage/ledger?from=2026-03-01&to=2026-03-31").json["items"][0]
    body = {"ledger_id": row["id"], "reason": "wrong"}
    assert team.owner.post(f"{team.path}/usage/corrections", json=body).status_code == 201
    assert march(team)[0] == 30 - row["quantity"]
    assert revert(team, path).status_code == 200
    assert march(team)[0] == 0


def test_storage_falls_below_zero_by_no_set(team: TeamSetting) -> None:
    low, high = opened(team, "low"), opened(team, "high")
    assert stage(team, low, storage(-5, 6)).status_code == 202
    assert apply(team, low).status_code == 409
    assert stage(team, high, storage(8, 5)).status_code == 202
    assert apply(team, high).status_code == 200
    assert apply(team, low).status_code == 200
    assert march(team) == (0, 3)
    assert revert(team, high).status_code == 409
    assert revert(team, low).status_code == 200
    assert revert(team, high).status_code == 200
    assert march(team) == (0, 0)


def test_it_names_the_months_that_are_invoiced(team: TeamSetting) -> None:
    path = opened(team)
    both = [event(1, occurred_at=f"2026-{number}-10T00:00:00Z") for number in ("02", "03", "04")]
    assert stage(team, path, *both).status_code == 202
    assert team.viewer.get(path).json["closed_months"] == []
    for number in ("02", "03"):
        execute(
            "INSERT INTO invoices (id, team_id, state, number, period_start, period_end, currency, total, counted_at, finalized_at,"
            " seller, buyer) VALUES (uuid7(), :id, 'final', :number, CAST(:start AS date),"
            " CAST(:start AS date) + interval '1 month', 'USD', 0, now(), now(), '{}', '{}')",
            id=team.id,
            number=f"{team.id}-{number}",
            start=f"2026-{number}-01",
        )
    execute(
        "INSERT INTO invoices (id, team_id, kind, credits, state, number, period_start, period_end, currency, total, counted_at,"
        " finalized_at, seller, buyer) SELECT uuid7(), team_id, 'credit_note', id, 'final', number || 'c', period_start,"
        " period_end, 'USD', 0, now(), now(), '{}', '{}' FROM invoices WHERE team_id = :id AND period_start = '2026-02-01'",
        id=team.id,
    )
    assert team.viewer.get(path).json["closed_months"] == ["2026-03-01"]
    assert apply(team, path).json["closed_months"] == ["2026-03-01"]


def test_a_bad_event_refuses_the_batch(app: Flask, team: TeamSetting) -> None:
    path = opened(team)
    for bad in (
        {"occurred_at": "2999-01-01T00:00:00Z"},
        {"quantity": 0},
        {"workspace_id": str(make_team(app).workspace_id)},
    ):
        refused = stage(team, path, tokens(1), {**tokens(1), **bad})
        assert (refused.status_code, list(refused.json["errors"]["events"])) == (422, ["1"])
        assert list(refused.json["errors"]["events"]["1"]) == list(bad)
    assert team.viewer.get(path).json["events"] == 0


def test_both_sides_of_the_largest_set(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "MAXIMUM_EVENTS", 3)
    path = opened(team)
    assert stage(team, path, tokens(1, "a"), tokens(1, "b"), tokens(1, "c")).status_code == 202
    assert stage(team, path, tokens(1, "d")).status_code == 422
    assert stage(team, path, tokens(1, "a")).json == {"accepted": 0, "duplicates": 1}
    assert team.viewer.get(path).json["events"] == 3


def test_who_reports_usage_does_not_decide_on_the_bill(team: TeamSetting) -> None:
    path = opened(team)
    assert stage(team, path, tokens(1)).status_code == 202
    for verb in ("apply", "revert"):
        refused = team.member.post(f"{path}/{verb}")
        assert (refused.status_code, refused.json["missing"]) == (403, "billing:update")
    assert apply(team, path, by=team.admin).status_code == 200


def test_changes_are_paged_without_gaps(team: TeamSetting) -> None:
    path = opened(team)
    assert stage(team, path, *(tokens(day, day=day) for day in range(1, 6)), storage(1, 3)).status_code == 202
    seen: list[Any] = []
    query: dict[str, Any] = {"limit": 4}
    while query:
        page = team.viewer.get(f"{path}/changes", query_string=query).json
        seen += [(item["date"], item["metric"]) for item in page["items"]]
        query = {"limit": 4, "cursor": page["next_cursor"]} if page["next_cursor"] else {}
    assert seen == sorted(seen)
    assert len(seen) == 6


def test_usage_is_of_whoever_staged_it(team: TeamSetting) -> None:
    path = opened(team)
    assert stage(team, path, tokens(4, model="large", part="output")).status_code == 202
    assert apply(team, path).status_code == 200
    rows = fetch(
        "SELECT user_id, model, part, quantity FROM usage_pending WHERE team_id = :id AND metric = 'llm_tokens_used'",
        id=team.id,
    )
    assert [tuple(row) for row in rows] == [(team.member.id, "large", "output", 4)]
