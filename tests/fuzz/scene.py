"""A team with something of every kind in it, so that a fuzzer's calls lead somewhere, and who calls."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models import json_text
from models.access.passwords import hash_password
from models.access.permissions import Permission
from models.database import transaction
from tests import billing
from tests.factories import (
    Person,
    TeamSetting,
    drain,
    execute,
    fetch,
    fold,
    fold_log,
    invite,
    join,
    make_agent,
    make_delivery,
    make_key,
    make_role,
    make_team,
    make_webhook,
)

CALLERS = ("owner", "admin", "member", "viewer", "outsider", "nobody", "key")
PASSWORD = "the bystander's password"
TABLES = {
    "workspace_id": "workspaces",
    "task_id": "tasks",
    "lease_id": "tasks",
    "assignee_id": "team_members",
    "agent_id": "agents",
    "api_key_id": "api_keys",
    "invitation_id": "invitations",
    "webhook_id": "webhooks",
    "delivery_id": "webhook_deliveries",
    "backfill_id": "usage_backfills",
    "reservation_id": "usage_reservations",
    "ledger_id": "usage_ledger",
    "invoice_id": "invoices",
    "export_id": "activity_exports",
}
"""Where the ids are that a path or a body calls so; of members, the person's."""


@dataclass
class Scene:
    team: TeamSetting
    caller: Person | None
    """None: nobody who is signed in."""
    known: dict[str, list[str]]
    """By the name of a parameter or a field: what it may well be."""
    kept: dict[str, list[Any]]

    def heal(self) -> None:
        """
        Makes the caller able to go on, whatever it did to itself: the people, their sessions, memberships and keys, and the
        team, are as they were. Else a fuzzer that signs out or deletes the team would see 401 and 404 from then on.
        """
        with transaction() as session:
            for table, rows in self.kept.items():
                columns = ", ".join(f'"{name}" = excluded."{name}"' for name in rows[0])
                statement = (
                    f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, CAST(:rows AS jsonb))"
                    f" ON CONFLICT (id) DO UPDATE SET {columns}"
                )
                session.execute(text(statement), {"rows": json_text.dumps(rows)})


def make_scene(app: Flask, caller: str) -> Scene:
    team = make_team(app)
    assert team.owner.put(f"{team.path}/plan", json={"plan": "enterprise"}).status_code == 200
    bystander = join(team, "member", "Bo")
    execute(
        "UPDATE users SET password_hash = :hash WHERE id = :id", hash=hash_password(PASSWORD), id=bystander.id
    )
    role = make_role(team, "scribe", "tasks:read", "tasks:update")
    invitation = _fill(team)
    people = {
        "owner": team.owner,
        **team.people,
        "outsider": make_team(app, roles=()).owner,
        "key": make_key(team, team.owner, *Permission),
        "nobody": None,
    }
    called = people[caller]
    gone = (
        make_team(app, owner=called or team.owner, roles=()) if caller != "key" else make_team(app, roles=())
    )
    assert gone.owner.delete(gone.path).status_code == 204
    drain()
    fold()
    fold_log()
    return Scene(
        team,
        called,
        {
            "team_id": [str(team.id)],
            "deleted_team_id": [str(gone.id)],
            "user_id": [
                str(each.id) for each in (bystander, team.member, team.viewer, team.admin, team.owner)
            ],
            "session_id": _column("SELECT id FROM sessions WHERE user_id = :id", (called or bystander).id),
            "name": [role["name"], "admin", "viewer"],
            "role": ["member", "viewer", role["name"]],
            "email": [bystander.email, team.viewer.email, "a@example.com"],
            "password": [PASSWORD],
            "token": [invitation["token"]],
            **{name: _ids(name, table, team.id) for name, table in TABLES.items()},
        },
        _keep(team, called),
    )


def _fill(team: TeamSetting) -> dict[str, Any]:
    """Something of every kind; returns an invitation with its token."""
    owner, path = team.owner, team.path
    workspace = f"{path}/workspaces/{team.workspace_id}"
    for visibility in ("private", "team"):
        _made(owner.post(f"{path}/workspaces", json={"name": visibility, "visibility": visibility}))
    tasks = [team.task(title=f"Task {number}", type="text") for number in range(4)]
    _made(owner.post(f"{workspace}/tasks/claim", json={"lease_s": 3600}))
    _made(owner.post(f"{path}/tasks/{tasks[1]['id']}/start"))
    _made(
        owner.post(
            f"{path}/tasks/{tasks[1]['id']}/complete", json={"result": {"a": [1]}, "llm_tokens_used": 7}
        )
    )
    _made(owner.put(f"{workspace}/members/{team.viewer.id}", json={"role": "member"}))
    agent = make_agent(team, "scribe")
    make_key(team, team.admin, "tasks:read", agent_id=agent["id"])
    make_delivery(make_webhook(team, enabled=False))
    usage = {"events": [{"external_id": "a", "metric": "llm_tokens_used", "quantity": 5}]}
    _made(owner.post(f"{path}/usage", json=usage))
    reservation = {"metric": "llm_tokens_used", "quantity": 1, "model": "large"}
    for number in range(2):
        _made(owner.post(f"{path}/usage/reservations", json={**reservation, "external_id": str(number)}))
    backfills = [
        owner.post(f"{path}/usage/backfills", json={"name": "May", "reason": "late"}) for _ in range(2)
    ]
    for made in backfills:
        _made(owner.post(f"{path}/usage/backfills/{made.json['id']}/events", json=usage))
    _made(owner.post(f"{path}/usage/backfills/{backfills[0].json['id']}/apply"))
    _made(owner.post(f"{path}/activity/exports", json={}))
    _made(team.admin.post(f"{path}/activity/exports", json={"format": "csv"}))
    billing.on_plans(team, ("enterprise", "2025-01-01", None))
    billing.used(team, "llm_tokens_used", 60_000_000, "2025-01-07")
    billing.draft(team)
    execute(
        "UPDATE month_closes SET due_at = now() + interval '1 day' WHERE team_id = :id AND month > '2025-01-01'",
        id=team.id,
    )
    billing.finalize(team)
    return invite(team, f"{uuid7().hex}@example.com")


def _keep(team: TeamSetting, caller: Person | None) -> dict[str, list[Any]]:
    people = "(SELECT user_id FROM team_members WHERE team_id = :id UNION SELECT :caller)"
    of = {
        "users": f"id IN {people}",
        "teams": "id = :id",
        "team_members": "team_id = :id",
        "sessions": f"user_id IN {people}",
        "agents": "team_id = :id",
        "api_keys": "team_id = :id",
    }
    found = {}
    for table, where in of.items():
        statement = f"SELECT to_jsonb(t) AS row FROM {table} t WHERE {where}"
        whose = {"caller": (caller or team.owner).id} if ":caller" in statement else {}
        found[table] = [row.row for row in fetch(statement, id=team.id, **whose)]
    return found


def _ids(name: str, table: str, team_id: UUID) -> list[str]:
    column = {"assignee_id": "user_id", "lease_id": "lease_id"}.get(name, "id")
    found = _column(
        f"SELECT {column} FROM {table} WHERE team_id = :id AND {column} IS NOT NULL ORDER BY {column}",
        team_id,
    )
    assert found, f"the scene has nothing in {table}"
    return found


def _column(statement: str, id_: UUID) -> list[str]:
    return [str(value) for (value,) in fetch(statement, id=id_)]


def _made(answer: Any) -> None:
    assert 200 <= answer.status_code < 300, answer.text
