"""What the database refuses by itself, whatever Python forgets: each case beside the same statement that it takes."""

from dataclasses import dataclass
from typing import Any
from uuid import RFC_4122

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from models.database import engine, transaction, violated_constraint
from models.errors import Conflict, DomainError, Invalid, NotFound, for_constraint
from tests.factories import TeamSetting, make_person, make_team

TASK = """
INSERT INTO tasks (id, team_id, workspace_id, title, created_by, assignee_id, status, error, result, started_at, finished_at,
                   llm_tokens_used)
VALUES (uuid7(), :team, :workspace, 'T', :user, :assignee, :status, :error, CAST(:result AS jsonb), NULL,
        CASE WHEN :finished THEN now() END, :tokens)
"""
LEDGER = """
INSERT INTO usage_ledger (team_id, key, metric, quantity, occurred_at) VALUES (:team, :key, :metric, :quantity, now())
"""


@dataclass
class Setting:
    mine: TeamSetting
    other: TeamSetting


@pytest.fixture(scope="module")
def setting(app: Flask) -> Setting:
    return Setting(make_team(app), make_team(app))


def violated(*statements: tuple[str, dict[str, Any]]) -> str | None:
    """The constraint that refuses the statements, at the latest at their commit; None when they are taken."""
    with engine().connect() as connection:
        try:
            with connection.begin():
                for statement, parameters in statements:
                    connection.execute(text(statement), parameters)
        except IntegrityError as error:
            return violated_constraint(error)
    return None


def task(setting: Setting, **values: Any) -> tuple[str, dict[str, Any]]:
    plain = {
        "team": setting.mine.id,
        "workspace": setting.mine.workspace_id,
        "user": setting.mine.owner.id,
        "assignee": None,
        "status": "pending",
        "error": None,
        "result": None,
        "finished": False,
        "tokens": 0,
    }
    return TASK, plain | values


def test_a_task_lies_in_a_workspace_of_its_team(setting: Setting) -> None:
    assert violated(task(setting)) is None
    name = "fk_tasks_team_id_workspace_id_workspaces"
    assert violated(task(setting, workspace=setting.other.workspace_id)) == name
    assert violated(task(setting, workspace=uuid7())) == name
    assert violated(task(setting, team=setting.other.id)) == name
    moved = "UPDATE workspaces SET team_id = :team WHERE id = :id"
    assert violated((moved, {"team": setting.other.id, "id": setting.mine.workspace_id})) == name
    assert isinstance(for_constraint(name), NotFound)


def test_a_task_is_assigned_to_a_member_of_its_team(setting: Setting) -> None:
    assert violated(task(setting, assignee=setting.mine.member.id)) is None
    name = "fk_tasks_team_id_assignee_id_team_members"
    assert violated(task(setting, assignee=setting.other.member.id)) == name
    assert violated(task(setting, assignee=uuid7())) == name
    assert isinstance(for_constraint(name), Invalid)


def test_a_team_is_owned_by_a_member_of_it(setting: Setting, app: Flask) -> None:
    name = "fk_teams_id_owner_id_team_members"
    hand_over = "UPDATE teams SET owner_id = :user WHERE id = :team"
    mine = setting.mine
    assert violated((hand_over, {"user": setting.other.member.id, "team": mine.id})) == name
    assert violated((hand_over, {"user": mine.member.id, "team": mine.id})) is None
    assert violated((hand_over, {"user": mine.owner.id, "team": mine.id})) is None
    leave = "DELETE FROM team_members WHERE team_id = :team AND user_id = :user"
    assert violated((leave, {"team": mine.id, "user": mine.owner.id})) == name
    fresh = "INSERT INTO teams (id, name, owner_id) VALUES (:team, 'Fresh', :user)"
    join = "INSERT INTO team_members (id, team_id, user_id, role) VALUES (uuid7(), :team, :user, 'admin')"
    whose = {"team": uuid7(), "user": make_person(app).id}
    assert violated((fresh, whose)) == name
    assert violated((fresh, whose), (join, whose)) is None
    assert isinstance(for_constraint(name), Conflict)


def test_a_person_is_a_member_once(setting: Setting) -> None:
    join = "INSERT INTO team_members (id, team_id, user_id, role) VALUES (uuid7(), :team, :user, 'viewer')"
    assert violated((join, {"team": setting.mine.id, "user": setting.other.viewer.id})) is None
    again = violated((join, {"team": setting.mine.id, "user": setting.other.viewer.id}))
    assert again == "uq_team_members_team_id_user_id"


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({}, None),
        ({"status": "processing"}, None),
        ({"status": "completed", "finished": True, "result": "[]"}, None),
        ({"status": "completed", "finished": True}, None),
        ({"status": "failed", "finished": True, "error": "e"}, None),
        ({"status": "cancelled", "finished": True}, None),
        ({"tokens": 2**63 - 1}, None),
        ({"status": "resting"}, "ck_tasks_status"),
        ({"status": "completed"}, "ck_tasks_finished"),
        ({"status": "processing", "finished": True}, "ck_tasks_finished"),
        ({"status": "failed", "finished": True}, "ck_tasks_error"),
        ({"status": "completed", "finished": True, "error": "e"}, "ck_tasks_error"),
        ({"status": "processing", "result": "[]"}, "ck_tasks_result"),
        ({"tokens": -1}, "ck_tasks_llm_tokens_used"),
    ],
    ids=str,
)
def test_a_tasks_columns_fit_its_state(
    setting: Setting, values: dict[str, Any], constraint: str | None
) -> None:
    assert violated(task(setting, **values)) == constraint


@pytest.mark.parametrize(
    ("metric", "quantity", "constraint"),
    [
        ("llm_tokens_used", 1, None),
        ("storage_bytes", -1, None),
        ("storage_bytes", 0, "ck_usage_ledger_quantity"),
        ("llm_tokens_used", 0, "ck_usage_ledger_quantity"),
        ("api_calls", -1, "ck_usage_ledger_quantity"),
        ("smiles", 1, "ck_usage_ledger_metric"),
    ],
)
def test_a_ledger_row_is_a_quantity_of_a_metric(
    setting: Setting, metric: str, quantity: int, constraint: str | None
) -> None:
    row = {"team": setting.mine.id, "key": uuid7().hex, "metric": metric, "quantity": quantity}
    assert violated((LEDGER, row)) == constraint
    if constraint is None:
        assert violated((LEDGER, row)) == "uq_usage_ledger_team_id_key"


def test_a_plan_is_one_that_is_sold_and_seats_somebody(setting: Setting) -> None:
    change = "UPDATE teams SET plan = :plan, max_members = :seats WHERE id = :team"
    team = setting.mine.id
    assert violated((change, {"plan": "enterprise", "seats": 1, "team": team})) is None
    assert violated((change, {"plan": "gold", "seats": 1, "team": team})) == "ck_teams_plan"
    assert violated((change, {"plan": "free", "seats": 0, "team": team})) == "ck_teams_max_members"


def test_a_built_in_grant_is_unique_though_it_has_no_team(setting: Setting) -> None:
    grant = "INSERT INTO permissions (id, team_id, role, resource, action) VALUES (uuid7(), :team, 'viewer', 'tasks', 'read')"
    name = "uq_permissions_role_team_id_resource_action"
    assert violated((grant, {"team": None})) == name
    assert violated((grant, {"team": setting.mine.id})) is None
    assert violated((grant, {"team": setting.mine.id})) == name


def test_a_number_of_a_teams_log_is_given_once_a_moment(setting: Setting) -> None:
    row = (
        "INSERT INTO activity_logs (team_id, seq, created_at, id, action, resource_type, resource_id, metadata, hash) "
        "VALUES (:team, 1000000, '2026-01-01Z', uuid7(), 'a', 'team', :team, '{}', '')"
    )
    assert violated((row, {"team": setting.mine.id})) is None
    assert (violated((row, {"team": setting.mine.id})) or "").startswith("activity_logs_")
    assert violated((row, {"team": setting.other.id})) is None


def test_every_violation_a_client_can_cause_is_a_domain_error(setting: Setting) -> None:
    """`transaction()` translates by the constraint's name, and what it says carries nothing of the database."""
    statements: list[tuple[tuple[str, dict[str, Any]], type[DomainError]]] = [
        (task(setting, workspace=setting.other.workspace_id), NotFound),
        (task(setting, assignee=setting.other.owner.id), Invalid),
    ]

    def run(statement: str, parameters: dict[str, Any]) -> None:
        with transaction() as session:
            session.execute(text(statement), parameters)

    for (statement, parameters), error in statements:
        with pytest.raises(error) as refused:
            run(statement, parameters)
        said = f"{refused.value.detail} {refused.value.members}"
        for word in ("fk_", "insert", "Key (", "psycopg", "violates", str(parameters["team"])):
            assert word not in said


def test_ids_made_by_the_database_are_uuid7s_in_order() -> None:
    with transaction() as session:
        made = [session.execute(text("SELECT uuid7()")).scalar_one() for _ in range(50)]
    assert {(made_id.version, made_id.variant) for made_id in made} == {(7, RFC_4122)}
    assert [made_id.int >> 80 for made_id in made] == sorted(made_id.int >> 80 for made_id in made)
    assert abs((made[0].int >> 80) - (uuid7().int >> 80)) < 60_000
