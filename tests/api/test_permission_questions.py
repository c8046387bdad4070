"""The catalogue, and the questions about who may do what: what each takes, tells and keeps to itself."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from api.schemas.permissions import MOST_CHECKS
from models.access.permissions import OWNER_ONLY, Permission
from models.access.power import WORKSPACE_SCOPED
from models.database import transaction
from models.queries.permissions import MOST_GIVERS
from tests.factories import Answer, Person, TeamSetting, make_person, make_team

EVERY = [permission.value for permission in Permission]


def ask(team: TeamSetting, person: Person, question: str, **body: Any) -> Answer:
    return person.post(f"{team.path}/permissions/{question}", json=body)


def check(team: TeamSetting, person: Person, permission: str, **more: Any) -> dict[str, Any]:
    answer = ask(team, person, "check", checks=[{"permission": permission, **more}])
    assert answer.status_code == 200, answer.text
    (result,) = answer.json["results"]
    found: dict[str, Any] = result
    return found


def with_key(team: TeamSetting, person: Person, permissions: list[str], **values: Any) -> Person:
    """The person, coming with a new key of theirs."""
    body = {"name": "ci", "permissions": permissions, **values}
    answer = person.post(f"{team.path}/api-keys", json=body)
    assert answer.status_code == 201, answer.text
    return Person(person.app, person.id, person.email, person.name, answer.json["key"])


def make_role(team: TeamSetting, name: str, *permissions: str) -> str:
    answer = team.owner.post(f"{team.path}/roles", json={"name": name, "permissions": list(permissions)})
    assert answer.status_code == 201, answer.text
    return name


def give_role(team: TeamSetting, person: Person, role: str) -> None:
    answer = team.owner.patch(f"{team.path}/members/{person.id}", json={"role": role})
    assert answer.status_code == 200, answer.text


def private_workspace(team: TeamSetting, *listed: Person) -> str:
    made = team.owner.post(f"{team.path}/workspaces", json={"name": "Private", "visibility": "private"})
    for person in listed:
        path = f"{team.path}/workspaces/{made.json['id']}/members/{person.id}"
        assert team.owner.put(path, json={}).status_code == 200
    return str(made.json["id"])


# The catalogue


def test_the_catalogue_is_every_permission(shared: TeamSetting) -> None:
    answer = shared.viewer.get("/permissions?limit=200")
    assert (answer.status_code, answer.json["next_cursor"]) == (200, None)
    items = answer.json["items"]
    assert [each["permission"] for each in items] == EVERY
    assert all(each["description"].endswith(".") for each in items)
    assert len({each["description"] for each in items}) == len(EVERY)
    assert {each["permission"] for each in items if each["owner_only"]} == {each.value for each in OWNER_ONLY}
    assert {each["permission"] for each in items if each["workspace_scoped"]} == WORKSPACE_SCOPED
    assert [f"{each['resource']}:{each['action']}" for each in items] == EVERY


@pytest.mark.parametrize("limit", [1, 33, 34])
def test_the_catalogue_comes_in_pages(shared: TeamSetting, limit: int) -> None:
    found: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        page = shared.viewer.get("/permissions", query_string=query).json
        assert len(page["items"]) <= limit
        found += [each["permission"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == EVERY


@pytest.mark.parametrize("cursor", ["WyJ0YXNrczp4Il0", "WyJ0YXNrczpyZWFkIiwiYSJd", "W10"])
def test_a_cursor_of_another_list_is_422(shared: TeamSetting, cursor: str) -> None:
    answer = shared.viewer.get("/permissions", query_string={"cursor": cursor})
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["cursor"])


# check


def test_results_come_in_the_order_of_the_checks(shared: TeamSetting) -> None:
    checks = [
        {"permission": "tasks:create"},
        {"permission": "tasks:read", "workspace_id": str(shared.workspace_id)},
        {"permission": "teams:delete", "user_id": str(shared.owner.id)},
        {"permission": "teams:delete", "user_id": str(shared.admin.id)},
        {"permission": "tasks:create", "user_id": str(uuid7())},
        {"permission": "tasks:read", "workspace_id": str(uuid7())},
        {"permission": "tasks:create", "user_id": None, "workspace_id": None},
    ]
    answer = ask(shared, shared.viewer, "check", checks=checks)
    assert answer.json["results"] == [
        {"allowed": False, "permission": "tasks:create", "reason": "not_granted", "via": None},
        {"allowed": True, "permission": "tasks:read", "reason": "granted", "via": "role:viewer"},
        {"allowed": True, "permission": "teams:delete", "reason": "granted", "via": "owner"},
        {"allowed": False, "permission": "teams:delete", "reason": "owner_only", "via": None},
        {"allowed": False, "permission": "tasks:create", "reason": "not_a_member", "via": None},
        {"allowed": False, "permission": "tasks:read", "reason": "workspace_not_found", "via": None},
        {"allowed": False, "permission": "tasks:create", "reason": "not_granted", "via": None},
    ]


@pytest.mark.parametrize(
    ("count", "status"), [(0, 422), (1, 200), (MOST_CHECKS, 200), (MOST_CHECKS + 1, 422)]
)
def test_a_batch_has_one_to_a_hundred_checks(shared: TeamSetting, count: int, status: int) -> None:
    answer = ask(shared, shared.viewer, "check", checks=[{"permission": "tasks:read"}] * count)
    assert answer.status_code == status
    if status == 200:
        assert len(answer.json["results"]) == count
    else:
        assert list(answer.json["errors"]) == ["checks"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("permission", "tasks:claim"),
        ("permission", ""),
        ("permission", None),
        ("permission", 1),
        ("user_id", "x"),
        ("workspace_id", 1),
        ("unknown", 1),
    ],
)
def test_a_check_that_is_wrong_is_named_by_its_place(shared: TeamSetting, field: str, value: Any) -> None:
    good = {"permission": "tasks:read"}
    answer = ask(shared, shared.viewer, "check", checks=[good, {**good, field: value}, good])
    assert answer.status_code == 422
    assert {place: list(named) for place, named in answer.json["errors"]["checks"].items()} == {"1": [field]}


def test_asking_about_others_needs_to_see_members(team: TeamSetting) -> None:
    give_role(team, team.viewer, make_role(team, "blind", "tasks:read"))
    assert check(team, team.viewer, "tasks:read") == {
        "allowed": True, "permission": "tasks:read", "reason": "granted", "via": "role:blind",
    }  # fmt: skip
    assert check(team, team.viewer, "tasks:read", user_id=str(team.viewer.id))["allowed"]
    other = str(team.member.id)
    for question, body in (
        ("check", {"checks": [{"permission": "tasks:read"}, {"permission": "tasks:read", "user_id": other}]}),
        ("explain", {"permission": "tasks:read", "user_id": other}),
        ("what-can", {"user_id": other}),
        ("who-can", {"permission": "tasks:read"}),
    ):
        refused = ask(team, team.viewer, question, **body)
        assert (refused.status_code, refused.json["missing"]) == (403, "members:read"), question
        assert ask(team, team.member, question, **body).status_code == 200
    assert ask(team, team.viewer, "what-can").status_code == 200
    explained = ask(team, team.viewer, "explain", permission="tasks:create")
    assert (explained.status_code, explained.json["can_grant"]) == (200, None)
    assert ask(team, team.member, "explain", permission="roles:create").json["can_grant"]


def test_a_stranger_can_ask_nothing(app: Flask, shared: TeamSetting) -> None:
    stranger = make_person(app, "Stranger")
    for question in ("check", "explain", "who-can", "what-can", "dry-run"):
        answers = [
            stranger.post(f"{path}/permissions/{question}", json={})
            for path in (shared.path, f"/teams/{uuid7()}")
        ]
        assert [each.status_code for each in answers] == [404, 404]
        assert answers[0].json["detail"] == answers[1].json["detail"]


def test_a_key_asks_as_it_comes_and_about_its_maker_in_person(team: TeamSetting) -> None:
    agent = team.owner.post(f"{team.path}/agents", json={"name": "Scout", "role": "member"}).json
    key = with_key(team, team.owner, ["tasks:create", "tasks:read", "members:create"], agent_id=agent["id"])
    assert check(team, key, "tasks:create")["via"] == "role:admin"
    assert check(team, key, "members:create")["reason"] == "agent_role"
    assert check(team, key, "tasks:delete")["reason"] == "key_scope"
    assert check(team, key, "teams:delete")["reason"] == "owner_only"
    in_person = check(team, key, "teams:delete", user_id=str(team.owner.id))
    assert (in_person["allowed"], in_person["via"]) == (True, "owner")
    assert {each["permission"] for each in ask(team, key, "what-can").json["permissions"]} == {
        "tasks:create",
        "tasks:read",
    }
    assert ask(
        team, key, "check", checks=[{"permission": "tasks:read", "user_id": str(team.member.id)}]
    ).json["missing"] == ("members:read")


# explain


def explain(team: TeamSetting, person: Person, permission: str, **more: Any) -> dict[str, Any]:
    answer = ask(team, person, "explain", permission=permission, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_explain_names_every_step(team: TeamSetting) -> None:
    path = f"{team.path}/workspaces/{team.workspace_id}/members/{team.admin.id}"
    assert team.owner.put(path, json={"role": "viewer"}).status_code == 200
    agent = team.owner.post(f"{team.path}/agents", json={"name": "Scout", "role": "member"}).json
    key = with_key(team, team.admin, ["tasks:create"], agent_id=agent["id"])
    place = str(team.workspace_id)
    told = explain(team, key, "tasks:create", workspace_id=place)
    assert told["path"] == [
        {"step": "membership", "name": "active", "grants": True, "counts": True},
        {"step": "workspace", "name": place, "grants": True, "counts": True},
        {"step": "role", "name": "admin", "grants": True, "counts": False},
        {"step": "workspace_role", "name": "viewer", "grants": False, "counts": True},
        {"step": "agent", "name": "member", "grants": True, "counts": True},
        {"step": "api_key", "name": "ci", "grants": True, "counts": True},
    ]
    assert (told["allowed"], told["reason"], told["via"]) == (False, "not_granted", None)
    assert told["missing"] == [
        {
            "step": "workspace_role",
            "name": "viewer",
            "detail": "The role viewer, theirs in this workspace, lacks tasks:create.",
        }
    ]
    assert told["can_grant"] is None  # the key does not see members
    at_large = explain(team, key, "tasks:create")
    assert (at_large["allowed"], at_large["via"], at_large["missing"], at_large["can_grant"]) == (
        True, "role:admin", [], None,
    )  # fmt: skip


def givers(told: dict[str, Any]) -> dict[str, list[str]]:
    return {each["user"]["id"]: each["how"] for each in told["can_grant"]}


def test_those_who_can_grant_have_it_and_may_give_it(team: TeamSetting) -> None:
    recruiter = make_role(team, "recruiter", "members:read", "members:update", "roles:read")
    give_role(team, team.member, recruiter)
    told = explain(team, team.viewer, "tasks:create")
    assert givers(told) == {
        str(team.owner.id): ["members:update"],
        str(team.admin.id): ["members:update"],
    }
    # With it, and with all that they would take away, the recruiter could too.
    permissions = ["members:read", "members:update", "roles:read", "tasks:create"]
    path = f"{team.path}/roles/{recruiter}"
    assert team.owner.patch(path, json={"permissions": permissions}).status_code == 200
    assert str(team.member.id) not in givers(explain(team, team.viewer, "tasks:create"))
    viewers = explain(team, team.owner, "tasks:read", user_id=str(team.viewer.id))
    assert (viewers["allowed"], viewers["can_grant"]) == (True, [])
    all_of_it = sorted({*permissions, *_granted(team, "viewer")})
    assert team.owner.patch(path, json={"permissions": all_of_it}).status_code == 200
    assert givers(explain(team, team.viewer, "tasks:create"))[str(team.member.id)] == ["members:update"]
    # Whoever is suspended gives nothing.
    assert team.owner.post(f"{team.path}/members/{team.member.id}/suspend").status_code == 200
    assert str(team.member.id) not in givers(explain(team, team.viewer, "tasks:create"))


def _granted(team: TeamSetting, role: str) -> list[str]:
    found: list[str] = team.owner.get(f"{team.path}/roles/{role}").json["permissions"]
    return found


def test_a_role_of_the_teams_own_can_be_edited_instead(team: TeamSetting) -> None:
    give_role(team, team.viewer, make_role(team, "scribe", "tasks:read", "members:read"))
    told = explain(team, team.viewer, "tasks:create")
    assert givers(told)[str(team.owner.id)] == ["members:update", "roles:update"]


def test_a_private_workspace_wants_to_be_listed_in(team: TeamSetting) -> None:
    place = private_workspace(team, team.member)
    told = explain(team, team.member, "tasks:read", workspace_id=place, user_id=str(team.viewer.id))
    assert (told["reason"], [each["step"] for each in told["missing"]]) == (
        "workspace_not_found", ["workspace"],
    )  # fmt: skip
    assert givers(told) == {
        str(team.owner.id): ["workspaces:update"],
        str(team.member.id): ["workspaces:update"],
    }  # the admin is not listed, and so can't
    told = explain(team, team.viewer, "tasks:read", workspace_id=place)
    assert (told["reason"], told["can_grant"]) == ("workspace_not_found", [])
    assert told["missing"][0]["detail"] == "There is no such workspace here."


def test_each_refusal_says_what_helps(team: TeamSetting) -> None:
    def told(permission: str, person: Person) -> tuple[str, list[str], dict[str, list[str]]]:
        answer = explain(team, team.owner, permission, user_id=str(person.id))
        return answer["reason"], [each["step"] for each in answer["missing"]], givers(answer)

    owner, admin = str(team.owner.id), str(team.admin.id)
    stranger = make_person(team.owner.app, "Stranger")
    both = {owner: ["members:create"], admin: ["members:create"]}
    assert told("tasks:read", stranger) == ("not_a_member", ["membership"], both)
    assert told("teams:transfer", team.admin) == ("owner_only", ["owner"], {owner: ["transfer"]})
    assert team.owner.post(f"{team.path}/members/{team.viewer.id}/suspend").status_code == 200
    both = {owner: ["members:update"], admin: ["members:update"]}
    assert told("tasks:read", team.viewer) == ("suspended", ["membership"], both)
    reason, steps, _ = told("tasks:create", team.viewer)
    assert (reason, steps) == ("suspended", ["membership", "role"])
    _require_two_factor(team)
    answer = explain(team, team.owner, "tasks:read", user_id=str(team.member.id))
    assert answer["reason"] == "two_factor_missing"
    assert givers(answer) == {str(team.member.id): ["two_factor"]}


def _require_two_factor(team: TeamSetting) -> None:
    with transaction() as session:
        session.execute(
            text("INSERT INTO second_factors (user_id, secret, confirmed_at) VALUES (:id, 'x', now())"),
            {"id": team.owner.id},
        )
        session.execute(text("UPDATE teams SET two_factor_required = true WHERE id = :id"), {"id": team.id})


def test_a_new_key_is_made_by_its_maker(team: TeamSetting) -> None:
    key = with_key(team, team.admin, ["members:read"])
    told = explain(team, key, "tasks:create")
    assert (told["reason"], givers(told)) == ("key_scope", {str(team.admin.id): ["new_key"]})
    owners = with_key(team, team.owner, ["members:read", "teams:delete"])
    told = explain(team, owners, "teams:delete")
    assert (told["reason"], givers(told)) == ("owner_only", {str(team.owner.id): ["sign_in"]})


def test_at_most_twenty_could_be_asked(app: Flask) -> None:
    team = make_team(app, roles=("viewer",))
    with transaction() as session:
        for number in range(MOST_GIVERS + 2):
            person = uuid7()
            address = f"{person}@example.com"
            session.execute(
                text(
                    "INSERT INTO users (id, email, email_normalized, name, password_hash) VALUES (:id, :at, :at, :name, '')"
                ),
                {"id": person, "at": address, "name": f"Admin {number}"},
            )
            session.execute(
                text(
                    "INSERT INTO team_members (id, team_id, user_id, role) VALUES (:row, :team, :id, 'admin')"
                ),
                {"row": uuid7(), "team": team.id, "id": person},
            )
    told = explain(team, team.viewer, "tasks:create")
    assert len(told["can_grant"]) == MOST_GIVERS


# who-can and what-can


def test_who_can_pages_through_everyone(shared: TeamSetting) -> None:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 1}
    while True:
        answer = shared.viewer.post(
            f"{shared.path}/permissions/who-can", json={"permission": "tasks:create"}, query_string=query
        )
        assert (answer.status_code, len(answer.json["items"])) == (200, 1)
        found += answer.json["items"]
        if answer.json["next_cursor"] is None:
            break
        query["cursor"] = answer.json["next_cursor"]
    assert [each["user"]["id"] for each in found] == sorted(
        str(person.id) for person in (shared.owner, shared.admin, shared.member)
    )
    assert found[0].keys() == {"user", "role", "via"}
    assert found[0]["user"].keys() == {"id", "email", "name"}
    by_role = {each["role"]: each["via"] for each in found}
    assert by_role == {"admin": "role:admin", "member": "role:member"}


def test_who_can_in_a_workspace_goes_by_the_roles_there(team: TeamSetting) -> None:
    place = private_workspace(team, team.viewer)
    path = f"{team.path}/workspaces/{place}/members/{team.viewer.id}"
    assert team.owner.put(path, json={"role": "member"}).status_code == 200

    def holders(permission: str) -> dict[str, str]:
        answer = ask(team, team.viewer, "who-can", permission=permission, workspace_id=place)
        return {each["user"]["id"]: each["via"] for each in answer.json["items"]}

    owner, viewer = str(team.owner.id), str(team.viewer.id)
    assert holders("tasks:create") == {owner: "role:admin", viewer: "workspace_role:member"}
    assert holders("workspaces:delete") == {owner: "role:admin"}
    assert holders("members:create") == {owner: "role:admin", str(team.admin.id): "role:admin"}
    for person, status in ((team.viewer, 200), (team.admin, 404)):
        answer = ask(team, person, "who-can", permission="tasks:create", workspace_id=place)
        assert answer.status_code == status


def test_what_can_says_of_whom_and_where(team: TeamSetting) -> None:
    place = private_workspace(team)
    mine = ask(team, team.viewer, "what-can").json
    assert (mine["user_id"], mine["role"], mine["reason"]) == (str(team.viewer.id), "viewer", None)
    assert {each["permission"] for each in mine["permissions"]} == set(_granted(team, "viewer"))
    there = ask(team, team.viewer, "what-can", workspace_id=place).json
    assert (there["workspace_id"], there["reason"]) == (place, "workspace_not_found")
    assert {each["permission"] for each in there["permissions"]} == set(
        _granted(team, "viewer")
    ) - WORKSPACE_SCOPED
    admins = ask(team, team.viewer, "what-can", user_id=str(team.admin.id)).json
    assert {each["permission"] for each in admins["permissions"]} == set(EVERY) - {
        "teams:delete",
        "teams:transfer",
    }


# dry-run


def dry_run(team: TeamSetting, person: Person, query: str = "", **body: Any) -> dict[str, Any]:
    answer = person.post(f"{team.path}/permissions/dry-run{query}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def lines(effect: dict[str, Any]) -> dict[tuple[str, str | None], tuple[list[str], list[str]]]:
    return {
        (each["user"]["id"], each["workspace_id"]): (each["gains"], each["loses"]) for each in effect["items"]
    }


def test_an_edit_of_a_role_reaches_who_has_it_and_where(team: TeamSetting) -> None:
    role = make_role(team, "scribe", "tasks:read", "tasks:create", "usage:read")
    place = str(team.workspace_id)
    for person, there in ((team.member, None), (team.viewer, "viewer"), (team.admin, role)):
        if person is not team.admin:
            give_role(team, person, role)
        path = f"{team.path}/workspaces/{place}/members/{person.id}"
        assert team.owner.put(path, json={"role": there}).status_code == 200
    effect = dry_run(team, team.owner, role=role, permissions=["tasks:read", "usage:read", "members:read"])
    gains, loses = ["members:read"], ["tasks:create"]
    # The viewer keeps what the role in the workspace grants there; the admin has the role there alone.
    assert lines(effect) == {
        (str(team.member.id), None): (gains, loses),
        (str(team.viewer.id), None): (gains, loses),
        (str(team.admin.id), place): ([], loses),
    }
    assert (effect["affected"], effect["gains"], effect["loses"]) == (3, gains, loses)
    assert effect["refused"] is None
    nothing = dry_run(team, team.owner, role=role, permissions=["usage:read", "tasks:create", "tasks:read"])
    assert (nothing["affected"], nothing["items"], nothing["gains"], nothing["loses"]) == (0, [], [], [])
    owners = dry_run(
        team, team.owner, role=role, permissions=["usage:read", "tasks:create", "tasks:read", "teams:delete"]
    )
    assert (owners["affected"], owners["items"], owners["gains"]) == (0, [], [])


def test_the_lines_of_a_dry_run_come_in_pages(team: TeamSetting) -> None:
    role = make_role(team, "scribe", "tasks:read", "members:read")
    for person in (team.member, team.viewer):
        give_role(team, person, role)
        path = f"{team.path}/workspaces/{team.workspace_id}/members/{person.id}"
        assert team.owner.put(path, json={"role": role}).status_code == 200
    whole = dry_run(team, team.owner, role=role, permissions=["members:read"])
    assert (whole["affected"], len(whole["items"]), whole["next_cursor"]) == (2, 4, None)
    found: list[Any] = []
    query = "?limit=1"
    while True:
        page = dry_run(team, team.owner, query, role=role, permissions=["members:read"])
        assert (page["affected"], page["loses"]) == (2, ["tasks:read"])
        found += page["items"]
        if page["next_cursor"] is None:
            break
        query = f"?limit=1&cursor={page['next_cursor']}"
    assert found == whole["items"]


def test_a_deletion_moves_people_to_the_replacement(team: TeamSetting) -> None:
    role = make_role(team, "scribe", "tasks:read", "billing:read")
    give_role(team, team.member, role)
    effect = dry_run(team, team.owner, role=role, replacement="viewer")
    gains = sorted(set(_granted(team, "viewer")) - {"tasks:read"})
    assert lines(effect) == {(str(team.member.id), None): (gains, ["billing:read"])}
    left_with_nothing = dry_run(team, team.owner, role=role, replacement=None)
    assert lines(left_with_nothing) == {(str(team.member.id), None): ([], ["billing:read", "tasks:read"])}
    assert left_with_nothing["refused"]["code"] == "conflict"


def test_keys_and_agents_that_shrink_or_grow_are_counted(team: TeamSetting) -> None:
    role = make_role(team, "builder", "tasks:read", "tasks:create", "api_keys:create", "members:read")
    give_role(team, team.member, role)
    agent = team.owner.post(f"{team.path}/agents", json={"name": "Builder", "role": role}).json
    with_key(team, team.member, ["tasks:create", "tasks:read"])  # loses
    with_key(team, team.member, ["tasks:read"])  # is not touched
    with_key(team, team.owner, ["tasks:create", "tasks:update"], agent_id=agent["id"])  # loses one, gains one
    with_key(team, team.owner, ["tasks:create", "tasks:update"])  # is not touched
    effect = dry_run(
        team,
        team.owner,
        role=role,
        permissions=["tasks:read", "tasks:update", "api_keys:create", "members:read"],
    )
    assert effect["agents"] == {"grow": 1, "shrink": 1}
    assert effect["api_keys"] == {"grow": 1, "shrink": 2}
    demoted = dry_run(team, team.owner, user_id=str(team.member.id), role="viewer")
    assert demoted["api_keys"] == {"grow": 0, "shrink": 1}
    assert demoted["agents"] == {"grow": 0, "shrink": 0}
    place = str(team.workspace_id)
    listed = dry_run(team, team.owner, user_id=str(team.member.id), workspace_id=place, role="viewer")
    assert listed["api_keys"] == {"grow": 0, "shrink": 1}


Change = Callable[[TeamSetting], tuple[dict[str, Any], Callable[[Person], Answer]]]


def edit(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    permissions = ["tasks:read", "members:read", "usage:create"]
    return (
        {"role": "scribe", "permissions": permissions},
        lambda person: person.patch(f"{team.path}/roles/scribe", json={"permissions": permissions}),
    )


def edit_of_a_built_in_role(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    body = {"permissions": ["tasks:read"]}
    return {"role": "member", **body}, lambda person: person.patch(f"{team.path}/roles/member", json=body)


def edit_upwards(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    body = {"permissions": ["billing:update", "tasks:read"]}
    return {"role": "scribe", **body}, lambda person: person.patch(f"{team.path}/roles/scribe", json=body)


def deletion(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    return (
        {"role": "scribe", "replacement": "member"},
        lambda person: person.delete(f"{team.path}/roles/scribe?replacement=member"),
    )


def deletion_of_a_role_in_use(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    return (
        {"role": "scribe", "replacement": None},
        lambda person: person.delete(f"{team.path}/roles/scribe"),
    )


def promotion(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    path = f"{team.path}/members/{team.viewer.id}"
    return (
        {"user_id": str(team.viewer.id), "role": "admin"},
        lambda person: person.patch(path, json={"role": "admin"}),
    )


def demotion_of_an_admin(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    path = f"{team.path}/members/{team.admin.id}"
    return (
        {"user_id": str(team.admin.id), "role": "viewer"},
        lambda person: person.patch(path, json={"role": "viewer"}),
    )


def demotion_of_the_owner(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    path = f"{team.path}/members/{team.owner.id}"
    return (
        {"user_id": str(team.owner.id), "role": "viewer"},
        lambda person: person.patch(path, json={"role": "viewer"}),
    )


def _listing(
    team: TeamSetting, user: Person, role: str | None
) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    path = f"{team.path}/workspaces/{team.workspace_id}/members/{user.id}"
    return (
        {"user_id": str(user.id), "workspace_id": str(team.workspace_id), "role": role},
        lambda person: person.put(path, json={"role": role}),
    )


def role_in_a_workspace(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    return _listing(team, team.viewer, "admin")


def admins_role_in_a_workspace(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    return _listing(team, team.admin, "viewer")


def owners_role_in_a_workspace(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    return _listing(team, team.owner, "viewer")


def listing_without_a_role(team: TeamSetting) -> tuple[dict[str, Any], Callable[[Person], Answer]]:
    return _listing(team, team.viewer, None)


CHANGES = [
    edit,
    edit_of_a_built_in_role,
    edit_upwards,
    deletion,
    deletion_of_a_role_in_use,
    promotion,
    demotion_of_an_admin,
    demotion_of_the_owner,
    role_in_a_workspace,
    admins_role_in_a_workspace,
    owners_role_in_a_workspace,
    listing_without_a_role,
]


@pytest.fixture
def managed(team: TeamSetting) -> TeamSetting:
    """A team with a manager (`member`) who may change everything but has little else, and a scribe."""
    changing = ["members:update", "members:read", "roles:read", "roles:update", "roles:delete", "tasks:read"]
    changing += [
        "workspaces:update",
        "workspaces:read",
        "usage:create",
        "tasks:create",
        "tasks:update",
        "tasks:delete",
    ]
    make_role(team, "manager", *changing)
    make_role(team, "scribe", "tasks:read", "tasks:create", "members:read", "roles:read")
    give_role(team, team.member, "manager")
    with transaction() as session:
        scribe = make_person(team.owner.app, "Scribe")
        session.execute(
            text("INSERT INTO team_members (id, team_id, user_id, role) VALUES (:row, :team, :id, 'scribe')"),
            {"row": uuid7(), "team": team.id, "id": scribe.id},
        )
    team.people["scribe"] = scribe
    return team


def powers(team: TeamSetting) -> dict[tuple[str, str | None], set[str]]:
    """What everybody may do, in the team and in its workspace, as `what-can` says it."""
    return {
        (str(person.id), place): {
            each["permission"]
            for each in ask(team, team.owner, "what-can", user_id=str(person.id), workspace_id=place).json[
                "permissions"
            ]
        }
        for person in (team.owner, *team.people.values())
        for place in (None, str(team.workspace_id))
    }


def everything_in(team: TeamSetting) -> list[Any]:
    """All that a change could change; that somebody was refused is told besides."""
    changes = "(SELECT * FROM {} WHERE outcome = 'success')"
    tables = (
        "permissions",
        "team_members",
        "workspace_members",
        "agents",
        "api_keys",
        "invitations",
        changes.format("outbox"),
        changes.format("activity_logs"),
    )
    with transaction() as session:
        return [
            sorted(
                session.execute(
                    text(f"SELECT row_to_json(r)::text FROM {table} r WHERE team_id = :id"), {"id": team.id}
                ).scalars()
            )
            for table in tables
        ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_dry_run_tells_what_the_change_then_does(managed: TeamSetting, change: Change) -> None:
    """And what it is refused for: by each person, first dry, then really. The dry run itself changes nothing."""
    body, really = change(managed)
    before, rows = powers(managed), everything_in(managed)
    effect: dict[str, Any] = {}
    for person in (managed.viewer, managed.people["scribe"], managed.member, managed.admin, managed.owner):
        effect = dry_run(managed, person, **body)
        assert everything_in(managed) == rows
        answer = really(person)
        refused = effect["refused"]
        if answer.status_code in {403, 409}:
            assert refused is not None, answer.text
            assert {name: answer.json[name] for name in refused} == refused
            assert everything_in(managed) == rows
        else:
            assert answer.status_code in {200, 204}, answer.text
            assert refused is None
            break
    if effect["refused"] is not None:
        return
    told = {key: (set(gains), set(loses)) for key, (gains, loses) in lines(effect).items()}
    after = powers(managed)
    expected = {}
    for (user_id, place), had in before.items():
        has = after[user_id, place]
        at_large = (
            after[user_id, None] - before[user_id, None],
            before[user_id, None] - after[user_id, None],
        )
        if has != had and (place is None or (has - had, had - has) != at_large):
            expected[user_id, place] = (has - had, had - has)
    assert told == expected
    assert effect["affected"] == len({user_id for user_id, _ in expected})


def test_what_is_not_there_is_refused_as_by_the_change(shared: TeamSetting) -> None:
    nobody, member, place = str(uuid7()), str(shared.member.id), str(shared.workspace_id)
    for body, status, field in (
        ({"role": "nothing", "permissions": ["tasks:read"]}, 404, None),
        ({"role": "nothing", "replacement": "viewer"}, 404, None),
        ({"role": "viewer", "replacement": "nothing"}, 422, "replacement"),
        ({"role": "viewer", "replacement": "viewer"}, 422, "replacement"),
        ({"role": "viewer", "user_id": nobody}, 404, None),
        ({"role": "nothing", "user_id": member}, 422, "role"),
        ({"role": "nothing", "user_id": member, "workspace_id": place}, 422, "role"),
        ({"role": "viewer", "user_id": nobody, "workspace_id": place}, 404, None),
        ({"role": "viewer", "user_id": member, "workspace_id": nobody}, 404, None),
    ):
        answer = ask(shared, shared.owner, "dry-run", **body)
        assert answer.status_code == status, body
        if field:
            assert list(answer.json["errors"]) == [field]


SOMEONE = "0198c5f0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "viewer"}, "_body"),
        ({"role": "viewer", "permissions": ["tasks:read"], "replacement": "member"}, "_body"),
        ({"role": "viewer", "workspace_id": SOMEONE}, "_body"),
        ({"role": "viewer", "user_id": SOMEONE, "permissions": ["tasks:read"]}, "_body"),
        ({"permissions": ["tasks:read"]}, "role"),
        ({"role": None, "permissions": ["tasks:read"]}, "role"),
        ({"role": None, "user_id": SOMEONE}, "role"),
        ({"role": "viewer", "permissions": []}, "permissions"),
        ({"role": "viewer", "permissions": ["tasks:x"]}, "permissions"),
    ],
    ids=str,
)
def test_a_dry_run_is_of_one_change(shared: TeamSetting, body: dict[str, Any], field: str) -> None:
    answer = ask(shared, shared.owner, "dry-run", **body)
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])


def test_a_dry_run_needs_to_see_roles_and_members(team: TeamSetting) -> None:
    body = {"role": "viewer", "user_id": str(team.member.id)}
    for permissions, missing in (
        (["members:read"], "roles:read"),
        (["roles:read"], "members:read"),
        (["members:read", "roles:read"], None),
    ):
        give_role(team, team.viewer, make_role(team, f"role {len(missing or '')}", *permissions))
        answer = ask(team, team.viewer, "dry-run", **body)
        assert answer.status_code == (403 if missing else 200)
        assert answer.json.get("missing") == missing


def test_a_hidden_workspace_is_in_no_dry_run(team: TeamSetting) -> None:
    role = make_role(team, "scribe", "tasks:read", "tasks:create")
    place = private_workspace(team)
    path = f"{team.path}/workspaces/{place}/members/{team.viewer.id}"
    assert team.owner.put(path, json={"role": role}).status_code == 200
    body: dict[str, Any] = {"role": role, "permissions": ["tasks:read"]}
    seen = dry_run(team, team.owner, **body)
    assert (seen["affected"], seen["loses"], len(seen["items"])) == (1, ["tasks:create"], 1)
    unseen = dry_run(team, team.admin, **body)
    assert (unseen["affected"], unseen["loses"], unseen["items"]) == (0, [], [])


def test_a_suspended_member_has_nothing_to_lose(team: TeamSetting) -> None:
    body = {"role": "viewer", "user_id": str(team.member.id)}
    assert dry_run(team, team.owner, **body)["affected"] == 1
    assert team.owner.post(f"{team.path}/members/{team.member.id}/suspend").status_code == 200
    assert dry_run(team, team.owner, **body)["affected"] == 0
