"""Refused attempts in the log: the first at once, repeats summed, a flood bounded, and nothing lost or counted twice."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.access.actor import Named, Origin
from models.database import transaction
from models.operations import refusals
from tests.factories import (
    Person,
    TeamSetting,
    drain,
    execute,
    fetch,
    join,
    make_key,
    make_person,
    make_role,
    make_team,
)
from tests.models.concurrency import raised, together
from workers import maintenance

ROUTE = "/api/v1/teams/{team_id}/workspaces"


def denials(setting: TeamSetting) -> list[dict[str, Any]]:
    """The log's rows of refusals, the oldest first."""
    drain()
    answer = setting.owner.get(f"{setting.path}/activity?outcome=denied&limit=200")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json["items"]
    return rows[::-1]


def counts(setting: TeamSetting) -> list[int]:
    return [row["metadata"]["count"] for row in denials(setting)]


def a_minute_later(setting: TeamSetting, ago: str = "1 minute") -> None:
    """The beat's task, with this team's counts as old as that."""
    execute(
        "UPDATE refused_attempts SET since = now() - CAST(:ago AS interval) WHERE team_id = :id",
        ago=ago,
        id=setting.id,
    )
    maintenance.fold_refusals()


def refused(person: Person, setting: TeamSetting) -> None:
    answer = person.post(f"{setting.path}/workspaces", json={"name": "A"})
    assert (answer.status_code, answer.json["missing"]) == (403, "workspaces:create")


def test_the_first_refusal_is_logged_at_once_with_what_was_missing(team: TeamSetting) -> None:
    answer = team.viewer.post(
        f"{team.path}/workspaces",
        json={"name": "A"},
        headers={"X-Request-Id": "the-request.1", "User-Agent": "an agent/1.0"},
        environ_overrides={"REMOTE_ADDR": "2001:db8::7"},
    )
    assert answer.status_code == 403
    (row,) = denials(team)
    assert (row["action"], row["outcome"], row["user_id"]) == (
        "permission_denied",
        "denied",
        str(team.viewer.id),
    )
    assert row["metadata"] == {
        "team_id": str(team.id),
        "permission": "workspaces:create",
        "method": "POST",
        "route": ROUTE,
        "count": 1,
    }
    assert (row["ip_address"], row["user_agent"], row["request_id"]) == (
        "2001:db8::7",
        "an agent/1.0",
        "the-request.1",
    )
    assert row["summary"] == f"Viewer was refused workspaces:create: POST {ROUTE} (attempts: 1)"


def test_repeats_are_summed_once_a_minute(team: TeamSetting) -> None:
    for _ in range(8):
        refused(team.viewer, team)
    assert counts(team) == [1]
    a_minute_later(team, "59 seconds")
    assert counts(team) == [1]
    a_minute_later(team)
    assert counts(team) == [1, 7]
    a_minute_later(team, "59 seconds")
    for _ in range(2):
        refused(team.viewer, team)
    assert counts(team) == [1, 7]
    a_minute_later(team)
    assert counts(team) == [1, 7, 2]
    a_minute_later(team)  # a minute without one
    refused(team.viewer, team)
    assert counts(team) == [1, 7, 2, 1]


def test_each_actor_and_permission_counts_for_itself(team: TeamSetting) -> None:
    make_role(team, "clerk", "workspaces:read")
    clerk, key = join(team, "clerk"), make_key(team, team.admin, "teams:read")
    for _ in range(2):
        for person in (team.viewer, clerk, key):
            refused(person, team)
        assert team.viewer.delete(team.path).json["missing"] == "owner"
        assert team.viewer.patch(team.path, json={"name": "A"}).json["missing"] == "teams:update"
    rows = denials(team)
    assert [(row["user_id"], row["api_key_id"], row["metadata"]["permission"]) for row in rows] == [
        (str(team.viewer.id), None, "workspaces:create"),
        (str(clerk.id), None, "workspaces:create"),
        (str(team.admin.id), key.key_id, "workspaces:create"),
        (str(team.viewer.id), None, "owner"),
        (str(team.viewer.id), None, "teams:update"),
    ]
    a_minute_later(team)
    assert counts(team) == [1] * 10


def test_who_is_barred_from_the_team_is_logged_too(team: TeamSetting) -> None:
    key = make_key(team, team.admin, "teams:read")
    assert team.owner.post(f"{team.path}/members/{team.admin.id}/suspend").status_code == 200
    for person in (team.admin, key):
        assert person.get(team.path).json["missing"] == "membership"
        assert person.get(f"{team.path}/workspaces/{team.workspace_id}").json["missing"] == "membership"
    rows = denials(team)
    assert [(row["user_id"], row["api_key_id"], row["metadata"]["route"]) for row in rows] == [
        (str(team.admin.id), None, "/api/v1/teams/{team_id}"),
        (str(team.admin.id), key.key_id, "/api/v1/teams/{team_id}"),
    ]


def test_what_is_refused_for_its_body_is_logged(team: TeamSetting) -> None:
    """By an operation, after the route's own permission was there."""
    make_role(team, "inviter", "members:create", "members:read")
    inviter = join(team, "inviter")
    body = {"email": "nobody@example.com", "role": "admin"}
    answer = inviter.post(f"{team.path}/invitations", json=body)
    assert answer.status_code == 403
    (row,) = denials(team)
    assert (row["user_id"], row["metadata"]["permission"]) == (str(inviter.id), answer.json["missing"])


def test_what_is_refused_of_a_call_that_goes_through_is_logged(team: TeamSetting) -> None:
    make_role(team, "inviter", "members:create")
    inviter = join(team, "inviter")
    wanted = [{"email": f"{uuid7().hex}@example.com", "role": role} for role in ("admin", "inviter", "admin")]
    answer = inviter.post(f"{team.path}/invitations/bulk", json={"invitations": wanted})
    assert answer.status_code == 200
    assert [bool(each["error"]) for each in answer.json["results"]] == [True, False, True]
    (row,) = denials(team)
    assert (row["metadata"]["count"], row["metadata"]["route"]) == (
        2,
        "/api/v1/teams/{team_id}/invitations/bulk",
    )


STRANGE: dict[str, Callable[[TeamSetting, Person], Any]] = {
    "a stranger": lambda setting, stranger: stranger.post(f"{setting.path}/workspaces", json={"name": "A"}),
    "a bad body": lambda setting, _: setting.owner.post(f"{setting.path}/workspaces", json={"name": ""}),
    "something absent": lambda setting, _: setting.owner.get(f"{setting.path}/tasks/{uuid7()}"),
    "a question": lambda setting, _: setting.viewer.post(
        f"{setting.path}/permissions/check", json={"checks": [{"permission": "teams:delete"}]}
    ),
    "nobody": lambda setting, stranger: stranger.app.test_client().delete(f"/api/v1{setting.path}"),
}


@pytest.mark.parametrize("act", STRANGE.values(), ids=STRANGE)
def test_nothing_else_is(app: Flask, team: TeamSetting, act: Callable[[TeamSetting, Person], Any]) -> None:
    act(team, make_person(app, "Stranger"))
    assert denials(team) == []
    assert fetch("SELECT FROM refused_attempts WHERE team_id = :id", id=team.id) == []


def test_a_refusal_that_is_no_teams_is_nobodys(app: Flask, team: TeamSetting) -> None:
    """An invitation for another address: whoever tries is no member."""
    body = {"email": "nobody@example.com", "role": "viewer"}
    token = team.owner.post(f"{team.path}/invitations", json=body).json["token"]
    answer = make_person(app).post("/invitations/accept", json={"token": token})
    assert answer.json["missing"] == "invited_address"
    assert denials(team) == []


def test_the_route_is_a_template_and_never_the_path(team: TeamSetting) -> None:
    path = f"{team.path}/roles/{'x' * 200}"
    assert team.viewer.delete(path).status_code == 403
    assert denials(team)[0]["metadata"]["route"] == "/api/v1/teams/{team_id}/roles/{name}"


def by(setting: TeamSetting, user_id: UUID | None = None) -> Named:
    return Named(setting.id, user_id or setting.viewer.id, origin=Origin("192.0.2.1", "a test", "r"))


def note(who: Named, missing: str = "tasks:create") -> None:
    with transaction() as session:
        refusals.note(session, who, missing, method="POST", route="/x")


def test_every_refusal_counts_once_while_others_count_and_sum(team: TeamSetting) -> None:
    def attack() -> None:
        for _ in range(40):
            note(by(team))

    def sum_up() -> None:
        for _ in range(20):
            a_minute_later(team, "2 minutes")

    assert raised(together(attack, attack, attack, sum_up, sum_up)) == []
    a_minute_later(team)
    assert sum(counts(team)) == 120


def test_of_many_who_are_the_first_one_is(team: TeamSetting) -> None:
    assert raised(together(*[lambda: note(by(team))] * 8)) == []
    assert counts(team) == [1]
    a_minute_later(team)
    assert counts(team) == [1, 7]


def test_a_flood_from_many_is_named_up_to_a_limit_and_counted_beyond(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MOST_NAMED", 5)
    crowd = [by(team, uuid7()) for _ in range(12)]
    try:
        assert raised(together(*[lambda each=each: note(each) for each in crowd])) == []
        for each in crowd:
            note(each)
        rows = fetch("SELECT user_id, repeats FROM refused_attempts WHERE team_id = :id", id=team.id)
        named = [row for row in rows if row.user_id]
        assert len(named) == 5
        assert [row.repeats for row in named] == [1] * 5
        assert [row.repeats for row in rows if not row.user_id] == [14]
    finally:
        # Nobody has these ids, and the log would refuse them.
        execute("DELETE FROM outbox WHERE team_id = :id", id=team.id)
        execute("DELETE FROM refused_attempts WHERE team_id = :id", id=team.id)


@pytest.mark.parametrize(("named", "nameless"), [(99, 0), (100, 1)])
def test_the_limit_is_a_hundred_actors_and_permissions_a_team(
    app: Flask, team: TeamSetting, named: int, nameless: int
) -> None:
    execute(
        "INSERT INTO refused_attempts (team_id, actor_id, permission, user_id, method, route, repeats)"
        " SELECT :id, gen_random_uuid(), 'tasks:create', :user, 'GET', '/x', 0 FROM generate_series(1, :n)",
        id=team.id,
        user=team.owner.id,
        n=named,
    )
    refused(team.viewer, team)
    other = make_team(app)
    refused(other.viewer, other)  # whose own it is
    assert len(denials(team)) == 1 - nameless
    assert len(denials(other)) == 1
    a_minute_later(team)
    rows = denials(team)
    assert [row["action"] for row in rows] == (
        ["permission_denials_summed"] if nameless else ["permission_denied"]
    )
    if nameless:
        assert (rows[0]["metadata"], rows[0]["user_id"]) == ({"team_id": str(team.id), "count": 1}, None)
    refused(team.viewer, team)  # there is room again
    a_minute_later(team)
    assert denials(team)[-1]["user_id"] == str(team.viewer.id)


class FellOver(BaseException):
    """The worker's process ends here."""


def test_a_worker_that_dies_while_it_sums_forgets_and_repeats_nothing(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        refused(team.viewer, team)
    fold = refusals.fold

    def die(*arguments: Any) -> int:
        fold(*arguments)
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(refusals, "fold", die)
        with pytest.raises(FellOver):
            a_minute_later(team)
    assert counts(team) == [1]
    for _ in range(2):
        maintenance.fold_refusals()
        assert counts(team) == [1, 3]
