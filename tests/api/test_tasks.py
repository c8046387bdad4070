"""Tasks: making, changing, and the states that an agent takes them through."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import update

from models.database import transaction
from models.errors import NotFound
from models.tables import Task
from tests.factories import Answer, TeamSetting, make_person, make_team

FIELDS = {
    "id", "team_id", "workspace_id", "title", "prompt", "type", "status", "assignee_id", "result", "error",
    "llm_tokens_used", "attempts", "agent_id", "lease_expires_at", "created_by", "created_at", "updated_at",
}  # fmt: skip
VERBS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "start": ("processing", None),
    "complete": ("completed", {"result": "done"}),
    "fail": ("failed", {"error": "no luck"}),
    "cancel": ("cancelled", None),
}
WAYS = {
    "pending": [],
    "processing": ["start"],
    "completed": ["start", "complete"],
    "failed": ["start", "fail"],
    "cancelled": ["cancel"],
}
ALLOWED = {
    ("pending", "start"),
    ("pending", "cancel"),
    ("processing", "complete"),
    ("processing", "fail"),
    ("processing", "cancel"),
}


def test_an_agent_starts_and_completes_a_task(team: TeamSetting) -> None:
    task = team.task(title="Write", prompt="about tides")
    assert (task["status"], task["llm_tokens_used"], task["result"]) == ("pending", 0, None)

    started = team.member.post(f"{team.path}/tasks/{task['id']}/start")
    assert (started.status_code, started.json["status"]) == (200, "processing")
    assert (started.json["attempts"], started.json["agent_id"], started.json["lease_expires_at"]) == (
        1,
        None,
        None,
    )

    done = team.member.post(
        f"{team.path}/tasks/{task['id']}/complete",
        json={"result": {"words": [1, None, "x"]}, "llm_tokens_used": 42},
    )
    assert (done.status_code, done.json["status"]) == (200, "completed")
    assert (done.json["result"], done.json["llm_tokens_used"]) == ({"words": [1, None, "x"]}, 42)
    assert team.viewer.get(f"{team.path}/tasks/{task['id']}").json == done.json


def move(setting: TeamSetting, task_id: str, verb: str) -> Answer:
    return setting.member.post(f"{setting.path}/tasks/{task_id}/{verb}", json=VERBS[verb][1])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", WAYS)
def test_each_state_leads_where_it_may_and_nowhere_else(shared: TeamSetting, state: str, verb: str) -> None:
    task = shared.task()
    for step in WAYS[state]:
        assert move(shared, task["id"], step).status_code == 200
    before = shared.viewer.get(f"{shared.path}/tasks/{task['id']}").json
    assert before["status"] == state

    answer = move(shared, task["id"], verb)
    after = shared.viewer.get(f"{shared.path}/tasks/{task['id']}").json
    if (state, verb) in ALLOWED:
        assert (answer.status_code, answer.json) == (200, after)
        assert after["status"] == VERBS[verb][0]
        assert after["updated_at"] > before["updated_at"]
    else:
        assert (answer.status_code, answer.json["code"]) == (409, "conflict")
        assert answer.json["task_status"] == state
        assert after == before


def test_a_task_has_its_fields_and_defaults(team: TeamSetting) -> None:
    task = team.task(title=" Write ", prompt=" as it is ", type="text", assignee_id=str(team.viewer.id))
    assert set(task) >= FIELDS
    assert (task["title"], task["prompt"], task["type"]) == ("Write", " as it is ", "text")
    assert (task["assignee_id"], task["created_by"]) == (str(team.viewer.id), str(team.owner.id))
    assert (task["team_id"], task["workspace_id"]) == (str(team.id), str(team.workspace_id))
    bare = team.task()
    assert (bare["prompt"], bare["type"], bare["assignee_id"], bare["error"]) == (None, "general", None, None)
    assert (bare["attempts"], bare["agent_id"], bare["lease_expires_at"]) == (0, None, None)


def test_a_member_makes_changes_and_deletes_a_task_and_a_viewer_reads_it(team: TeamSetting) -> None:
    tasks = f"{team.path}/workspaces/{team.workspace_id}/tasks"
    assert team.viewer.post(tasks, json={"title": "A"}).json["missing"] == "tasks:create"
    made = team.member.post(tasks, json={"title": "A"})
    assert made.status_code == 201
    path = f"{team.path}/tasks/{made.json['id']}"

    assert team.viewer.patch(path, json={"title": "B"}).json["missing"] == "tasks:update"
    changed = team.member.patch(path, json={"title": "B", "prompt": ""})
    assert (changed.status_code, changed.json["title"], changed.json["prompt"]) == (200, "B", "")
    assert team.viewer.get(path).json == changed.json
    assert team.member.patch(path, json={}).json == changed.json
    assert team.member.patch(path, json={"status": "completed"}).status_code == 422

    assert team.viewer.delete(path).json["missing"] == "tasks:delete"
    assert team.member.delete(path).status_code == 204
    assert team.viewer.get(path).status_code == 404
    assert team.member.delete(path).status_code == 404


@pytest.mark.parametrize("verb", VERBS)
def test_a_viewer_moves_no_task(shared: TeamSetting, verb: str) -> None:
    task = shared.task()
    for step in WAYS["pending" if verb in {"start", "cancel"} else "processing"]:
        assert move(shared, task["id"], step).status_code == 200
    refused = shared.viewer.post(f"{shared.path}/tasks/{task['id']}/{verb}", json=VERBS[verb][1])
    assert (refused.status_code, refused.json["missing"]) == (403, "tasks:update")
    assert move(shared, task["id"], verb).status_code == 200


def test_a_failed_task_says_why(team: TeamSetting) -> None:
    task = team.task()
    assert move(team, task["id"], "start").status_code == 200
    failed = move(team, task["id"], "fail")
    assert (failed.json["status"], failed.json["error"], failed.json["result"]) == ("failed", "no luck", None)


def test_completing_needs_neither_result_nor_tokens(team: TeamSetting) -> None:
    task = team.task()
    assert move(team, task["id"], "start").status_code == 200
    done = team.member.post(f"{team.path}/tasks/{task['id']}/complete", json={})
    assert (done.status_code, done.json["result"], done.json["llm_tokens_used"]) == (200, None, 0)


@pytest.mark.parametrize(("tokens", "status"), [(-1, 422), (0, 200), (2**63 - 1, 200), (2**63, 422)])
def test_tokens_are_a_count_that_fits(team: TeamSetting, tokens: int, status: int) -> None:
    task = team.task()
    assert move(team, task["id"], "start").status_code == 200
    done = team.member.post(f"{team.path}/tasks/{task['id']}/complete", json={"llm_tokens_used": tokens})
    assert done.status_code == status
    shown = team.viewer.get(f"{team.path}/tasks/{task['id']}").json
    assert shown["llm_tokens_used"] == (tokens if status == 200 else 0)


def test_the_assignee_is_a_member(app: Flask, team: TeamSetting) -> None:
    stranger, task = make_person(app), team.task()
    path = f"{team.path}/tasks/{task['id']}"
    for person, status in ((stranger, 422), (team.viewer, 200)):
        changed = team.member.patch(path, json={"assignee_id": str(person.id)})
        made = team.member.post(
            f"{team.path}/workspaces/{team.workspace_id}/tasks",
            json={"title": "A", "assignee_id": str(person.id)},
        )
        assert (changed.status_code, made.status_code) == (status, 201 if status == 200 else 422)
        for answer in (changed, made):
            if status == 422:
                assert list(answer.json["errors"]) == ["assignee_id"]
    assert team.member.patch(path, json={"assignee_id": None}).json["assignee_id"] is None


@pytest.mark.parametrize("how", ["leaves", "is removed"])
def test_who_goes_keeps_nothing_assigned(team: TeamSetting, how: str) -> None:
    task, other = (team.task(assignee_id=str(person.id)) for person in (team.viewer, team.member))
    caller = team.viewer if how == "leaves" else team.admin
    assert caller.delete(f"{team.path}/members/{team.viewer.id}").status_code == 204
    left = team.member.get(f"{team.path}/tasks/{task['id']}").json
    assert (left["assignee_id"], left["team_id"], left["title"]) == (None, str(team.id), task["title"])
    kept = team.member.get(f"{team.path}/tasks/{other['id']}").json
    assert kept["assignee_id"] == str(team.member.id)


def test_tasks_are_listed_newest_first_and_filtered(team: TeamSetting) -> None:
    path = f"{team.path}/workspaces/{team.workspace_id}/tasks"
    tasks = [team.task(title=str(number)) for number in range(5)]
    assert move(team, tasks[1]["id"], "start").status_code == 200
    assert (
        team.member.patch(
            f"{team.path}/tasks/{tasks[3]['id']}", json={"assignee_id": str(team.viewer.id)}
        ).status_code
        == 200
    )
    first = team.viewer.get(path, query_string={"limit": 3}).json
    rest = team.viewer.get(path, query_string={"limit": 3, "cursor": first["next_cursor"]}).json
    assert [row["title"] for row in first["items"]] == ["4", "3", "2"]
    assert ([row["title"] for row in rest["items"]], rest["next_cursor"]) == (["1", "0"], None)
    for query, titles in (({"status": "processing"}, ["1"]), ({"assignee_id": str(team.viewer.id)}, ["3"])):
        found = team.viewer.get(path, query_string=query).json["items"]
        assert [row["title"] for row in found] == titles


def test_another_teams_task_is_404_even_to_who_is_in_both(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, owner=team.owner, roles=())
    task = other.task()
    path = f"{team.path}/tasks/{task['id']}"
    assert team.owner.get(path).status_code == 404
    assert team.owner.patch(path, json={"title": "Mine"}).status_code == 404
    assert team.owner.delete(path).status_code == 404
    for verb in VERBS:
        assert team.owner.post(f"{path}/{verb}", json=VERBS[verb][1]).status_code == 404
    assert team.owner.get(f"{other.path}/tasks/{task['id']}").json == task


def test_the_database_keeps_a_task_in_its_own_teams_workspace(app: Flask, team: TeamSetting) -> None:
    """Should a check in Python ever be forgotten."""
    other, task = make_team(app, owner=team.owner, roles=()), team.task()
    with pytest.raises(NotFound), transaction() as session:
        session.execute(
            update(Task).where(Task.id == UUID(task["id"])).values(workspace_id=other.workspace_id)
        )
    assert team.owner.get(f"{team.path}/tasks/{task['id']}").json == task


def test_of_many_agents_that_start_a_task_one_gets_it(app: Flask, team: TeamSetting) -> None:
    task = team.task()

    def start(_: int) -> int:
        client = app.test_client()
        path = f"/api/v1{team.path}/tasks/{task['id']}/start"
        return client.post(path, headers={"Authorization": f"Bearer {team.member.token}"}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(start, range(4))) == [200, 409, 409, 409]
