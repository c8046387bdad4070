"""The log's filters, cursors, jump and facets through the API; and a real history, searched."""

import gzip
import os
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from api.schemas.activity import MOST_ACTIONS
from models.database import transaction
from models.events.catalogue import TaskCompleted, TaskCreated, TaskStarted
from models.events.record import record
from tests.factories import TeamSetting, drain, execute, fold_log, make_agent, make_key, make_team

Rows = list[dict[str, Any]]


def page(setting: TeamSetting, below: str = "/activity", **query: Any) -> Any:
    answer = setting.viewer.get(f"{setting.path}{below}", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def log(setting: TeamSetting, **query: Any) -> Rows:
    rows: Rows = page(setting, limit=200, **query)["items"]
    return rows


def refused(setting: TeamSetting, below: str = "/activity", **query: Any) -> dict[str, Any]:
    answer = setting.viewer.get(f"{setting.path}{below}", query_string=query)
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    errors: dict[str, Any] = answer.json["errors"]
    return errors


@pytest.fixture(scope="module")
def lively(app: Flask) -> TeamSetting:
    """A team with rows of people, an agent, a key, two addresses and two workspaces."""
    setting = make_team(app)
    other = setting.owner.post(f"{setting.path}/workspaces", json={"name": "Elsewhere"}).json["id"]
    agent = make_agent(setting)["id"]
    by_agent = make_key(setting, setting.owner, "tasks:create", agent_id=agent)
    by_key = make_key(setting, setting.admin, "tasks:create")
    for caller, address in ((setting.owner, "2001:db8::7"), (by_agent, "192.0.2.1"), (by_key, "2001:db8::7")):
        for workspace in (other, setting.workspace_id):
            made = caller.post(
                f"{setting.path}/workspaces/{workspace}/tasks",
                json={"title": "Read the tides"},
                environ_overrides={"REMOTE_ADDR": address},
            )
            assert made.status_code == 201
    drain()
    refusal = "UPDATE outbox SET outcome = 'denied' WHERE team_id = :id"
    assert setting.owner.post(f"{setting.path}/workspaces", json={"name": "Denied"}).status_code == 201
    execute(refusal, id=setting.id)  # as an event of a refused attempt has it
    drain()
    return setting


@pytest.mark.parametrize(
    "name", ["agent_id", "api_key_id", "workspace_id", "outcome", "ip_address", "user_id", "resource_type"]
)
def test_each_filter_leaves_the_rows_that_have_its_value(lively: TeamSetting, name: str) -> None:
    everything = log(lively)
    values = {row[name] for row in everything} - {None}
    assert values
    for value in values:
        expected = [row for row in everything if row[name] == value]
        assert log(lively, **{name: value}) == expected
        assert len(expected) < len(everything)
        narrower = [row for row in expected if row["action"] == "task_created"]
        assert log(lively, **{name: value, "action": "task_created"}) == narrower


def test_addresses_of_both_families_are_one_however_written(lively: TeamSetting) -> None:
    six = log(lively, ip_address="2001:db8::7")
    assert len(six) == 4
    assert log(lively, ip_address="2001:0DB8:0:0::0007") == six
    assert len(log(lively, ip_address="192.0.2.1")) == 2
    for absent in ("192.0.2.2", "::1", "::ffff:192.0.2.1"):
        assert log(lively, ip_address=absent) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("ip_address", value)
            for value in ("", "192.0.2", "192.0.2.256", "192.0.2.1/32", "::g", "1", "x" * 99)
        ),
        *(("outcome", value) for value in ("", "Denied", "failure")),
        *(("agent_id", value) for value in ("", "x")),
        ("q", ""),
        ("q", "  "),
        ("q", "x" * 201),
        ("q", "a\x00b"),
        ("action", ""),
        ("action", "x" * 101),
        ("at", "yesterday"),
        ("at", "2026-01-01"),
    ],
)
def test_a_value_that_is_none_is_refused_by_its_name(lively: TeamSetting, name: str, value: str) -> None:
    assert name in refused(lively, **{name: value})


def test_the_longest_values_are_taken(lively: TeamSetting) -> None:
    assert log(lively, q="x" * 200) == []
    assert log(lively, action="x" * 100) == []
    actions = [f"action_{number}" for number in range(MOST_ACTIONS - 1)]
    assert len(log(lively, action=[*actions, "task_created"])) == 6
    assert list(refused(lively, action=[*actions, "task_created", "one_more"])) == ["action"]


def test_an_id_in_the_details_is_found_by_the_whole_of_it(lively: TeamSetting) -> None:
    (task, *_) = log(lively, action="task_created")
    found = log(lively, q=task["resource_id"].upper())
    assert found == [task]
    assert log(lively, q=task["resource_id"][:-1]) == []


def test_pages_lead_both_ways(lively: TeamSetting) -> None:
    whole = log(lively)
    first = page(lively, limit=5)
    assert (first["items"], first["previous_cursor"]) == (whole[:5], None)
    second = page(lively, limit=5, cursor=first["next_cursor"])
    assert second["items"] == whole[5:10]
    back = page(lively, limit=5, cursor=second["previous_cursor"])
    assert (back["items"], back["previous_cursor"]) == (whole[:5], None)
    assert page(lively, limit=5, cursor=back["next_cursor"])["items"] == whole[5:10]


def test_a_cursor_back_leads_nowhere_in_a_list_of_one_way(lively: TeamSetting) -> None:
    first = page(lively, limit=2)
    second = page(lively, limit=2, cursor=first["next_cursor"])
    answer = lively.viewer.get(f"{lively.path}/workspaces?cursor={second['previous_cursor']}")
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["cursor"])
    assert set(page(lively, "/workspaces")) == {"items", "next_cursor"}


@pytest.mark.parametrize(
    "cursor", ["eyJhIjpbIjEiXX0", "eyJiZWZvcmUiOiIxIn0", "eyJiZWZvcmUiOlsieCJdfQ", "e30", "W10"]
)
def test_a_cursor_that_is_none_is_refused(lively: TeamSetting, cursor: str) -> None:
    assert list(refused(lively, cursor=cursor)) == ["cursor"]


def test_a_time_is_jumped_to(lively: TeamSetting) -> None:
    whole = log(lively)
    for position, row in enumerate(whole):
        jumped = page(lively, at=row["created_at"], limit=200)
        newest = next(each for each in whole if each["created_at"] <= row["created_at"])
        assert jumped["items"] == whole[whole.index(newest) :]
        newer = page(lively, cursor=jumped["previous_cursor"], limit=200)
        assert newer["items"] == whole[: whole.index(newest)]
        assert position >= whole.index(newest)
    assert page(lively, at="2000-01-01T00:00:00Z")["items"] == []
    assert page(lively, at="9999-12-31T23:59:59.999999Z", limit=200)["items"] == whole
    early = page(lively, at="2000-01-01T00:00:00Z")
    assert page(lively, cursor=early["previous_cursor"], limit=200)["items"] == whole
    for name in ("user_id", "action"):
        value = whole[3][name]
        jumped = page(lively, at=whole[3]["created_at"], limit=1, **{name: value})
        assert jumped["items"][0][name] == value


def test_a_page_begins_at_a_time_or_at_a_cursor(lively: TeamSetting) -> None:
    cursor = page(lively, limit=1)["next_cursor"]
    assert list(refused(lively, at="2026-01-01T00:00:00Z", cursor=cursor)) == ["at"]


def test_facets_count_what_the_log_shows(lively: TeamSetting) -> None:
    queries: list[dict[str, str]] = [
        {},
        {"workspace_id": str(lively.workspace_id)},
        {"since": log(lively)[4]["created_at"]},
    ]
    for folded in (False, True):
        if folded:
            fold_log()
        for query in queries:
            rows, facets = log(lively, **query), page(lively, "/activity/facets", **query)
            assert facets["total"] == len(rows)
            for kind, field in (
                ("actions", "action"),
                ("users", "user_id"),
                ("agents", "agent_id"),
                ("workspaces", "workspace_id"),
            ):
                counted = {facet[field]: facet["count"] for facet in facets[kind]}
                assert counted == Counter(row[field] for row in rows if row[field] is not None)
    names = {facet["name"] for facet in page(lively, "/activity/facets")["users"]}
    assert names == {"Owner", "Admin"}


def test_facets_refuse_what_they_cannot_count(lively: TeamSetting) -> None:
    for name, value in (("q", "tides"), ("user_id", str(uuid7())), ("limit", "5")):
        assert list(refused(lively, "/activity/facets", **{name: value})) == [name]
    assert list(refused(lively, "/activity/facets", since="today")) == ["since"]


# A real history


@pytest.fixture(scope="module")
def history() -> Rows:
    """The changes of the file that TRACE names."""
    path = os.environ.get("TRACE")
    if not path or not Path(path).exists():
        pytest.skip("TRACE names no file with a history (docs: make demo TRACE=…)")
    with gzip.open(path) as file:
        return [orjson.loads(line) for line in file]


def test_a_real_history_is_searched(app: Flask, history: Rows) -> None:
    largest, _ = Counter(change["team"] for change in history).most_common(1)[0]
    changes = [change for change in history if change["team"] == largest][:3_000]
    setting = make_team(app)
    with transaction() as session:
        access = setting.owner.enter(session, setting.id)
        for change in changes:
            task: dict[str, Any] = {
                "task_id": uuid7(),
                "workspace_id": setting.workspace_id,
                "title": change["title"] or "-",
                "assignee_id": None,
            }
            record(session, access, TaskCreated(**task, status="pending"))
            record(session, access, TaskStarted(**task, status="processing", attempt=1))
            record(
                session, access, TaskCompleted(**task, status="completed", llm_tokens_used=change["files"])
            )
    drain()
    fold_log()
    counted = page(setting, "/activity/facets")["actions"]
    for action in ("task_created", "task_started", "task_completed"):
        assert {"action": action, "count": len(changes)} in counted
    words = Counter(word for change in changes for word in change["title"].lower().split() if len(word) > 2)
    ranked = [word for word, _ in words.most_common()]
    for word in (*ranked[:3], *ranked[50:53], *ranked[-3:], "no such word anywhere"):
        expected = [change["title"] for change in changes if word in change["title"].lower()][::-1]
        found: list[str] = []
        cursor = None
        while True:
            query = {"q": word.upper(), "action": "task_created", "limit": 200}
            answer = page(setting, **query, **({"cursor": cursor} if cursor else {}))
            found += [row["resource_name"] for row in answer["items"]]
            if (cursor := answer["next_cursor"]) is None:
                break
        assert found == expected, word
