"""Plans, and the seats that come with them."""

import pytest

from models.plans import PLANS
from tests.factories import TeamSetting, make_person

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
