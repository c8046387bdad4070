"""What operators watch: the figures are there, true, and name nobody."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from flask.testing import FlaskClient

from api import metrics
from models.settings import settings
from tests.factories import TeamSetting, drain, fold

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"


def values(client: FlaskClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_calls_are_counted_by_route_and_status(client: FlaskClient, team: TeamSetting) -> None:
    name = 'agenthq_http_request_duration_seconds_count{method="GET",route="/api/v1/teams/<uuid:team_id>",status="%s"}'
    before = values(client)
    assert team.owner.get(team.path).status_code == 200
    assert client.get(f"/api/v1{team.path}").status_code == 401
    after = values(client)
    for status in ("200", "401"):
        assert after[name % status] == before.get(name % status, 0) + 1
    entered = "agenthq_enter_team_seconds_count"
    assert after[entered] > before[entered]
    assert str(team.id) not in client.get("/metrics").text


def test_what_waits_is_the_databases(client: FlaskClient, team: TeamSetting) -> None:
    drain()
    fold()
    assert values(client)["agenthq_backlog_outbox_events"] == 0
    team.task()
    found = values(client)
    assert found["agenthq_database_up"] == 1
    assert found["agenthq_backlog_outbox_events"] == 1
    assert found["agenthq_backlog_outbox_seconds"] >= 0
    assert found["agenthq_backlog_usage_rows"] >= 2


def test_a_token_is_asked_for_if_one_is_set(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = replace(settings(), metrics_token="a token")
    monkeypatch.setattr(metrics, "settings", lambda: asking)
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer another"}).status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer a token"}).status_code == 200


def test_rules_and_dashboard_ask_for_what_there_is(client: FlaskClient) -> None:
    there = client.get("/metrics").text
    declared = set(re.findall(r"^# TYPE (\w+)", there, re.MULTILINE))
    rules = yaml.safe_load((OPERATIONS / "alerts.yml").read_text())["groups"][0]["rules"]
    board = json.loads((OPERATIONS / "dashboard.json").read_text())
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expression in asked:
        for name in re.findall(r"agenthq_\w+", expression):
            assert {name, re.sub(r"_(count|bucket|sum)$", "", name)} & declared, name
