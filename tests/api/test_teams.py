"""Teams: making, renaming, handing over, deleting."""

from flask import Flask
from sqlalchemy import select

from models.database import transaction
from models.tables import ActivityLog, Team
from tests.factories import Answer, Person, TeamSetting, drain, execute, make_key, make_person, make_team

FIELDS = {
    "id", "name", "owner_id", "plan", "max_members", "two_factor_required", "role", "created_at", "updated_at",
    "deleted_at", "retention_days", "retention_days_in_force", "retention_shortens_at", "legal_hold_reason",
    "legal_hold_placed_at",
}  # fmt: skip


def test_who_makes_a_team_owns_it(app: Flask) -> None:
    person = make_person(app)
    made = person.post("/teams", json={"name": "  Research & Ödland  "})
    assert made.status_code == 201
    assert set(made.json) == FIELDS
    assert (made.json["name"], made.json["plan"], made.json["max_members"], made.json["role"]) == (
        "Research & Ödland",
        "free",
        5,
        "admin",
    )
    assert made.json["owner_id"] == str(person.id)
    assert person.get(f"/teams/{made.json['id']}").json == made.json
    (member,) = person.get(f"/teams/{made.json['id']}/members").json["items"]
    assert (member["user"]["id"], member["role"]) == (str(person.id), "admin")


def test_a_name_need_not_be_unique(app: Flask) -> None:
    person = make_person(app)
    ids = {person.post("/teams", json={"name": "Same"}).json["id"] for _ in range(2)}
    assert len(ids) == 2


def test_one_sees_ones_own_teams_with_ones_role(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, owner=team.viewer, roles=())
    listed = team.viewer.get("/teams").json["items"]
    assert [(row["id"], row["role"]) for row in listed] == [
        (str(team.id), "viewer"),
        (str(other.id), "admin"),
    ]
    assert [row["id"] for row in team.member.get("/teams").json["items"]] == [str(team.id)]
    assert make_person(app).get("/teams").json == {"items": [], "next_cursor": None}


def test_the_teams_are_paged(app: Flask) -> None:
    person = make_person(app)
    ids = [person.post("/teams", json={"name": str(number)}).json["id"] for number in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = person.get("/teams", query_string=query).json
        seen += [row["id"] for row in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
        assert len(page["items"]) == 2
    assert seen == ids


def test_an_admin_renames_the_team_and_a_member_does_not(team: TeamSetting) -> None:
    before = team.owner.get(team.path).json
    refused = team.member.patch(team.path, json={"name": "Renamed"})
    assert (refused.status_code, refused.json["missing"]) == (403, "teams:update")
    renamed = team.admin.patch(team.path, json={"name": "Renamed"})
    assert (renamed.status_code, renamed.json["name"]) == (200, "Renamed")
    assert renamed.json["updated_at"] > before["updated_at"]
    assert team.viewer.get(team.path).json == {**renamed.json, "role": "viewer"}


def test_the_same_name_changes_nothing(team: TeamSetting) -> None:
    before = team.owner.get(team.path).json
    assert team.owner.patch(team.path, json={"name": before["name"]}).json == before
    drain()
    assert team.owner.get(f"{team.path}/activity?action=team_updated").json["items"] == []


def test_the_owner_alone_deletes_the_team(team: TeamSetting) -> None:
    refused = team.admin.delete(team.path)
    assert (refused.status_code, refused.json["missing"]) == (403, "owner")
    deleted = team.owner.delete(team.path)
    assert (deleted.status_code, deleted.data) == (204, b"")
    for person in (team.owner, team.admin, team.viewer):
        assert person.get(team.path).status_code == 404
        assert str(team.id) not in [row["id"] for row in person.get("/teams").json["items"]]
    assert team.owner.delete(team.path).status_code == 404


def test_a_deleted_teams_log_outlives_it(team: TeamSetting) -> None:
    assert team.owner.delete(team.path).status_code == 204
    drain()
    with transaction() as session:
        deleted_at = session.scalar(select(Team.deleted_at).where(Team.id == team.id))
        of_team = select(ActivityLog.action).where(ActivityLog.team_id == team.id).order_by(ActivityLog.seq)
        logged = list(session.scalars(of_team))
    assert deleted_at is not None
    assert (logged[0], logged[-1]) == ("team_created", "team_deleted")


def test_the_owner_alone_hands_the_team_over(team: TeamSetting) -> None:
    path, to_viewer = f"{team.path}/transfer-ownership", {"user_id": str(team.viewer.id)}
    refused = team.admin.post(path, json=to_viewer)
    assert (refused.status_code, refused.json["missing"]) == (403, "owner")
    handed = team.owner.post(path, json=to_viewer)
    assert (handed.status_code, handed.json["owner_id"]) == (200, str(team.viewer.id))
    assert set(handed.json) == FIELDS
    roles = {row["user"]["id"]: row["role"] for row in team.owner.get(f"{team.path}/members").json["items"]}
    assert (roles[str(team.viewer.id)], roles[str(team.owner.id)]) == ("admin", "admin")
    assert team.owner.post(path, json=to_viewer).json["missing"] == "owner"
    assert team.viewer.delete(team.path).status_code == 204


def test_a_team_is_handed_to_another_member(app: Flask, team: TeamSetting) -> None:
    path = f"{team.path}/transfer-ownership"
    assert team.owner.post(path, json={"user_id": str(make_person(app).id)}).status_code == 404
    same = team.owner.post(path, json={"user_id": str(team.owner.id)})
    assert (same.status_code, same.json["code"]) == (409, "conflict")
    assert team.owner.get(team.path).json["owner_id"] == str(team.owner.id)
    assert team.owner.post(path, json={"user_id": str(team.admin.id)}).status_code == 200


def require_second_factor(setting: TeamSetting, by: Person, required: bool = True) -> Answer:
    return by.patch(setting.path, json={"two_factor_required": required})


def test_a_second_factor_is_asked_for_by_who_has_one(team: TeamSetting) -> None:
    assert team.owner.get(team.path).json["two_factor_required"] is False
    refused = require_second_factor(team, team.admin)
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    team.admin.set_up_second_factor(confirmed=False)
    assert require_second_factor(team, team.admin).status_code == 409  # begun is not confirmed
    assert team.viewer.get(team.path).status_code == 200
    execute("UPDATE second_factors SET confirmed_at = now() WHERE user_id = :id", id=team.admin.id)
    asked = require_second_factor(team, team.admin)
    assert (asked.status_code, asked.json["two_factor_required"]) == (200, True)
    team.viewer.set_up_second_factor()
    assert team.viewer.get(team.path).json["two_factor_required"] is True
    assert require_second_factor(team, team.viewer, required=False).json["missing"] == "teams:update"
    barred = [person.get(team.path) for person in (team.owner, team.member)]
    assert [(answer.status_code, answer.json["missing"]) for answer in barred] == [(403, "two_factor")] * 2
    assert "/me/two-factor" in barred[0].json["detail"]
    assert require_second_factor(team, team.admin, required=False).status_code == 200
    assert team.member.get(team.path).status_code == 200
    drain()
    rows = team.owner.get(f"{team.path}/activity?action=team_updated").json["items"]
    assert [row["metadata"]["changes"]["two_factor_required"] for row in rows] == [
        [True, False],
        [False, True],
    ]


def test_who_lost_their_second_factor_is_barred_on_the_next_request(team: TeamSetting) -> None:
    team.owner.set_up_second_factor()
    team.member.set_up_second_factor()
    assert require_second_factor(team, team.owner).status_code == 200
    assert team.member.get(team.path).status_code == 200
    execute("DELETE FROM second_factors WHERE user_id = :id", id=team.member.id)
    assert team.member.get(team.path).json["missing"] == "two_factor"
    assert [row["id"] for row in team.member.get("/teams").json["items"]] == [str(team.id)]


def test_a_key_stands_on_its_makers_second_factor(team: TeamSetting) -> None:
    key = make_key(team, team.admin, "teams:read")
    team.owner.set_up_second_factor()
    assert require_second_factor(team, team.owner).status_code == 200
    assert key.get(team.path).json["missing"] == "two_factor"
    team.admin.set_up_second_factor()
    assert key.get(team.path).status_code == 200
