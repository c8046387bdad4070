"""A deleted team: its owner brings it back for 30 days, then all of it is erased, and nothing of another's."""

from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.base import Base
from models.database import transaction
from models.operations import checkpoints, teams
from models.tables import Team
from tests.api.test_activity import make_everything_happen
from tests.factories import (
    TeamSetting,
    drain,
    execute,
    fetch,
    fold,
    fold_log,
    invite,
    make_agent,
    make_delivery,
    make_key,
    make_person,
    make_role,
    make_team,
    make_webhook,
)
from workers import maintenance

OF_TEAMS = [table for table in Base.metadata.sorted_tables if "team_id" in table.columns]


def delete(setting: TeamSetting, ago: str = "0 seconds") -> None:
    assert setting.owner.delete(setting.path).status_code == 204
    age(setting, ago)


def age(setting: TeamSetting, ago: str) -> None:
    execute(
        "UPDATE teams SET deleted_at = now() - CAST(:ago AS interval) WHERE id = :id", ago=ago, id=setting.id
    )


def rows_of(team_id: UUID) -> dict[str, int]:
    """How many rows each table has of the team."""
    counts = {}
    for table in OF_TEAMS:
        (row,) = fetch(f'SELECT count(*) AS rows FROM "{table.name}" WHERE team_id = :id', id=team_id)
        counts[table.name] = row.rows
    return counts


@pytest.fixture(autouse=True)
def _nothing_else_is_due() -> None:
    execute("UPDATE teams SET deleted_at = now() WHERE deleted_at IS NOT NULL")


def test_a_team_comes_back_as_it_was(team: TeamSetting) -> None:
    make_role(team, "scribe", "tasks:read")
    key, task = make_key(team, team.admin, "teams:read"), team.task()
    before = {
        path: team.owner.get(team.path + path).json for path in ("", "/members", "/roles", "/workspaces")
    }
    delete(team)
    gone = [person.get(team.path).status_code for person in (team.owner, team.viewer, key)]
    assert gone == [404, 404, 404]
    (shown,) = team.owner.get("/teams?deleted=true").json["items"]
    assert (shown["id"], shown["deleted_at"] is not None) == (str(team.id), True)
    restored = team.owner.post(f"{team.path}/restore")
    assert (restored.status_code, restored.json["deleted_at"]) == (200, None)
    for path, answer in before.items():
        now = team.owner.get(team.path + path).json
        assert {**now, "updated_at": None} == {**answer, "updated_at": None}
    assert team.owner.get(f"{team.path}/tasks/{task['id']}").json == task
    assert [person.get(team.path).status_code for person in (team.viewer, key)] == [200, 200]
    assert team.owner.get("/teams?deleted=true").json["items"] == []
    drain()
    actions = [row["action"] for row in team.viewer.get(f"{team.path}/activity?limit=2").json["items"]]
    assert actions == ["team_restored", "team_deleted"]


@pytest.mark.parametrize(("ago", "in_time"), [("29 days 23:59:00", True), ("30 days", False)])
def test_it_can_be_restored_for_30_days(team: TeamSetting, ago: str, in_time: bool) -> None:
    delete(team, ago)
    listed = [row["id"] for row in team.owner.get("/teams?deleted=true").json["items"]]
    assert listed == ([str(team.id)] if in_time else [])
    assert team.owner.post(f"{team.path}/restore").status_code == (200 if in_time else 404)
    assert team.owner.get(team.path).status_code == (200 if in_time else 404)


def test_the_owner_alone_restores_it(team: TeamSetting, app: Flask) -> None:
    delete(team)
    absent = team.owner.post(f"/teams/{uuid7()}/restore")
    for person in (team.admin, team.viewer, make_person(app)):
        refused = person.post(f"{team.path}/restore")
        assert refused.status_code == absent.status_code == 404
        assert refused.json["detail"] == absent.json["detail"]
        assert person.get("/teams?deleted=true").json["items"] == []
    assert team.owner.post(f"{team.path}/restore").status_code == 200
    assert team.owner.post(f"{team.path}/restore").status_code == 404  # which is not deleted


def test_what_is_not_deleted_is_not_listed_as_such(team: TeamSetting) -> None:
    assert team.owner.get("/teams?deleted=true").json["items"] == []
    assert [row["id"] for row in team.owner.get("/teams?deleted=false").json["items"]] == [str(team.id)]
    for bad in ("1", "yes", "TRUE", ""):
        assert team.owner.get(f"/teams?deleted={bad}").status_code == 422


@pytest.mark.parametrize(("ago", "due"), [("29 days 23:59:00", False), ("30 days", True)])
def test_it_is_purged_after_30_days(team: TeamSetting, ago: str, due: bool) -> None:
    delete(team, ago)
    with transaction() as session:
        assert teams.purge_one(session) == (team.id if due else None)
    with transaction() as session:
        assert (session.get(Team, team.id) is None) is due
        assert teams.purge_one(session) is None


def fill(setting: TeamSetting) -> None:
    """Something in every table that has a team's rows."""
    owner, path = setting.admin, setting.path  # to whom it was handed over
    assert owner.put(f"{path}/plan", json={"plan": "pro"}).status_code == 200
    usage = {"events": [{"external_id": "a", "metric": "llm_tokens_used", "quantity": 1}]}
    assert owner.post(f"{path}/usage", json=usage).status_code == 202
    reservation = {"external_id": "a", "metric": "llm_tokens_used", "quantity": 1}
    assert owner.post(f"{path}/usage/reservations", json=reservation).status_code == 201
    backfill = owner.post(f"{path}/usage/backfills", json={"name": "May", "reason": "late"}).json["id"]
    assert owner.post(f"{path}/usage/backfills/{backfill}/events", json=usage).status_code == 202
    room = owner.post(f"{path}/workspaces", json={"name": "Vault", "visibility": "private"}).json["id"]
    assert owner.post(f"{path}/workspaces/{room}/tasks", json={"title": "A"}).status_code == 201
    kept = owner.post(f"{path}/workspaces", json={"name": "Safe", "visibility": "private"})
    assert kept.status_code == 201
    assert owner.delete(f"{path}/workspaces/{room}").status_code == 204
    make_role(setting, "scribe", "tasks:read")
    invite(setting, f"{uuid7().hex}@example.com", "scribe")
    agent = make_agent(setting, "scribe")
    make_key(setting, setting.admin, "tasks:read", agent_id=agent["id"])
    assert owner.post(f"{path}/ws-tickets").status_code == 201
    assert setting.viewer.post(f"{path}/workspaces", json={"name": "A"}).status_code == 403
    assert owner.post(f"{path}/activity/exports", json={}).status_code == 201
    make_delivery(make_webhook(setting, by=owner, enabled=False))
    execute("SELECT set_quotas(:id, '{tasks_created}', '{1000}')", id=setting.id)
    fill_billing(setting)


def fill_billing(setting: TeamSetting) -> None:
    """What no request alone leaves behind."""
    insert = {
        "charge_estimates (team_id, month, as_of, currency, total, lines)": ":id, '2026-01-01', now(), 'USD', 1, '[]'",
        "usage_differences (team_id, date, metric, ledger, daily, broken_down)": ":id, '2026-01-01', 'api_calls', 1, 2, 1",
        "usage_quotas (team_id, metric, maximum, period)": ":id, 'api_calls', 1000000, '2026-01-01'",
        "payment_customers (team_id, provider, reference)": ":id, 'stripe', 'cus_1'",
        "payment_orders (id, team_id, invoice_id, action)": (
            "uuid7(), :id, (SELECT id FROM invoices WHERE team_id = :id AND kind = 'invoice' LIMIT 1), 'charge'"
        ),
    }
    for columns, values in insert.items():
        execute(f"INSERT INTO {columns} SELECT {values} ON CONFLICT DO NOTHING", id=setting.id)


def test_all_of_it_goes_and_nothing_of_another(app: Flask) -> None:
    doomed, other = make_everything_happen(app), make_everything_happen(app)
    for setting in (doomed, other):
        fill(setting)
    drain()
    fold()
    fold_log()
    for setting in (doomed, other):
        with transaction() as session:
            assert checkpoints.sign(session, setting.id)
        setting.task()  # which is neither drained nor folded
    untouched, before = rows_of(other.id), rows_of(doomed.id)
    assert [name for name, count in before.items() if not count] == []
    assert doomed.admin.delete(doomed.path).status_code == 204
    age(doomed, "31 days")
    maintenance.purge_teams()
    assert set(rows_of(doomed.id).values()) == {0}
    with transaction() as session:
        assert session.get(Team, doomed.id) is None
    assert rows_of(other.id) == untouched
    assert other.admin.get(other.path).status_code == 200
    # Persons are no team's.
    for person in (doomed.admin, doomed.viewer):
        assert person.get("/me").status_code == 200
        assert person.get("/teams").json["items"] == []
    assert doomed.admin.post(f"{doomed.path}/restore").status_code == 404


class FellOver(BaseException):
    """The worker's process ends here."""


def test_the_purge_goes_on_where_it_died(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [make_team(app, roles=()) for _ in range(3)]
    for setting in settings[:2]:
        delete(setting, "31 days")
    delete(settings[2], "29 days")
    purge_one, calls = teams.purge_one, []

    def dies_at_the_second(*arguments: Any) -> UUID | None:
        purged = purge_one(*arguments)
        calls.append(purged)
        if len(calls) == 2:
            raise FellOver
        return purged

    def left() -> int:
        wanted = [setting.id for setting in settings]
        return len(fetch("SELECT id FROM teams WHERE id = ANY(:ids)", ids=wanted))

    with monkeypatch.context() as patched:
        patched.setattr(teams, "purge_one", dies_at_the_second)
        with pytest.raises(FellOver):
            maintenance.purge_teams()
    assert left() == 2
    for _ in range(2):
        maintenance.purge_teams()
        assert left() == 1
    assert settings[2].owner.post(f"{settings[2].path}/restore").status_code == 200
