"""Choosing how long the log is kept, and the legal hold: who may, within which limits, and what is shown."""

import datetime as dt
from typing import Any

import pytest
from flask import Flask

from models.plans import PLANS
from tests.factories import Person, TeamSetting, drain, execute, make_key, make_person


def patch(setting: TeamSetting, days: Any, by: Person | None = None) -> Any:
    return (by or setting.owner).patch(setting.path, json={"retention_days": days})


@pytest.mark.parametrize(
    ("plan", "days", "good"),
    [
        ("free", 6, False),
        ("free", 7, True),
        ("free", 30, True),
        ("free", 31, False),
        ("pro", 1_095, True),
        ("pro", 1_096, False),
        ("enterprise", 3_650, True),
        ("enterprise", 3_651, False),
    ],
)
def test_the_retention_is_within_the_plan(team: TeamSetting, plan: str, days: int, good: bool) -> None:
    execute("UPDATE teams SET plan = :plan WHERE id = :id", plan=plan, id=team.id)
    answer = patch(team, days)
    if good:
        assert (answer.status_code, answer.json["retention_days"]) == (200, days)
        return
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["retention_days"])
    (message,) = answer.json["errors"]["retention_days"]
    assert str(PLANS[plan].longest_retention_days) in message or days < 7 or days > 3_650


def test_a_refusal_names_the_plan_and_its_maximum(team: TeamSetting) -> None:
    assert patch(team, 2_000).json["errors"]["retention_days"] == [
        "The pro plan keeps the log for 1095 days at the most."
    ]


@pytest.mark.parametrize(("plan", "days"), [("free", 30), ("pro", 365), ("enterprise", 1_095)])
def test_none_is_what_the_plan_says(team: TeamSetting, plan: str, days: int) -> None:
    execute("UPDATE teams SET plan = :plan, retention_days = 8 WHERE id = :id", plan=plan, id=team.id)
    assert team.viewer.get(team.path).json["retention_days_in_force"] == 8
    shown = patch(team, None).json
    assert (shown["retention_days"], shown["retention_days_in_force"]) == (None, days)
    assert shown["retention_shortens_at"] is None  # it got longer


def test_a_larger_plan_lengthens_at_once_and_a_smaller_one_shortens_in_thirty_days(
    app: Flask, team: TeamSetting
) -> None:
    assert (
        team.owner.put(f"{team.path}/plan", json={"plan": "enterprise"}).json["retention_days_in_force"]
        == 1_095
    )
    shown = team.owner.put(f"{team.path}/plan", json={"plan": "pro"}).json
    assert shown["retention_days_in_force"] == 1_095
    left = dt.datetime.fromisoformat(shown["retention_shortens_at"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29, hours=23) < left < dt.timedelta(days=30, minutes=1)
    back = team.owner.put(f"{team.path}/plan", json={"plan": "enterprise"}).json
    assert (back["retention_days_in_force"], back["retention_shortens_at"]) == (1_095, None)


def test_what_was_chosen_outlives_a_smaller_plan(team: TeamSetting) -> None:
    assert patch(team, 1_000).status_code == 200
    assert team.owner.put(f"{team.path}/plan", json={"plan": "free"}).json["retention_days"] == 1_000
    execute("UPDATE teams SET longer_retention_until = now() WHERE id = :id", id=team.id)
    assert team.owner.get(team.path).json["retention_days_in_force"] == 30
    assert team.owner.put(f"{team.path}/plan", json={"plan": "pro"}).json["retention_days_in_force"] == 1_000


def test_choosing_is_a_change_like_any_other(team: TeamSetting) -> None:
    assert patch(team, 30, team.admin).status_code == 200
    assert patch(team, 30, team.viewer).json["missing"] == "teams:update"
    drain()
    (row,) = team.owner.get(f"{team.path}/activity?action=team_updated").json["items"]
    assert row["metadata"]["changes"] == {"retention_days": [None, 30]}


def test_the_plans_say_what_they_keep(app: Flask) -> None:
    shown = make_person(app).get("/plans").json["items"]
    assert [(each["retention_days"], each["longest_retention_days"]) for each in shown] == [
        (30, 30),
        (365, 1_095),
        (1_095, 3_650),
    ]


def hold(setting: TeamSetting, by: Person, reason: str = "The case", **kwargs: Any) -> Any:
    return by.put(f"{setting.path}/legal-hold", json={"reason": reason}, **kwargs)


def test_the_owner_alone_in_person_places_and_releases_a_legal_hold(team: TeamSetting) -> None:
    key = make_key(team, team.owner, "teams:delete", "teams:read")
    assert hold(team, team.owner).status_code == 200
    for person in (team.admin, team.member, team.viewer, key):
        for answer in (hold(team, person), person.delete(f"{team.path}/legal-hold")):
            assert (answer.status_code, answer.json["missing"]) == (403, "owner")
    shown = team.viewer.get(team.path).json
    assert (shown["legal_hold_reason"], shown["legal_hold_placed_at"] is not None) == ("The case", True)
    assert team.owner.delete(f"{team.path}/legal-hold").status_code == 204
    shown = team.viewer.get(team.path).json
    assert (shown["legal_hold_reason"], shown["legal_hold_placed_at"]) == (None, None)
    assert team.owner.delete(f"{team.path}/legal-hold").status_code == 404


def test_a_reason_can_change_and_each_change_is_told_once(team: TeamSetting) -> None:
    placed = [hold(team, team.owner, reason).json["legal_hold_placed_at"] for reason in ("A", "A", "B")]
    assert len(set(placed)) == 1
    assert team.owner.delete(f"{team.path}/legal-hold").status_code == 204
    drain()
    rows = team.owner.get(f"{team.path}/activity?resource_type=team&limit=3").json["items"]
    assert [(row["action"], row["metadata"]["reason"]) for row in rows] == [
        ("legal_hold_released", "B"),
        ("legal_hold_placed", "B"),
        ("legal_hold_placed", "A"),
    ]


def test_a_hold_is_for_the_state_that_was_read(team: TeamSetting) -> None:
    read = team.owner.get(team.path)
    assert team.owner.patch(team.path, json={"name": "Tides"}).status_code == 200
    stale = {"If-Match": read.headers["ETag"]}
    assert hold(team, team.owner, headers=stale).status_code == 412
    assert (
        hold(team, team.owner, headers={"If-Match": team.owner.get(team.path).headers["ETag"]}).status_code
        == 200
    )
    assert team.owner.delete(f"{team.path}/legal-hold", headers=stale).status_code == 412


@pytest.mark.parametrize(("length", "status"), [(1, 200), (1_000, 200), (1_001, 422)])
def test_a_reason_has_a_length(team: TeamSetting, length: int, status: int) -> None:
    assert hold(team, team.owner, "x" * length).status_code == status
