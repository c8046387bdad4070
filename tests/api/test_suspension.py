"""Suspension: barred on the next request, with seat, role and keys kept until it is lifted."""

import pytest
from flask import Flask

from models.access.permissions import BUILT_IN_ROLES
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    drain,
    invite,
    join,
    make_person,
    make_role,
)


def turn(setting: TeamSetting, by: Person, person: Person, verb: str = "suspend") -> Answer:
    return by.post(f"{setting.path}/members/{person.id}/{verb}")


def test_a_suspended_member_is_barred_until_it_is_lifted(team: TeamSetting) -> None:
    before = team.member.get(team.path).json
    suspended = turn(team, team.admin, team.member)
    assert suspended.status_code == 200
    assert suspended.json["suspended_at"] is not None
    assert team.owner.get(f"{team.path}/members/{team.member.id}").json == suspended.json
    for answer in (
        team.member.get(team.path),
        team.member.patch(team.path, data=b"{"),
        team.member.delete(f"{team.path}/members/{team.viewer.id}"),
    ):
        assert (answer.status_code, answer.json["missing"]) == (403, "membership")
    assert "suspended" in answer.json["detail"]
    assert team.member.get("/teams").json["items"] == []
    lifted = turn(team, team.admin, team.member, "reactivate")
    assert (lifted.status_code, lifted.json["suspended_at"], lifted.json["role"]) == (200, None, "member")
    assert team.member.get(team.path).json == before


def test_a_suspended_member_may_leave(team: TeamSetting) -> None:
    assert turn(team, team.admin, team.member).status_code == 200
    assert team.member.delete(f"{team.path}/members/{team.member.id}").status_code == 204
    assert team.owner.get(f"{team.path}/members/{team.member.id}").status_code == 404


def test_an_account_and_other_teams_go_on(team: TeamSetting) -> None:
    assert turn(team, team.owner, team.member).status_code == 200
    assert team.member.get("/me").status_code == 200
    own = team.member.post("/teams", json={"name": "Own"})
    assert team.member.get(f"/teams/{own.json['id']}").status_code == 200
    assert [row["id"] for row in team.member.get("/teams").json["items"]] == [own.json["id"]]


def test_twice_is_once(team: TeamSetting) -> None:
    first, again = turn(team, team.owner, team.member), turn(team, team.owner, team.member)
    assert first.json == again.json
    assert turn(team, team.owner, team.viewer, "reactivate").json["suspended_at"] is None
    drain()
    rows = team.owner.get(f"{team.path}/activity?resource_type=user&limit=1").json["items"]
    assert [row["action"] for row in rows] == ["member_suspended"]
    events = team.owner.get(f"{team.path}/activity?action=member_suspended&action=member_reactivated").json[
        "items"
    ]
    assert len(events) == 1


def test_who_may_not_suspends_nobody(team: TeamSetting) -> None:
    for by in (team.member, team.viewer):
        for verb in ("suspend", "reactivate"):
            assert turn(team, by, team.viewer, verb).json["missing"] == "members:update"
    assert team.viewer.get(team.path).status_code == 200


def test_the_owner_and_oneself_are_not_suspended(team: TeamSetting) -> None:
    for by in (team.admin, team.owner):
        refused = turn(team, by, team.owner)
        assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    assert turn(team, team.admin, team.admin).status_code == 409
    assert team.admin.get(team.path).status_code == 200


@pytest.mark.parametrize("verb", ["suspend", "reactivate"])
def test_nobody_takes_from_who_has_more(team: TeamSetting, verb: str) -> None:
    """Pitfall: the target's role is looked at, and not the caller's."""
    make_role(team, "recruiter", *BUILT_IN_ROLES["viewer"], "members:update")
    recruiter = join(team, "recruiter")
    for above in (team.admin, team.member):
        assert turn(team, recruiter, above, verb).status_code == 403
        assert team.owner.get(f"{team.path}/members/{above.id}").json["suspended_at"] is None
    assert turn(team, recruiter, team.viewer, verb).status_code == 200


def test_a_suspended_admin_can_not_lift_it(team: TeamSetting) -> None:
    assert turn(team, team.owner, team.admin).status_code == 200
    assert turn(team, team.admin, team.admin, "reactivate").json["missing"] == "membership"


def test_a_seat_is_kept(free_team: TeamSetting, app: Flask) -> None:
    people = [join(free_team, "viewer") for _ in range(4)]
    assert turn(free_team, free_team.owner, people[0]).status_code == 200
    body = {"user_id": str(make_person(app).id), "role": "viewer"}
    full = free_team.owner.post(f"{free_team.path}/members", json=body)
    assert (full.status_code, full.json["code"]) == (409, "seat_limit_reached")
    assert turn(free_team, free_team.owner, people[0], "reactivate").status_code == 200


def test_a_suspended_member_is_changed_and_removed_as_any(team: TeamSetting) -> None:
    assert turn(team, team.owner, team.member).status_code == 200
    path = f"{team.path}/members/{team.member.id}"
    changed = team.owner.patch(path, json={"role": "viewer"})
    assert (changed.json["role"], changed.json["suspended_at"] is None) == ("viewer", False)
    assert team.member.get(team.path).json["missing"] == "membership"
    assert team.owner.delete(path).status_code == 204
    assert team.member.get(team.path).status_code == 404


def test_the_team_is_not_handed_to_one(team: TeamSetting) -> None:
    assert turn(team, team.owner, team.admin).status_code == 200
    handed = team.owner.post(f"{team.path}/transfer-ownership", json={"user_id": str(team.admin.id)})
    assert (handed.status_code, handed.json["code"]) == (409, "conflict")
    assert team.owner.get(team.path).json["owner_id"] == str(team.owner.id)


def test_an_invitation_does_not_lift_it(team: TeamSetting) -> None:
    assert turn(team, team.owner, team.member).status_code == 200
    body = {"email": team.member.email, "role": "member"}
    assert team.owner.post(f"{team.path}/invitations", json=body).status_code == 409
    added = team.owner.post(f"{team.path}/members", json=body)
    assert (added.status_code, added.json["code"]) == (409, "conflict")
    assert team.member.get(team.path).json["missing"] == "membership"


def test_what_they_invited_waits_for_another_inviter(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = invite(team, person.email, by=team.admin)
    assert turn(team, team.owner, team.admin).status_code == 200
    assert person.post("/invitations/accept", json={"token": made["token"]}).status_code == 409
    assert turn(team, team.owner, team.admin, "reactivate").status_code == 200
    assert person.post("/invitations/accept", json={"token": made["token"]}).status_code == 200


def test_a_stale_suspension_suspends_nobody(team: TeamSetting) -> None:
    path = f"{team.path}/members/{team.member.id}"
    stale = team.owner.get(path).headers["ETag"]
    assert team.owner.patch(path, json={"role": "viewer"}).status_code == 200
    refused = team.owner.post(f"{path}/suspend", headers={"If-Match": stale})
    assert refused.status_code == 412
    assert team.member.get(team.path).status_code == 200
