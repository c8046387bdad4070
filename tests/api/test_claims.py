"""Agents take work under a lease, keep it by heartbeats, and report under it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from sqlalchemy import text

from models.database import transaction
from tests.factories import Answer, Person, TeamSetting, make_person, make_team

REPORTS: dict[str, dict[str, Any]] = {"complete": {"result": "done"}, "fail": {"error": "no luck"}}
ENDED = {"complete": "completed", "fail": "failed"}


def path_of_claims(team: TeamSetting) -> str:
    return f"{team.path}/workspaces/{team.workspace_id}/tasks/claim"


def claim(team: TeamSetting, by: Person | None = None, **body: Any) -> Answer:
    return (by or team.member).post(path_of_claims(team), json=body)


def claimed(team: TeamSetting, by: Person | None = None, **body: Any) -> dict[str, Any]:
    answer = claim(team, by, **body)
    assert answer.status_code == 200, answer.text
    task: dict[str, Any] = answer.json
    return task


def tell(team: TeamSetting, task: dict[str, Any], verb: str, **body: Any) -> Answer:
    return team.member.post(f"{team.path}/tasks/{task['id']}/{verb}", json=body)


def shown(team: TeamSetting, task: dict[str, Any]) -> Any:
    return team.viewer.get(f"{team.path}/tasks/{task['id']}").json


def let_run_out(task: dict[str, Any], at: str = "now()") -> None:
    """The task's lease runs out at a moment, given as SQL."""
    with transaction() as session:
        session.execute(
            text(f"UPDATE tasks SET lease_expires_at = {at} WHERE id = :id"),
            {"id": UUID(task["id"])},
        )


def lasts(task: dict[str, Any]) -> timedelta:
    expires: datetime = datetime.fromisoformat(task["lease_expires_at"])
    return expires - datetime.now(UTC)


@pytest.fixture
def agent(team: TeamSetting) -> Person:
    """An agent with a key, acting for the owner."""
    made = team.owner.post(f"{team.path}/agents", json={"name": "Robin", "role": "member"})
    assert made.status_code == 201, made.text
    key = team.owner.post(
        f"{team.path}/api-keys",
        json={
            "name": "Robin's",
            "permissions": ["tasks:read", "tasks:update"],
            "agent_id": made.json["id"],
        },
    )
    assert key.status_code == 201, key.text
    return Person(team.owner.app, UUID(made.json["id"]), "", "Robin", key.json["key"])


def test_an_agent_claims_beats_and_completes(team: TeamSetting, agent: Person) -> None:
    made = team.task(title="Write", prompt="about tides")
    task = claimed(team, agent)
    assert (task["id"], task["title"], task["prompt"]) == (made["id"], "Write", "about tides")
    assert (task["status"], task["attempts"], task["agent_id"]) == ("processing", 1, str(agent.id))
    assert timedelta(seconds=50) < lasts(task) <= timedelta(seconds=60)
    # Everyone sees the lease but for its id.
    assert shown(team, made) == {name: value for name, value in task.items() if name != "lease_id"}

    path = f"{team.path}/tasks/{task['id']}"
    beat = agent.post(f"{path}/heartbeat", json={"lease_id": task["lease_id"], "lease_s": 600})
    assert beat.status_code == 200
    assert timedelta(seconds=590) < lasts(beat.json) <= timedelta(seconds=600)
    assert beat.json == {**task, "lease_expires_at": beat.json["lease_expires_at"]}

    body = {"lease_id": task["lease_id"], "result": [1], "llm_tokens_used": 7}
    done = agent.post(f"{path}/complete", json=body)
    assert (done.status_code, done.json["status"], done.json["result"]) == (200, "completed", [1])
    assert (done.json["lease_expires_at"], done.json["agent_id"], done.json["attempts"]) == (
        None,
        str(agent.id),
        1,
    )
    assert "lease_id" not in done.json
    assert shown(team, made) == done.json
    assert agent.post(f"{path}/complete", json=body).status_code == 409


def test_a_claim_names_the_agent_and_the_person_in_the_log(team: TeamSetting, agent: Person) -> None:
    task = team.task()
    claimed(team, agent)
    with transaction() as session:
        row = session.execute(
            text("SELECT * FROM outbox WHERE resource_id = :id ORDER BY id DESC LIMIT 1"),
            {"id": UUID(task["id"])},
        ).one()
    assert (row.action, row.user_id, row.agent_id) == ("task_started", team.owner.id, agent.id)


def test_an_agent_that_is_deleted_leaves_its_task(team: TeamSetting, agent: Person) -> None:
    task = team.task()
    lease_id = claimed(team, agent)["lease_id"]
    assert team.owner.delete(f"{team.path}/agents/{agent.id}").status_code == 204
    assert (
        agent.post(f"{team.path}/tasks/{task['id']}/complete", json={"lease_id": lease_id}).status_code == 401
    )
    assert (shown(team, task)["status"], shown(team, task)["agent_id"]) == ("processing", None)
    let_run_out(task)
    again = claimed(team)
    assert (again["id"], again["agent_id"], again["attempts"]) == (task["id"], None, 2)


def test_nothing_to_take_is_204(team: TeamSetting) -> None:
    nothing = claim(team)
    assert (nothing.status_code, nothing.data) == (204, b"")
    task = team.task()
    assert claimed(team)["id"] == task["id"]
    assert claim(team).status_code == 204
    team.task(assignee_id=str(team.viewer.id))
    assert claim(team).status_code == 204


def test_a_body_is_needed_and_may_be_empty(team: TeamSetting) -> None:
    task = team.task()
    for data in (b"", b"[]", b"null"):
        refused = team.member.post(path_of_claims(team), data=data)
        assert (refused.status_code, list(refused.json["errors"])) == (422, ["_body"])
    assert shown(team, task)["status"] == "pending"
    assert team.member.post(path_of_claims(team), data=b"{}").json["id"] == task["id"]


def test_a_viewer_claims_nothing_and_keeps_nothing(team: TeamSetting) -> None:
    task = team.task()
    assert claim(team, team.viewer).json["missing"] == "tasks:update"
    lease_id = claimed(team)["lease_id"]
    beat = team.viewer.post(f"{team.path}/tasks/{task['id']}/heartbeat", json={"lease_id": lease_id})
    assert (beat.status_code, beat.json["missing"]) == (403, "tasks:update")
    assert tell(team, task, "heartbeat", lease_id=lease_id).status_code == 200


def test_a_stranger_and_another_team_find_nothing(app: Flask, team: TeamSetting) -> None:
    task, other, stranger = team.task(), make_team(app, owner=team.owner, roles=()), make_person(app)
    assert claim(team, stranger).status_code == 404
    foreign = f"{other.path}/workspaces/{team.workspace_id}/tasks/claim"
    assert team.owner.post(foreign, json={}).status_code == 404
    unknown = f"{team.path}/workspaces/{uuid4()}/tasks/claim"
    assert team.owner.post(unknown, json={}).status_code == 404
    lease_id = claimed(team, team.owner)["lease_id"]
    for caller, path in ((stranger, team.path), (team.owner, other.path)):
        beat = caller.post(f"{path}/tasks/{task['id']}/heartbeat", json={"lease_id": lease_id})
        assert beat.status_code == 404


def test_a_hidden_workspace_has_nothing_to_claim(team: TeamSetting) -> None:
    task = team.task()
    with transaction() as session:
        session.execute(
            text("UPDATE workspaces SET visibility = 'private' WHERE id = :id"), {"id": team.workspace_id}
        )
    assert claim(team).status_code == 404
    assert claim(team, team.admin).status_code == 404
    assert claimed(team, team.owner)["id"] == task["id"]


@pytest.mark.parametrize(
    ("lease_s", "fits"),
    [
        (0, False),
        (1, True),
        (3600, True),
        (3601, False),
        (-1, False),
        ("60", False),
        (1.5, False),
        (None, False),
    ],
)
def test_how_long_a_lease_may_be(team: TeamSetting, lease_s: Any, fits: bool) -> None:
    task = team.task()
    answer = claim(team, lease_s=lease_s)
    if fits:
        assert answer.status_code == 200
        assert timedelta(seconds=lease_s - 10) < lasts(answer.json) <= timedelta(seconds=lease_s)
        return
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["lease_s"])
    before = {**claimed(team), "id": task["id"]}
    beat = tell(team, task, "heartbeat", lease_id=before["lease_id"], lease_s=lease_s)
    assert (beat.status_code, list(beat.json["errors"])) == (422, ["lease_s"])
    assert shown(team, task)["lease_expires_at"] == before["lease_expires_at"]


@pytest.mark.parametrize("lease_s", [1, 3600])
def test_how_long_a_heartbeat_may_reach(team: TeamSetting, lease_s: int) -> None:
    task = team.task()
    lease_id = claimed(team)["lease_id"]
    beat = tell(team, task, "heartbeat", lease_id=lease_id, lease_s=lease_s)
    assert beat.status_code == 200
    assert timedelta(seconds=lease_s - 10) < lasts(beat.json) <= timedelta(seconds=lease_s)


@pytest.mark.parametrize(
    ("types", "status"),
    [
        (["text"], 200),
        (["code", "text"], 200),
        (["code"], 204),
        (["x" * 50], 204),
        (["text"] * 100, 200),
        ([], 422),
        ("text", 422),
        (None, 422),
        ([None], 422),
        ([1], 422),
        ([""], 422),
        (["x" * 51], 422),
        (["a\x00"], 422),
        (["text"] * 101, 422),
    ],
)
def test_types(team: TeamSetting, types: Any, status: int) -> None:
    task = team.task(type="text")
    answer = claim(team, types=types)
    assert answer.status_code == status
    if status == 422:
        assert list(answer.json["errors"]) == ["types"]
    assert shown(team, task)["status"] == ("processing" if status == 200 else "pending")


def test_a_claim_takes_the_oldest_that_is_nobodys_or_ones_own(team: TeamSetting) -> None:
    team.task(assignee_id=str(team.viewer.id))
    mine = team.task(assignee_id=str(team.member.id))
    anyones = team.task()
    assert [claimed(team)["id"], claimed(team)["id"]] == [mine["id"], anyones["id"]]
    assert claim(team).status_code == 204


@pytest.mark.parametrize("verb", REPORTS)
def test_a_claimed_task_is_reported_on_under_its_lease_alone(team: TeamSetting, verb: str) -> None:
    task = team.task()
    lease_id = claimed(team)["lease_id"]
    before = shown(team, task)
    for wrong in ({}, {"lease_id": str(uuid4())}):
        refused = tell(team, task, verb, **REPORTS[verb], **wrong)
        assert (refused.status_code, refused.json["code"], refused.json["task_status"]) == (
            409,
            "conflict",
            "processing",
        )
        assert shown(team, task) == before
    for malformed in ("x", None, 1):
        refused = tell(team, task, verb, **REPORTS[verb], lease_id=malformed)
        assert (refused.status_code, list(refused.json["errors"])) == (422, ["lease_id"])
    done = tell(team, task, verb, **REPORTS[verb], lease_id=lease_id)
    assert (done.status_code, done.json["status"]) == (200, ENDED[verb])


@pytest.mark.parametrize("verb", REPORTS)
def test_a_started_task_is_reported_on_without_a_lease(team: TeamSetting, verb: str) -> None:
    task = team.task()
    assert team.member.post(f"{team.path}/tasks/{task['id']}/start").json["attempts"] == 1
    for call, body in ((verb, REPORTS[verb]), ("heartbeat", {})):
        assert tell(team, task, call, **body, lease_id=str(uuid4())).status_code == 409
    assert claim(team).status_code == 204
    done = tell(team, task, verb, **REPORTS[verb])
    assert (done.status_code, done.json["status"]) == (200, ENDED[verb])


def test_a_started_task_shows_which_agent_is_at_it(team: TeamSetting, agent: Person) -> None:
    task = team.task()
    started = agent.post(f"{team.path}/tasks/{task['id']}/start")
    assert (started.status_code, started.json["agent_id"], started.json["attempts"]) == (
        200,
        str(agent.id),
        1,
    )


@pytest.mark.parametrize(
    ("at", "holds"),
    [("now() + interval '5 s'", True), ("now()", False), ("now() - interval '1 microsecond'", False)],
)
@pytest.mark.parametrize("verb", [*REPORTS, "heartbeat"])
def test_both_sides_of_the_end_of_a_lease(team: TeamSetting, verb: str, at: str, holds: bool) -> None:
    task = team.task()
    lease_id = claimed(team)["lease_id"]
    let_run_out(task, at)
    before = shown(team, task)
    answer = tell(team, task, verb, **REPORTS.get(verb, {}), lease_id=lease_id)
    assert answer.status_code == (200 if holds else 409)
    assert (shown(team, task) != before) is holds
    again = claim(team)
    assert again.status_code == (204 if holds else 200)
    if not holds:
        assert (again.json["id"], again.json["attempts"]) == (task["id"], 2)
        assert tell(team, task, verb, **REPORTS.get(verb, {}), lease_id=lease_id).status_code == 409
        lease_id = again.json["lease_id"]
        assert tell(team, task, verb, **REPORTS.get(verb, {}), lease_id=lease_id).status_code == 200


def test_cancelling_needs_no_lease_and_ends_it(team: TeamSetting) -> None:
    task = team.task()
    lease_id = claimed(team)["lease_id"]
    cancelled = team.owner.post(f"{team.path}/tasks/{task['id']}/cancel")
    assert (cancelled.status_code, cancelled.json["status"], cancelled.json["lease_expires_at"]) == (
        200,
        "cancelled",
        None,
    )
    for verb in ("complete", "heartbeat"):
        refused = tell(team, task, verb, lease_id=lease_id)
        assert (refused.status_code, refused.json["task_status"]) == (409, "cancelled")


def test_a_change_keeps_the_lease(team: TeamSetting) -> None:
    task = team.task()
    lease = claimed(team)
    changed = team.owner.patch(
        f"{team.path}/tasks/{task['id']}", json={"title": "Read", "assignee_id": str(team.viewer.id)}
    )
    assert (changed.status_code, changed.json["lease_expires_at"]) == (200, lease["lease_expires_at"])
    assert tell(team, task, "heartbeat", lease_id=lease["lease_id"]).status_code == 200
    assert tell(team, task, "complete", lease_id=lease["lease_id"]).json["title"] == "Read"


def test_a_deleted_task_is_404_for_its_agent(team: TeamSetting) -> None:
    task = team.task()
    lease_id = claimed(team)["lease_id"]
    assert team.owner.delete(f"{team.path}/tasks/{task['id']}").status_code == 204
    for verb in (*REPORTS, "heartbeat"):
        assert tell(team, task, verb, **REPORTS.get(verb, {}), lease_id=lease_id).status_code == 404


def test_a_claim_repeated_under_its_key_is_the_same_claim(team: TeamSetting) -> None:
    """An agent whose answer was lost gets its task, and not another."""
    first, second = team.task(), team.task()
    once, again = (
        team.member.post(path_of_claims(team), json={}, headers={"Idempotency-Key": "a"}) for _ in range(2)
    )
    assert once.json["id"] == first["id"]
    assert (again.status_code, again.json) == (200, once.json)
    assert shown(team, second)["status"] == "pending"
    assert claimed(team)["id"] == second["id"]
    nothing, still = (
        team.member.post(path_of_claims(team), json={}, headers={"Idempotency-Key": "b"}) for _ in range(2)
    )
    assert (nothing.status_code, still.status_code, still.data) == (204, 204, b"")


def test_a_heartbeat_leaves_no_event_and_no_change(team: TeamSetting) -> None:
    task = team.task()
    lease = claimed(team)

    def happened() -> int:
        with transaction() as session:
            return int(
                session.execute(
                    text("SELECT count(*) FROM outbox WHERE team_id = :id"), {"id": team.id}
                ).scalar_one()
            )

    before = happened()
    assert before > 0
    beat = tell(team, task, "heartbeat", lease_id=lease["lease_id"])
    assert beat.json["lease_expires_at"] > lease["lease_expires_at"]
    assert shown(team, task) == {name: value for name, value in beat.json.items() if name != "lease_id"}
    assert (beat.json["updated_at"], happened()) == (lease["updated_at"], before)


def test_many_agents_at_once_each_get_another_task(app: Flask, team: TeamSetting) -> None:
    tasks = {team.task()["id"] for _ in range(12)}

    def take(_: int) -> str:
        answer = app.test_client().post(
            f"/api/v1{path_of_claims(team)}",
            json={},
            headers={"Authorization": f"Bearer {team.member.token}"},
        )
        assert answer.status_code == 200
        assert answer.json is not None
        return str(answer.json["id"])

    with ThreadPoolExecutor(12) as pool:
        taken = list(pool.map(take, range(12)))
    assert (len(taken), set(taken)) == (12, tasks)
    assert claim(team).status_code == 204
