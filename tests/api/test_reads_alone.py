"""Routes whose GET opens no transaction (api.resource.Resource.reads_alone): none of them writes, locks or needs one."""

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from flask import Flask
from psycopg.pq import TransactionStatus

from api.resource import Resource
from tests.api.routes import ROUTES, Route
from tests.factories import TeamSetting, execute, fetch, make_team


def is_alone(app: Flask, route: Route) -> bool:
    endpoint = next(rule.endpoint for rule in app.url_map.iter_rules() if rule.rule == route.rule)
    view: Any = app.view_functions[endpoint]
    return issubclass(view.view_class, Resource) and view.view_class.reads_alone and route.method == "GET"


@pytest.fixture(scope="module")
def setting(app: Flask) -> TeamSetting:
    return make_team(app)


@dataclass
class Seen:
    """The statements of this process's cursors, and the states in which they found and left their connections."""

    statements: list[str] = field(default_factory=list)
    states: set[TransactionStatus] = field(default_factory=set)


def read(setting: TeamSetting, path: str) -> Seen:
    seen = Seen()
    execute = psycopg.Cursor.execute

    def see(cursor: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
        seen.statements.append(str(statement))
        seen.states.add(cursor.connection.info.transaction_status)
        found = execute(cursor, statement, *args, **kwargs)
        seen.states.add(cursor.connection.info.transaction_status)
        return found

    with (
        patch.object(psycopg.Cursor, "execute", see),
        patch("api.metering._counter"),  # whose thread has a connection of its own
    ):
        answer = setting.owner.get(path)
    assert answer.status_code == 200, answer.json
    return seen


def test_they_read_and_open_no_transaction(app: Flask, setting: TeamSetting) -> None:
    known = {
        "team_id": setting.id,
        "workspace_id": setting.workspace_id,
        "task_id": setting.task()["id"],
    }
    alone = [route for route in ROUTES if is_alone(app, route)]
    assert len(alone) >= 9
    for route in alone:
        seen = read(setting, route.path(**known))
        assert seen.states == {TransactionStatus.IDLE}, route
        for statement in seen.statements:
            words = statement.upper()
            assert words.split()[0] in {"SELECT", "WITH"}, statement
            assert not any(
                word in words for word in ("FOR UPDATE", "FOR NO KEY", "FOR SHARE", "INSERT", "SET_CONFIG")
            )


def test_other_reads_are_one_transaction(setting: TeamSetting) -> None:
    assert TransactionStatus.INTRANS in read(setting, f"{setting.path}/activity").states


def test_the_use_of_the_credential_is_noted_all_the_same(setting: TeamSetting) -> None:
    execute(
        "UPDATE sessions SET last_used_at = now() - interval '1 hour' WHERE user_id = :id",
        id=setting.owner.id,
    )
    assert any("UPDATE sessions" in each for each in read(setting, "/me").statements)
    rows = fetch(
        "SELECT last_used_at > now() - interval '1 minute' FROM sessions WHERE user_id = :id",
        id=setting.owner.id,
    )
    assert [tuple(row) for row in rows] == [(True,)]
