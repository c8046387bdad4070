"""API keys: kept as hashes, scoped, expiring, and never above what their maker may do at the moment."""

import datetime as dt
import hashlib
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.access.permissions import Permission
from tests.factories import (
    Person,
    TeamSetting,
    drain,
    execute,
    fetch,
    join,
    make_agent,
    make_key,
    make_person,
    make_role,
    make_team,
)

FIELDS = {
    "id", "team_id", "name", "prefix", "permissions", "user_id", "agent_id", "expires_at", "last_used_at",
    "created_at",
}  # fmt: skip


def ask(setting: TeamSetting, by: Person, *permissions: str, **values: Any) -> Any:
    return by.post(f"{setting.path}/api-keys", json={"name": "Robot", "permissions": permissions, **values})


def key_row(key_id: str) -> Any:
    (row,) = fetch("SELECT * FROM api_keys WHERE id = :id", id=key_id)
    return row


def test_a_key_is_shown_once_and_kept_as_a_hash(team: TeamSetting) -> None:
    made = ask(team, team.admin, "tasks:read", "teams:read", "tasks:read")
    assert made.status_code == 201
    assert set(made.json) == {*FIELDS, "key"}
    key = made.json["key"]
    assert key.startswith("ahk_")
    assert (made.json["prefix"], made.json["permissions"]) == (key[:12], ["tasks:read", "teams:read"])
    assert (made.json["user_id"], made.json["agent_id"]) == (str(team.admin.id), None)
    row = key_row(made.json["id"])
    assert row.key_hash == hashlib.sha256(key.encode()).digest()
    assert key not in str(row)
    path = f"{team.path}/api-keys"
    shown = team.owner.get(f"{path}/{made.json['id']}")
    assert shown.json == {name: made.json[name] for name in FIELDS}
    assert team.owner.get(path).json["items"] == [shown.json]
    drain()
    for below in ("/api-keys", f"/api-keys/{made.json['id']}", "/activity"):
        assert key not in team.owner.get(team.path + below).text


def test_a_key_may_what_it_was_made_for(team: TeamSetting) -> None:
    key = make_key(team, team.admin, "workspaces:read", "workspaces:create")
    made = key.post(f"{team.path}/workspaces", json={"name": "A"})
    assert made.status_code == 201
    assert made.json["created_by"] == str(team.admin.id)
    assert key.get(f"{team.path}/workspaces").status_code == 200
    refused = key.delete(f"{team.path}/workspaces/{made.json['id']}")
    assert (refused.status_code, refused.json["missing"]) == (403, "workspaces:delete")
    assert key.get(team.path).json["missing"] == "teams:read"


def test_a_key_is_made_within_its_makers_power(team: TeamSetting) -> None:
    make_role(team, "keysmith", "api_keys:create", "tasks:read")
    smith = join(team, "keysmith")
    for permissions in (["tasks:read", "tasks:update"], list(Permission)):
        assert ask(team, smith, *permissions).status_code == 403
    assert ask(team, smith, "tasks:update").json["missing"] == "tasks:update"
    assert ask(team, smith, "tasks:read").status_code == 201
    assert ask(team, team.member, "tasks:read").json["missing"] == "api_keys:create"
    assert len(team.owner.get(f"{team.path}/api-keys").json["items"]) == 1


@pytest.mark.parametrize("permissions", [[], ["tasks:raed"], ["*"], "tasks:read", None])
def test_a_scope_is_a_set_of_permissions(team: TeamSetting, permissions: Any) -> None:
    body = {"name": "Robot", "permissions": permissions}
    answer = team.owner.post(f"{team.path}/api-keys", json=body)
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["permissions"])


def test_a_key_expires_in_90_days_or_when_it_is_told(team: TeamSetting) -> None:
    usual = key_row(make_key(team, team.owner, "teams:read").key_id)
    assert usual.expires_at - usual.created_at == dt.timedelta(days=90)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    asked = ask(team, team.owner, "teams:read", expires_at=soon.isoformat())
    assert dt.datetime.fromisoformat(asked.json["expires_at"]) == soon
    for over in (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)):
        refused = ask(team, team.owner, "teams:read", expires_at=over.isoformat())
        assert (refused.status_code, list(refused.json["errors"])) == (422, ["expires_at"])


@pytest.mark.parametrize(("left", "status"), [("5 seconds", 200), ("-1 second", 401)])
def test_an_expired_key_is_refused(team: TeamSetting, left: str, status: int) -> None:
    key = make_key(team, team.owner, "teams:read")
    execute(
        "UPDATE api_keys SET expires_at = now() + CAST(:left AS interval) WHERE id = :id",
        left=left,
        id=key.key_id,
    )
    assert key.get(team.path).status_code == status
    listed = team.owner.get(f"{team.path}/api-keys").json["items"]  # an expired one is still told
    assert [row["id"] for row in listed] == [key.key_id]


def test_when_it_was_last_used_is_known_to_within_five_minutes(team: TeamSetting) -> None:
    key = make_key(team, team.owner, "teams:read")
    path = f"{team.path}/api-keys/{key.key_id}"
    assert team.owner.get(path).json["last_used_at"] is None
    assert key.get(team.path).status_code == 200
    first = team.owner.get(path).json["last_used_at"]
    assert first is not None
    assert key.get(f"{team.path}/usage").status_code == 403  # a use as well, though refused
    assert team.owner.get(path).json["last_used_at"] == first
    execute("UPDATE api_keys SET last_used_at = now() - interval '4 minutes' WHERE id = :id", id=key.key_id)
    before = team.owner.get(path).json["last_used_at"]
    assert key.get(team.path).status_code == 200
    assert team.owner.get(path).json["last_used_at"] == before
    execute("UPDATE api_keys SET last_used_at = now() - interval '6 minutes' WHERE id = :id", id=key.key_id)
    assert key.get(team.path).status_code == 200
    assert team.owner.get(path).json["last_used_at"] > before


def test_a_revoked_key_is_refused_at_once(team: TeamSetting) -> None:
    key = make_key(team, team.admin, "teams:read")
    assert key.get(team.path).status_code == 200
    path = f"{team.path}/api-keys/{key.key_id}"
    assert team.member.delete(path).json["missing"] == "api_keys:delete"
    assert team.owner.delete(path).status_code == 204
    refused = key.get(team.path)
    assert (refused.status_code, refused.json["code"]) == (401, "unauthenticated")
    assert team.owner.delete(path).status_code == 404


def test_a_key_shrinks_with_its_maker(team: TeamSetting) -> None:
    """Pitfall: a key keeps the power that its maker has lost."""
    maker = join(team, "admin")
    key = make_key(team, maker, "workspaces:read", "workspaces:create", "api_keys:read")
    for role, workspaces, keys in (("member", 201, 403), ("viewer", 403, 403), ("admin", 201, 200)):
        changed = team.owner.patch(f"{team.path}/members/{maker.id}", json={"role": role})
        assert changed.status_code == 200
        assert key.post(f"{team.path}/workspaces", json={"name": "A"}).status_code == workspaces, role
        assert key.get(f"{team.path}/api-keys").status_code == keys, role
        assert key.get(f"{team.path}/workspaces").status_code == 200


def test_a_key_shrinks_with_its_makers_role(team: TeamSetting) -> None:
    make_role(team, "smith", "api_keys:create", "tasks:read", "usage:read")
    key = make_key(team, join(team, "smith"), "tasks:read", "usage:read")
    assert key.get(f"{team.path}/usage").status_code == 200
    changed = team.owner.patch(f"{team.path}/roles/smith", json={"permissions": ["tasks:read"]})
    assert changed.status_code == 200
    assert key.get(f"{team.path}/usage").json["missing"] == "usage:read"


def test_a_key_goes_with_its_makers_membership(team: TeamSetting) -> None:
    """Pitfall: a removed member's keys live on."""
    maker = join(team, "admin")
    key, other = make_key(team, maker, "teams:read"), make_key(team, team.admin, "teams:read")
    member = f"{team.path}/members/{maker.id}"
    assert team.owner.post(f"{member}/suspend").status_code == 200
    suspended = key.get(team.path)
    assert (suspended.status_code, suspended.json["missing"]) == (403, "membership")
    assert team.owner.post(f"{member}/reactivate").status_code == 200
    assert key.get(team.path).status_code == 200
    assert team.owner.delete(member).status_code == 204
    assert key.get(team.path).status_code == 401
    assert other.get(team.path).status_code == 200
    # Nor does it come back with them.
    back = {"user_id": str(maker.id), "role": "admin"}
    assert team.owner.post(f"{team.path}/members", json=back).status_code == 201
    assert key.get(team.path).status_code == 401
    drain()
    (row,) = team.owner.get(f"{team.path}/activity?action=member_removed").json["items"]
    assert row["metadata"]["api_keys_revoked"] == 1


def test_a_key_is_of_one_team(team: TeamSetting, app: Flask) -> None:
    other = make_team(app, owner=team.owner, roles=())
    key = make_key(team, team.owner, *Permission)
    foreign, absent = key.get(other.path), key.get(f"/teams/{uuid7()}")
    assert foreign.status_code == absent.status_code == 404
    assert foreign.json["detail"] == absent.json["detail"]
    theirs = make_key(other, team.owner, "teams:read")
    path = f"{team.path}/api-keys/{theirs.key_id}"
    assert team.owner.get(path).status_code == team.owner.delete(path).status_code == 404
    assert theirs.get(other.path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/me"), ("GET", "/teams"), ("POST", "/teams"), ("GET", "/me/sessions")]
)
def test_a_key_is_no_account(team: TeamSetting, method: str, path: str) -> None:
    key = make_key(team, team.owner, *Permission)
    assert key.call(method, path, json={"name": "A"}).status_code == 401


def test_a_key_makes_no_keys(team: TeamSetting) -> None:
    """Pitfall: what a leaked key made outlives it."""
    key = make_key(team, team.owner, *Permission)
    refused = ask(team, key, "teams:read")
    assert (refused.status_code, refused.json["missing"]) == (403, "session")
    agent = make_agent(team, by=key)
    assert ask(team, key, "teams:read", agent_id=agent["id"]).json["missing"] == "session"
    assert ask(team, team.owner, "teams:read").status_code == 201


def test_no_key_is_the_owner(team: TeamSetting) -> None:
    key = make_key(team, team.owner, *Permission)
    for answer in (
        key.delete(team.path),
        key.post(f"{team.path}/transfer-ownership", json={"user_id": str(team.admin.id)}),
    ):
        assert (answer.status_code, answer.json["missing"]) == (403, "owner")
    assert team.owner.get(team.path).json["owner_id"] == str(team.owner.id)


def test_a_key_can_not_leave_the_team_for_its_maker(team: TeamSetting) -> None:
    """Membership is enough to leave oneself, in person: a key for reading must not take its maker out."""
    key = make_key(team, team.admin, "teams:read")
    path = f"{team.path}/members/{team.admin.id}"
    assert key.delete(path).json["missing"] == "members:delete"
    assert team.admin.get(team.path).status_code == 200
    assert team.admin.delete(path).status_code == 204


def test_a_key_grants_within_its_scope(team: TeamSetting, app: Flask) -> None:
    key = make_key(team, team.owner, "members:create", "members:update", "teams:read")
    make_role(team, "guest", "teams:read")
    body = {"user_id": str(make_person(app).id)}
    assert key.post(f"{team.path}/members", json={**body, "role": "viewer"}).status_code == 403
    assert key.patch(f"{team.path}/members/{team.viewer.id}", json={"role": "guest"}).status_code == 403
    assert key.post(f"{team.path}/members", json={**body, "role": "guest"}).status_code == 201


def test_the_log_names_the_key_and_its_maker(team: TeamSetting) -> None:
    key = make_key(team, team.admin, "workspaces:create")
    assert key.post(f"{team.path}/workspaces", json={"name": "A"}).status_code == 201
    assert team.admin.post(f"{team.path}/workspaces", json={"name": "B"}).status_code == 201
    drain()
    in_person, by_key = team.viewer.get(f"{team.path}/activity?action=workspace_created&limit=2").json[
        "items"
    ]
    assert (by_key["api_key_id"], by_key["user_id"], by_key["agent_id"]) == (
        key.key_id,
        str(team.admin.id),
        None,
    )
    assert (in_person["api_key_id"], in_person["user_id"]) == (None, str(team.admin.id))


def test_a_repeat_gets_no_key(team: TeamSetting) -> None:
    headers = {"Idempotency-Key": uuid7().hex}
    body = {"name": "Robot", "permissions": ["teams:read"]}
    first, again = (team.owner.post(f"{team.path}/api-keys", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.json["id"]) == (201, 409, first.json["id"])
    assert first.json["key"] not in again.text
    assert len(team.owner.get(f"{team.path}/api-keys").json["items"]) == 1
    (kept,) = fetch("SELECT body FROM idempotency_keys WHERE key = :key", key=headers["Idempotency-Key"])
    assert kept.body is None


def test_a_stale_revocation_revokes_nothing(team: TeamSetting) -> None:
    key = make_key(team, team.owner, "teams:read")
    path = f"{team.path}/api-keys/{key.key_id}"
    stale = team.owner.get(path).headers["ETag"]
    assert key.get(team.path).status_code == 200  # it was used since
    assert team.owner.delete(path, headers={"If-Match": stale}).status_code == 412
    current = team.owner.get(path).headers["ETag"]
    assert team.owner.delete(path, headers={"If-Match": current}).status_code == 204
