"""What operators watch: the figures are there, true, and name nobody."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from flask.testing import FlaskClient

from api import metrics
from models.settings import settings
from tests.factories import TeamSetting, drain, execute, fold, make_delivery, make_webhook

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
    before = values(client)["agenthq_backlog_outbox_events"]
    team.task()
    found = values(client)
    assert found["agenthq_database_up"] == 1
    assert found["agenthq_backlog_outbox_events"] == before + 1
    assert found["agenthq_backlog_outbox_seconds"] >= 0
    assert found["agenthq_backlog_usage_rows"] >= 2


def test_a_token_is_asked_for_if_one_is_set(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = replace(settings(), metrics_token="token1, token2")
    monkeypatch.setattr(metrics, "settings", lambda: asking)
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer another"}).status_code == 404
    for token, status in (
        ("token1", 200),
        ("token2", 200),
        ("token1,", 404),
        ("token1, token2", 404),
        ("", 404),
    ):
        assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == status


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


def test_what_waits_elsewhere_is_told(client: FlaskClient, team: TeamSetting) -> None:
    before = values(client)
    webhook = make_webhook(team)
    make_delivery(webhook)
    drain()
    execute("UPDATE webhooks SET due_at = now() - interval '100 s' WHERE id = :id", id=webhook["id"])
    execute("INSERT INTO mails (id, kind, due_at) VALUES (uuid7(), 'nothing', now() - interval '50 s')")
    execute("INSERT INTO mails (id, kind, failed_at) VALUES (uuid7(), 'nothing', now())")
    after = values(client)
    execute("DELETE FROM mails WHERE kind = 'nothing'")
    execute("DELETE FROM webhooks WHERE id = :id", id=webhook["id"])
    for name, more in (("webhooks", 1), ("deliveries_dead", 1), ("mails", 1), ("mails_failed", 1)):
        assert after[f"agenthq_backlog_{name}"] == before[f"agenthq_backlog_{name}"] + more, name
    longest = max(100, before["agenthq_backlog_webhooks_seconds"])
    assert longest <= after["agenthq_backlog_webhooks_seconds"] < longest + 60
    assert after["agenthq_backlog_mails_seconds"] >= 50


COUNT = """
import os
from models import metrics
metrics.MAILS.labels("sent").inc(3)
metrics.TASK_SECONDS.labels("a task", "success").observe(0.02)
metrics.SOCKETS.inc(7)
"""
READ = "import sys; from models import metrics; metrics.MAILS.labels('sent').inc(); sys.stdout.buffer.write(metrics.counted())"


def test_what_the_dead_counted_stays_in_one_file_and_what_they_had_open_goes(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(code: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
        ).stdout

    for _ in range(3):
        run(COUNT)
    assert len(list(tmp_path.glob("*.db"))) == 9
    for more in (1, 2):
        said = run(READ)
        assert f'agenthq_mails_total{{outcome="sent"}} {9 + more}.0' in said
        assert 'agenthq_task_duration_seconds_count{outcome="success",task="a task"} 3.0' in said
        assert 'agenthq_task_duration_seconds_bucket{le="0.025",outcome="success",task="a task"} 3.0' in said
        assert 'agenthq_task_duration_seconds_bucket{le="0.01",outcome="success",task="a task"} 0.0' in said
        assert "agenthq_sockets 0.0" in said  # whoever reads has none, and the others are gone
    names = {file.name for file in tmp_path.glob("*.db")}
    assert {"counter_gone.db", "histogram_gone.db"} <= names
    assert len(names) == 5  # and the last reader's counter, histogram and gauge


def test_each_panel_has_a_place_and_each_rule_a_name_of_its_own() -> None:
    board = json.loads((OPERATIONS / "dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    rules = yaml.safe_load((OPERATIONS / "alerts.yml").read_text())["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_every_metric_is_on_the_dashboard(client: FlaskClient) -> None:
    declared = set(re.findall(r"^# TYPE (agenthq_\w+)", client.get("/metrics").text, re.MULTILINE))
    shown = (OPERATIONS / "dashboard.json").read_text() + (OPERATIONS / "alerts.yml").read_text()
    assert {name for name in declared if not name.endswith("_created") and name not in shown} == set()
