"""ETag, If-None-Match and If-Match of every single resource."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import (
    Person,
    TeamSetting,
    invite,
    make_agent,
    make_key,
    make_person,
    make_role,
    make_webhook,
)

CHANGES: dict[str, dict[str, Any]] = {
    "team": {"name": "Changed"},
    "member": {"role": "member"},
    "workspace": {"name": "Changed"},
    "task": {"title": "Changed"},
    "role": {"permissions": ["tasks:read"]},
    "agent": {"name": "Changed"},
    "webhook": {"description": "Changed"},
    "me": {"name": "Changed"},
}
KEPT = {"me"}
"""What is not deleted here."""


def path_of(setting: TeamSetting, kind: str) -> str:
    below: dict[str, Callable[[], str]] = {
        "team": lambda: "",
        "member": lambda: f"/members/{setting.viewer.id}",
        "workspace": lambda: f"/workspaces/{setting.workspace_id}",
        "task": lambda: f"/tasks/{setting.task()['id']}",
        "role": lambda: f"/roles/{make_role(setting, 'auditor', 'activity:read')['name']}",
        "agent": lambda: f"/agents/{make_agent(setting)['id']}",
        "webhook": lambda: f"/webhooks/{make_webhook(setting, enabled=False)['id']}",
    }
    return setting.path + below[kind]() if kind in below else f"/{kind}"


@pytest.fixture(params=CHANGES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tag(person: Person, path: str) -> str:
    answer = person.get(path)
    assert answer.status_code == 200
    return str(answer.headers["ETag"])


def test_unchanged_is_304_and_changed_is_200(team: TeamSetting, kind: str) -> None:
    path = path_of(team, kind)
    before = tag(team.owner, path)
    same = team.owner.get(path, headers={"If-None-Match": before})
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", before)
    assert same.headers["X-Request-Id"]
    changed = team.owner.patch(path, json=CHANGES[kind])
    assert changed.status_code == 200
    read = team.owner.get(path, headers={"If-None-Match": before})
    assert (read.status_code, read.json) == (200, changed.json)
    # The answer of the change carries the tag of what it made.
    assert read.headers["ETag"] == changed.headers["ETag"] != before


def test_a_stale_patch_changes_nothing(team: TeamSetting, kind: str) -> None:
    path = path_of(team, kind)
    stale = tag(team.owner, path)
    assert team.owner.patch(path, json=CHANGES[kind], headers={"If-Match": stale}).status_code == 200
    current = team.owner.get(path)
    too_late = {"role": "viewer", "permissions": ["usage:read"]}
    other = {name: too_late.get(name, "Too late") for name in CHANGES[kind]}
    refused = team.owner.patch(path, json=other, headers={"If-Match": stale})
    assert (refused.status_code, refused.json["code"]) == (412, "precondition_failed")
    assert team.owner.get(path).json == current.json
    for match in (current.headers["ETag"], f'"x", {current.headers["ETag"]}'):
        again = team.owner.patch(path, json=CHANGES[kind], headers={"If-Match": match})
        assert again.status_code == 200


@pytest.mark.parametrize("kind", [kind for kind in CHANGES if kind not in KEPT], indirect=True)
def test_a_stale_delete_deletes_nothing(team: TeamSetting, kind: str) -> None:
    path = path_of(team, kind)
    stale = tag(team.owner, path)
    assert team.owner.patch(path, json=CHANGES[kind]).status_code == 200
    assert team.owner.delete(path, headers={"If-Match": stale}).status_code == 412
    current = tag(team.owner, path)
    assert team.owner.delete(path, headers={"If-Match": current}).status_code == 204
    assert team.owner.get(path).status_code == 404


def test_any_state_matches_a_star_and_no_header(team: TeamSetting, kind: str) -> None:
    path = path_of(team, kind)
    for headers in ({"If-Match": "*"}, {}):
        assert team.owner.patch(path, json=CHANGES[kind], headers=headers).status_code == 200


def test_a_tag_is_of_what_its_reader_sees(team: TeamSetting) -> None:
    """A team shows the caller's role; so one's tag is not another's."""
    assert tag(team.owner, team.path) == tag(team.admin, team.path) != tag(team.viewer, team.path)
    refused = team.admin.patch(
        team.path, json={"name": "A"}, headers={"If-Match": tag(team.viewer, team.path)}
    )
    assert refused.status_code == 412


def test_what_is_made_comes_with_its_tag(team: TeamSetting) -> None:
    made = team.owner.post(f"{team.path}/workspaces", json={"name": "A"})
    assert made.headers["ETag"] == tag(team.owner, f"{team.path}/workspaces/{made.json['id']}")


def test_an_answer_with_a_secret_has_no_tag(team: TeamSetting) -> None:
    """It is of nothing that could be read again; the invitation and the key have their own."""
    body = {"name": "Robot", "permissions": ["teams:read"]}
    key = team.owner.post(f"{team.path}/api-keys", json=body)
    assert (key.status_code, "ETag" in key.headers) == (201, False)
    assert tag(team.owner, f"{team.path}/api-keys/{key.json['id']}")
    made = invite(team, "ina@example.com")
    assert tag(team.owner, f"{team.path}/invitations/{made['id']}")


def test_a_key_and_an_invitation_go_in_the_state_that_was_read(team: TeamSetting) -> None:
    key, made = make_key(team, team.owner, "teams:read"), invite(team, "ina@example.com")
    for path in (f"{team.path}/api-keys/{key.key_id}", f"{team.path}/invitations/{made['id']}"):
        assert team.owner.delete(path, headers={"If-Match": '"x"'}).status_code == 412
        current = tag(team.owner, path)
        assert team.owner.get(path, headers={"If-None-Match": current}).status_code == 304
        assert team.owner.delete(path, headers={"If-Match": current}).status_code == 204


def test_a_stranger_learns_nothing_from_a_condition(team: TeamSetting) -> None:
    stranger = make_person(team.owner.app)
    current = tag(team.owner, team.path)
    assert stranger.get(team.path, headers={"If-None-Match": current}).status_code == 404
    assert stranger.patch(team.path, json={"name": "A"}, headers={"If-Match": '"x"'}).status_code == 404
    viewer = team.viewer.patch(team.path, json={"name": "A"}, headers={"If-Match": '"x"'})
    assert viewer.status_code == 403
