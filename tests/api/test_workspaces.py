"""Workspaces: making, changing, listing, deleting."""

from flask import Flask

from tests.factories import TeamSetting, make_team


def test_a_member_makes_and_changes_a_workspace_and_a_viewer_reads_it(team: TeamSetting) -> None:
    path = f"{team.path}/workspaces"
    body = {"name": " Answers ", "description": "What we say"}
    assert team.viewer.post(path, json=body).json["missing"] == "workspaces:create"
    made = team.member.post(path, json=body)
    assert made.status_code == 201
    assert set(made.json) == {
        "id", "team_id", "name", "description", "visibility", "created_by", "created_at", "updated_at",
    }  # fmt: skip
    assert (made.json["name"], made.json["description"], made.json["created_by"]) == (
        "Answers",
        "What we say",
        str(team.member.id),
    )
    one = f"{path}/{made.json['id']}"
    assert team.viewer.get(one).json == made.json

    assert team.viewer.patch(one, json={"name": "Other"}).json["missing"] == "workspaces:update"
    changed = team.member.patch(one, json={"description": None})
    assert (changed.status_code, changed.json["description"], changed.json["name"]) == (200, None, "Answers")
    assert changed.json["updated_at"] > made.json["updated_at"]
    assert team.viewer.get(one).json == changed.json
    assert team.member.patch(one, json={}).json == changed.json


def test_a_description_may_be_absent_or_empty(team: TeamSetting) -> None:
    path = f"{team.path}/workspaces"
    assert team.owner.post(path, json={"name": "A"}).json["description"] is None
    assert team.owner.post(path, json={"name": "A", "description": ""}).json["description"] == ""


def test_an_admin_deletes_a_workspace_with_its_tasks(team: TeamSetting) -> None:
    task, path = team.task(), f"{team.path}/workspaces/{team.workspace_id}"
    assert team.member.delete(path).json["missing"] == "workspaces:delete"
    assert team.member.get(f"{team.path}/tasks/{task['id']}").status_code == 200
    assert team.admin.delete(path).status_code == 204
    for gone in (path, f"{path}/tasks", f"{team.path}/tasks/{task['id']}"):
        assert team.owner.get(gone).status_code == 404
    assert team.admin.delete(path).status_code == 404


def test_workspaces_are_listed_page_by_page(app: Flask, team: TeamSetting) -> None:
    path = f"{team.path}/workspaces"
    ids = [str(team.workspace_id)]
    ids += [team.owner.post(path, json={"name": str(number)}).json["id"] for number in range(3)]
    make_team(app, owner=team.owner, roles=())  # whose workspace is not listed
    first = team.viewer.get(path, query_string={"limit": 3}).json
    rest = team.viewer.get(path, query_string={"limit": 3, "cursor": first["next_cursor"]}).json
    assert [row["id"] for row in first["items"]] == ids[:3]
    assert ([row["id"] for row in rest["items"]], rest["next_cursor"]) == (ids[3:], None)


def test_another_teams_workspace_is_404_even_to_who_is_in_both(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, owner=team.owner, roles=())
    foreign = f"{team.path}/workspaces/{other.workspace_id}"
    assert team.owner.get(foreign).status_code == 404
    assert team.owner.patch(foreign, json={"name": "Mine"}).status_code == 404
    assert team.owner.delete(foreign).status_code == 404
    assert team.owner.get(f"{foreign}/tasks").status_code == 404
    assert team.owner.post(f"{foreign}/tasks", json={"title": "Astray"}).status_code == 404
    own = f"{other.path}/workspaces/{other.workspace_id}"
    assert team.owner.get(own).json["name"] == "Research"
    assert team.owner.get(f"{own}/tasks").json["items"] == []
