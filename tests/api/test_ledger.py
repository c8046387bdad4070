"""The ledger's rows: tokens by part and model, where they were used and who sees it, and corrections."""

from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask

from tests.api.test_usage import at_once, event, month, report
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    execute,
    fetch,
    fold,
    make_agent,
    make_key,
    make_team,
)

AT = "2026-03-05T12:00:00Z"
MARCH = {"from": "2026-03-01", "to": "2026-03-31"}
PARTS = {"input": 10, "cached_input": 1_000, "output": 20, "reasoning": 3}


def rows(setting: TeamSetting, by: Person | None = None, **query: Any) -> list[dict[str, Any]]:
    query = {**MARCH, "limit": 200, **query}
    answer = (by or setting.owner).get(f"{setting.path}/usage/ledger", query_string=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json["items"]
    return items


def correct(setting: TeamSetting, ledger_id: str, by: Person | None = None) -> Answer:
    body = {"ledger_id": ledger_id, "reason": "counted twice"}
    return (by or setting.owner).post(f"{setting.path}/usage/corrections", json=body)


def vault(setting: TeamSetting) -> str:
    """A private workspace that lists the owner alone."""
    made = setting.owner.post(f"{setting.path}/workspaces", json={"name": "Vault", "visibility": "private"})
    return str(made.json["id"])


def test_a_tasks_tokens_are_counted_by_disjoint_parts(team: TeamSetting) -> None:
    task = team.task()
    path = f"{team.path}/tasks/{task['id']}"
    assert team.member.post(f"{path}/start").status_code == 200
    done = team.member.post(f"{path}/complete", json={"tokens": {**PARTS, "output": 0}, "model": "large"})
    assert (done.status_code, done.json["llm_tokens_used"]) == (200, 1_013)
    items = team.viewer.get(f"{team.path}/usage/ledger?metric=llm_tokens_used").json["items"]
    assert {row["part"]: row["quantity"] for row in items} == {
        "input": 10,
        "cached_input": 1_000,
        "reasoning": 3,
    }
    assert {(row["model"], row["workspace_id"], row["user_id"]) for row in items} == {
        ("large", str(team.workspace_id), str(team.member.id))
    }
    (stats,) = fetch(
        "SELECT sum(quantity) AS tokens FROM usage_pending WHERE team_id = :id AND metric = 'llm_tokens_used'",
        id=team.id,
    )
    assert stats.tokens == 1_013
    assert team.member.post(f"{path}/complete", json={"tokens": PARTS}).status_code == 409


def test_tokens_that_are_not_told_apart_are_of_a_model_too(team: TeamSetting) -> None:
    path = f"{team.path}/tasks/{team.task()['id']}"
    assert team.member.post(f"{path}/start").status_code == 200
    body = {"llm_tokens_used": 7, "model": "large"}
    assert team.member.post(f"{path}/complete", json=body).json["llm_tokens_used"] == 7
    items = team.viewer.get(f"{team.path}/usage/ledger").json["items"]
    assert {(row["metric"], row["quantity"], row["model"], row["part"]) for row in items if row["model"]} == {
        ("llm_tokens_used", 7, "large", None)
    }
    assert "tasks_completed" in {row["metric"] for row in items}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tokens": PARTS, "llm_tokens_used": 5}, "llm_tokens_used"),
        ({"model": "large"}, "model"),
        ({"tokens": {"input": -1}}, "tokens"),
        ({"tokens": {"input": 2**53 + 1}}, "tokens"),
        ({"tokens": {"image": 1}}, "tokens"),
    ],
)
def test_tokens_that_make_no_sense_are_422(team: TeamSetting, body: dict[str, Any], field: str) -> None:
    path = f"{team.path}/tasks/{team.task()['id']}"
    assert team.member.post(f"{path}/start").status_code == 200
    refused = team.member.post(f"{path}/complete", json=body)
    assert (refused.status_code, list(refused.json["errors"])) == (422, [field])
    most = {"tokens": dict.fromkeys(PARTS, 2**53)}
    assert team.member.post(f"{path}/complete", json=most).json["llm_tokens_used"] == 2**55


def test_a_report_says_of_which_model_part_and_workspace(team: TeamSetting) -> None:
    at = {"occurred_at": AT, "model": "large", "workspace_id": str(team.workspace_id)}
    events = [event(quantity, part=part, **at) for part, quantity in PARTS.items()]
    assert report(team, *events).status_code == 202
    found = rows(team)
    assert {row["part"]: row["quantity"] for row in found} == PARTS
    assert {row["external_id"] for row in found} == {each["external_id"] for each in events}
    assert month(team, 3)["llm_tokens_used"] == sum(PARTS.values())
    assert rows(team, part="output") == [row for row in found if row["part"] == "output"]
    for name in ("model", "part"):
        refused = report(team, event(1, "api_calls", occurred_at=AT, **{name: "output"}))
        assert list(refused.json["errors"]["events"]["0"]) == [name]


def test_a_workspace_of_a_report_is_one_that_its_sender_sees(app: Flask, team: TeamSetting) -> None:
    private, foreign = vault(team), str(make_team(app).workspace_id)
    good = event(1, occurred_at=AT, workspace_id=str(team.workspace_id))
    bad = [event(1, occurred_at=AT, workspace_id=each) for each in (private, foreign)]
    refused = report(team, good, *bad)
    assert refused.status_code == 422
    assert refused.json["errors"]["events"] == {
        str(index): {"workspace_id": ["There is no such workspace here."]} for index in (1, 2)
    }
    assert rows(team) == []
    owners = team.owner.post(f"{team.path}/usage", json={"events": [bad[0]]})
    assert owners.json == {"accepted": 1, "duplicates": 0}


def test_a_repeat_is_a_duplicate_though_its_workspace_is_gone(team: TeamSetting) -> None:
    made = team.owner.post(f"{team.path}/workspaces", json={"name": "Lab"}).json["id"]
    once = event(1, occurred_at=AT, workspace_id=made)
    assert report(team, once).status_code == 202
    assert team.owner.delete(f"{team.path}/workspaces/{made}").status_code == 204
    assert report(team, once).json == {"accepted": 0, "duplicates": 1}
    assert report(team, event(1, occurred_at=AT, workspace_id=made)).status_code == 422
    assert [row["workspace_id"] for row in rows(team)] == [made]


def test_where_is_hidden_from_whom_the_workspace_is(team: TeamSetting) -> None:
    private = vault(team)
    body = {"events": [event(5, occurred_at=AT, workspace_id=private)]}
    assert team.owner.post(f"{team.path}/usage", json=body).status_code == 202
    for gone in (False, True):
        (row,) = rows(team)
        assert (row["workspace_id"], row["key"] is None) == (private, False)
        (seen,) = rows(team, by=team.admin)
        hidden = {**row, "workspace_id": None, "key": None, "external_id": None}
        assert seen == hidden
        assert team.admin.get(f"{team.path}/usage/ledger/{row['id']}").json == hidden
        assert rows(team, by=team.admin, workspace_id=private) == []
        assert rows(team, by=team.admin, workspace_id="") == [hidden]
        assert rows(team, workspace_id="") == []
        assert month(team, 3)["llm_tokens_used"] == 5
        if not gone:
            assert team.owner.delete(f"{team.path}/workspaces/{private}").status_code == 204


def test_filters_narrow_and_an_empty_one_finds_those_without(team: TeamSetting) -> None:
    agent = make_agent(team)["id"]
    key = make_key(team, team.owner, "usage:create", agent_id=agent)
    by_agent = [event(1, occurred_at=AT, model="large", part="input"), event(2, "api_calls", occurred_at=AT)]
    assert key.post(f"{team.path}/usage", json={"events": by_agent}).status_code == 202
    assert (
        report(team, event(4, occurred_at=AT), event(8, occurred_at="2026-04-01T00:00:00Z")).status_code
        == 202
    )

    def found(**query: Any) -> set[int]:
        return {row["quantity"] for row in rows(team, **query)}

    assert found() == {1, 2, 4}
    assert found(metric="llm_tokens_used") == {1, 4}
    assert found(user_id=str(team.member.id)) == {4}
    assert found(agent_id=agent) == found(api_key_id=key.key_id) == {1, 2}
    assert found(agent_id="") == found(api_key_id="") == {4}
    assert (found(model="large"), found(model=""), found(part="")) == ({1}, {2, 4}, {2, 4})
    assert (found(model="small"), found(to="2026-03-04"), found(to="2026-04-01")) == (
        set(),
        set(),
        {1, 2, 4, 8},
    )
    assert found(**{"from": "2026-03-05", "to": "2026-03-05"}) == {1, 2, 4}
    assert found(agent_id=agent, metric="api_calls") == {2}


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("user_id=x", "user_id"),
        ("workspace_id=x", "workspace_id"),
        ("set_id=", "set_id"),
        ("metric=", "metric"),
        ("model=" + "x" * 201, "model"),
        ("part=%00", "part"),
        ("from=2026-03-02&to=2026-03-01", "to"),
        ("from=2025-01-01&to=2026-01-03", "from"),
    ],
)
def test_a_bad_filter_is_422(shared: TeamSetting, query: str, name: str) -> None:
    answer = shared.owner.get(f"{shared.path}/usage/ledger?{query}")
    assert (answer.status_code, list(answer.json["errors"])) == (422, [name])


def test_pages_hold_each_row_once(team: TeamSetting) -> None:
    # Five at one moment, and five more.
    times = [AT] * 5 + [f"2026-03-0{day}T00:00:00Z" for day in range(1, 6)]
    assert report(team, *(event(1, occurred_at=at) for at in times)).status_code == 202
    seen: list[Any] = []
    query: dict[str, Any] = {**MARCH, "limit": 3}
    while query:
        page = team.viewer.get(f"{team.path}/usage/ledger", query_string=query).json
        seen += page["items"]
        query = {**MARCH, "limit": 3, "cursor": page["next_cursor"]} if page["next_cursor"] else {}
    assert [row["id"] for row in seen] == [row["id"] for row in rows(team)]
    assert len({row["id"] for row in seen}) == 10
    assert [row["occurred_at"] for row in seen] == sorted((row["occurred_at"] for row in seen), reverse=True)


def test_a_correction_takes_a_row_back_where_it_was(team: TeamSetting) -> None:
    at = {"occurred_at": AT, "model": "large", "part": "output", "workspace_id": str(team.workspace_id)}
    assert report(team, event(5, **at), event(7, **at)).status_code == 202
    fold()
    wrong = next(row for row in rows(team) if row["quantity"] == 7)
    answer = correct(team, wrong["id"])
    assert answer.status_code == 201
    same = (
        "metric",
        "occurred_at",
        "user_id",
        "agent_id",
        "api_key_id",
        "workspace_id",
        "model",
        "part",
        "set_id",
    )
    assert {name: answer.json[name] for name in same} == {name: wrong[name] for name in same}
    assert (answer.json["quantity"], answer.json["reverses"], answer.json["reason"]) == (
        -7,
        wrong["id"],
        "counted twice",
    )
    assert team.viewer.get(f"{team.path}/usage/ledger/{wrong['id']}").json["reversed_by"] == answer.json["id"]
    for _ in range(2):
        assert month(team, 3)["llm_tokens_used"] == 5
        fold()
    (cell,) = fetch(
        "SELECT quantity, model, part FROM usage_breakdowns WHERE team_id = :id AND metric = 'llm_tokens_used'",
        id=team.id,
    )
    assert tuple(cell) == (5, "large", "output")


def test_a_row_is_taken_back_once_and_a_correction_never(app: Flask, team: TeamSetting) -> None:
    assert report(team, event(7, occurred_at=AT)).status_code == 202
    (row,) = rows(team)
    team.member.token = team.owner.token  # at_once calls as the member
    answers = at_once(app, team, lambda person: correct(team, row["id"], by=person), 6)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    (made,) = (answer.json for answer in answers if answer.status_code == 201)
    assert correct(team, made["id"]).status_code == 409
    assert month(team, 3)["llm_tokens_used"] == 0


def test_a_correction_keeps_the_storage_above_zero(team: TeamSetting) -> None:
    for quantity, day in ((10, 1), (-6, 2), (20, 3)):
        at = f"2026-03-0{day}T12:00:00Z"
        assert report(team, event(quantity, "storage_bytes", occurred_at=at)).status_code == 202
    last, less, first = rows(team)
    assert correct(team, first["id"]).status_code == 409
    assert correct(team, less["id"]).status_code == 201
    assert month(team, 3)["storage_bytes"] == 30
    assert correct(team, first["id"]).status_code == 201
    assert correct(team, last["id"]).status_code == 201
    assert month(team, 3)["storage_bytes"] == 0


def test_a_hard_limit_gets_back_what_was_wrong(team: TeamSetting) -> None:
    execute(
        "INSERT INTO usage_quotas (team_id, metric, maximum, period) "
        "VALUES (:id, 'llm_tokens_used', 10, date_trunc('month', now()))",
        id=team.id,
    )
    assert report(team, event(10)).status_code == 202
    assert report(team, event(1)).status_code == 402
    row = team.owner.get(f"{team.path}/usage/ledger?metric=llm_tokens_used").json["items"][0]
    assert correct(team, row["id"]).status_code == 201
    assert report(team, event(10)).status_code == 202
    assert report(team, event(1)).status_code == 402


def test_who_reports_usage_does_not_correct_it(team: TeamSetting) -> None:
    assert report(team, event(7, occurred_at=AT)).status_code == 202
    (row,) = rows(team)
    refused = correct(team, row["id"], by=team.member)
    assert (refused.status_code, refused.json["missing"]) == (403, "billing:update")
    assert correct(team, row["id"], by=team.admin).status_code == 201


def test_another_teams_row_is_none(app: Flask, team: TeamSetting) -> None:
    other = make_team(app)
    assert report(other, event(7, occurred_at=AT)).status_code == 202
    (row,) = rows(other)
    assert correct(team, row["id"]).status_code == 404
    assert team.owner.get(f"{team.path}/usage/ledger/{row['id']}").status_code == 404
    assert rows(team) == []
    assert month(other, 3)["llm_tokens_used"] == 7


def test_the_smallest_change_has_an_opposite(team: TeamSetting) -> None:
    largest = 2**63 - 1
    assert (
        report(team, *(event(largest, "storage_bytes", occurred_at=AT) for _ in range(2))).status_code == 202
    )
    assert report(team, event(-largest - 1, "storage_bytes", occurred_at=AT)).status_code == 422
    assert report(team, event(-largest, "storage_bytes", occurred_at=AT)).status_code == 202
    row = next(row for row in rows(team) if row["quantity"] < 0)
    assert correct(team, row["id"]).json["quantity"] == largest
    assert month(team, 3)["storage_bytes"] == 2 * largest


def test_every_breakdown_opens_to_its_rows(team: TeamSetting) -> None:
    key = make_key(team, team.admin, "usage:create")
    spots = [{"model": "a b&c"}, {"part": "input"}, {"workspace_id": str(team.workspace_id)}, {}]
    for number, (by, spot) in enumerate((by, spot) for by in (team.member, key) for spot in spots):
        body = {"events": [event(2**number, occurred_at=f"2026-03-0{number % 3 + 1}T00:00:00Z", **spot)]}
        assert by.post(f"{team.path}/usage", json=body).status_code == 202
    private = {"events": [event(1_000, occurred_at=AT, workspace_id=vault(team))]}
    assert team.owner.post(f"{team.path}/usage", json=private).status_code == 202
    groups = ["user", "agent", "api_key", "workspace", "model", "part", "date"]
    for folded in (False, True):
        for by in (team.owner, team.viewer):
            for several in ([], ["user"], ["workspace"], ["model", "part"], ["date", "api_key"], groups):
                query = urlencode({**MARCH, "group_by": several or ["user"]}, doseq=True)
                answer = by.get(f"{team.path}/usage/breakdown?{query}&limit=200")
                assert answer.status_code == 200, answer.text
                items = answer.json["items"]
                assert sum(item["quantity"] for item in items) == 1_255
                for item in items:
                    opened = by.get(item["ledger"].removeprefix("/api/v1")).json["items"]
                    assert sum(row["quantity"] for row in opened) == item["quantity"], (item, folded)
        fold()
