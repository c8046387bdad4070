"""Plans, and the seats that come with them."""

import calendar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from models.plans import PLANS
from tests.books import BODY
from tests.factories import TeamSetting, execute, make_person

SEATS = {"free": 5, "pro": 50, "enterprise": 100_000}


def test_the_plans_are_listed_and_paged(team: TeamSetting) -> None:
    everything = team.viewer.get("/plans").json
    assert everything["next_cursor"] is None
    assert {row["name"]: row["max_members"] for row in everything["items"]} == SEATS
    first = team.viewer.get("/plans?limit=2").json
    rest = team.viewer.get("/plans", query_string={"limit": 2, "cursor": first["next_cursor"]}).json
    assert first["items"] + rest["items"] == everything["items"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("plan", PLANS)
def test_an_admin_changes_the_plan_and_with_it_the_seats(team: TeamSetting, plan: str) -> None:
    path = f"{team.path}/plan"
    refused = team.member.put(path, json={"plan": plan})
    assert (refused.status_code, refused.json["missing"]) == (403, "billing:update")
    assert team.owner.get(team.path).json["plan"] == "pro"
    changed = team.admin.put(path, json={"plan": plan})
    assert (changed.status_code, changed.json["plan"], changed.json["max_members"]) == (
        200,
        plan,
        SEATS[plan],
    )
    assert team.admin.get(team.path).json == changed.json
    assert team.admin.put(path, json={"plan": plan}).json == changed.json  # again: nothing happens


def test_a_plan_that_does_not_exist_is_422(team: TeamSetting) -> None:
    for plan in ("Free", "gold", ""):
        answer = team.owner.put(f"{team.path}/plan", json={"plan": plan})
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["plan"])


def test_a_plan_has_to_seat_who_is_there(team: TeamSetting) -> None:
    """The team has four members; the free plan seats five."""
    people = [make_person(team.owner.app) for _ in range(2)]
    for person in people:
        body = {"user_id": str(person.id), "role": "viewer"}
        assert team.owner.post(f"{team.path}/members", json=body).status_code == 201
    refused = team.owner.put(f"{team.path}/plan", json={"plan": "free"})
    assert (refused.status_code, refused.json["code"]) == (409, "seat_limit_reached")
    assert (refused.json["limit"], refused.json["used"]) == (5, 6)
    assert team.owner.get(team.path).json["plan"] == "pro"
    assert team.owner.delete(f"{team.path}/members/{people[0].id}").status_code == 204
    assert team.owner.put(f"{team.path}/plan", json={"plan": "free"}).status_code == 200


def test_a_plan_is_shown_as_its_book_says(team: TeamSetting) -> None:
    shown = {plan["name"]: plan for plan in team.viewer.get("/plans").json["items"]}
    for plan in BODY["plans"]:
        of_it = shown[plan["name"]]
        assert of_it["base"] == {"amount": int(plan["base"]), "currency": "USD"}
        assert set(of_it["metrics"]) == set(plan["metrics"])
        for metric, terms in plan["metrics"].items():
            price = terms.get("price")
            if price and "tiers" in price:
                tiers = [{"flat_amount": "0", **tier} for tier in price["tiers"]]
                price = {"model": price["model"], "tiers": tiers}
            listed = dict(of_it["metrics"][metric])
            assert listed.pop("unit")
            assert listed == {"included": terms["included"], "limit": terms["limit"], "price": price}


def preview(setting: TeamSetting, plan: str) -> dict[str, Any]:
    answer = setting.admin.get(f"{setting.path}/plan/preview?plan={plan}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json
    return shown


def half_up(amount: Fraction) -> int:
    return int((amount + Fraction(1, 2)) // 1)


def test_a_preview_goes_on_at_the_pace_of_the_month_so_far(team: TeamSetting) -> None:
    now = datetime.now(UTC)
    begins = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    execute(
        "UPDATE plan_periods SET starts_at = :at, ends_at = CASE WHEN ends_at IS NOT NULL THEN CAST(:at AS timestamptz) END"
        " WHERE team_id = :id",
        id=team.id,
        at=begins,
    )
    used = 40_000_000
    events = [{"external_id": uuid7().hex, "metric": "llm_tokens_used", "quantity": used}]
    assert team.owner.post(f"{team.path}/usage", json={"events": events}).status_code == 202
    shown = preview(team, "enterprise")
    at = datetime.fromisoformat(shown["at"])
    assert now <= at <= datetime.now(UTC)
    seconds = calendar.monthrange(now.year, now.month)[1] * 86_400
    elapsed = Fraction(round((at - begins).total_seconds() * 10**6), seconds * 10**6)

    whole = used + used * (1 - elapsed) / max(elapsed, Fraction(86_400, seconds))
    over = max(whole - 50_000_000, Fraction(0))
    low = min(over, Fraction(450_000_000))
    tokens = low * Fraction("0.00004") + (over - low) * Fraction("0.00003")
    by_metric = {line["metric"]: line for line in shown["staying"]["lines"]}
    assert by_metric[None]["amount"] == {"amount": 4900, "currency": "USD"}
    assert by_metric["llm_tokens_used"]["amount"]["amount"] == half_up(tokens)
    assert Fraction(Decimal(by_metric["llm_tokens_used"]["quantity"])) == pytest.approx(whole)

    pro, enterprise = [line for line in shown["changing"]["lines"] if line["metric"] is None]
    assert pro["amount"]["amount"] == half_up(4900 * elapsed)
    assert enterprise["amount"]["amount"] == half_up(99_000 * (1 - elapsed))
    on_pro, on_enterprise = [
        line for line in shown["changing"]["lines"] if line["metric"] == "llm_tokens_used"
    ]
    over = max(used - 50_000_000 * elapsed, Fraction(0))
    assert on_pro["amount"]["amount"] == half_up(over * Fraction("0.00004"))
    over = max(whole - used - 2_000_000_000 * (1 - elapsed), Fraction(0))
    assert on_enterprise["amount"]["amount"] == half_up(over * Fraction("0.00002"))

    for outcome in ("staying", "changing"):
        assert shown[outcome]["total"]["amount"] == sum(
            line["amount"]["amount"] for line in shown[outcome]["lines"]
        )
    assert (
        shown["difference"]["amount"]
        == shown["changing"]["total"]["amount"] - shown["staying"]["total"]["amount"]
    )
    assert (shown["from_plan"], shown["to_plan"], shown["month"]) == (
        "pro",
        "enterprise",
        f"{begins:%Y-%m-%d}",
    )
    assert shown["seats"] == {"used": 4, "limit": 100_000, "fits": True}


def test_what_a_new_team_used_so_far_is_a_days_use_at_the_most(team: TeamSetting) -> None:
    events = [{"external_id": uuid7().hex, "metric": "llm_tokens_used", "quantity": 1_000}]
    assert team.owner.post(f"{team.path}/usage", json={"events": events}).status_code == 202
    shown = preview(team, "enterprise")
    lines = {line["metric"]: line for line in shown["staying"]["lines"]}
    at = datetime.fromisoformat(shown["at"])
    ends = at.replace(day=calendar.monthrange(at.year, at.month)[1], hour=23, minute=59, second=59)
    days_left = (ends - at) / timedelta(days=1)
    quantity = float(lines["llm_tokens_used"]["quantity"])
    assert quantity == pytest.approx(1_000 * (1 + days_left), rel=1e-4)


def test_a_preview_changes_nothing_and_says_who_does_not_fit(team: TeamSetting) -> None:
    for _ in range(2):
        person = make_person(team.owner.app)
        body = {"user_id": str(person.id), "role": "viewer"}
        assert team.owner.post(f"{team.path}/members", json=body).status_code == 201
    assert preview(team, "free")["seats"] == {"used": 6, "limit": 5, "fits": False}
    same = preview(team, "pro")
    assert (same["staying"], same["difference"]["amount"]) == (same["changing"], 0)
    assert team.owner.get(team.path).json["plan"] == "pro"


def test_a_preview_is_for_who_may_see_the_bill(team: TeamSetting) -> None:
    refused = team.member.get(f"{team.path}/plan/preview?plan=free")
    assert (refused.status_code, refused.json["missing"]) == (403, "billing:read")
    for query in ("", "?plan=gold", "?plan=", "?plan=free&plan_=1"):
        assert team.owner.get(f"{team.path}/plan/preview{query}").status_code == 422


def test_a_new_team_has_a_preview(free_team: TeamSetting) -> None:
    answer = free_team.owner.get(f"{free_team.path}/plan/preview?plan=enterprise")
    assert answer.json["staying"]["total"]["amount"] <= 1
    assert answer.json["changing"]["total"]["amount"] <= 99_000
