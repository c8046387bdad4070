"""A team as there are: people of two languages, long titles, work in every state, agents at it for weeks."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flask import Flask
from uuid_utils.compat import uuid7

from models.database import transaction
from models.operations import usage
from models.operations.usage import UsageEvent
from models.tables.usage import Metric
from tests import billing
from tests.factories import (
    Person,
    TeamSetting,
    drain,
    execute,
    fold,
    fold_log,
    invite,
    join,
    make_agent,
    make_delivery,
    make_key,
    make_person,
    make_role,
    make_team,
    make_webhook,
)

PEOPLE = {
    "owner": ("김민지", "minji.kim"),
    "admin": ("Oliver Brandt", "oliver"),
    "member": ("이서준", "seojun.lee"),
    "viewer": ("Amara Okafor", "amara.okafor"),
}
FURTHER = (
    ("member", "박하늘", "haneul.park"),
    ("member", "María José Fernández de la Vega", "mj.fernandez.de.la.vega"),
    ("viewer", "최유진", "yujin.choi"),
)
WORK = (
    # title, what becomes of it, tokens
    ("주간 고객 문의를 주제별로 묶고 답변 초안 쓰기", "completed", 48_210),
    ("Summarize the week's incident reports for the Monday meeting", "completed", 18_900),
    ("Extract invoice totals from the September statements", "completed", 231_744),
    ("경쟁사 가격표 비교표 만들기", "completed", 90_350),
    ("Draft release notes for 4.2", "processing", 0),
    ("번역 검수: 결제 화면의 한국어 문구 전체를 살펴보고 어색한 표현을 자연스럽게 고치기", "processing", 0),
    ("Find duplicated customers in the CRM export", "failed", 0),
    (
        "Check the flaky test tests/payments/test_refunds.py::test_partial_refund_of_a_settled_charge",
        "pending",
        0,
    ),
    ("설문 응답 1,200건 감성 분류", "pending", 0),
    ("Collect press mentions", "pending", 0),
    ("Old experiment", "cancelled", 0),
)
FAILURE = "The export has no column “customer_id”; found: id, name, e-mail."


@dataclass
class Scene:
    team: TeamSetting
    newcomer: Person
    """With a team in which nothing is yet."""
    empty_team_id: UUID
    ids: dict[str, Any]
    """What stands in pages' paths, by the name that the route gives it."""


def make_scene(app: Flask) -> Scene:
    team = make_team(app)
    for role, names in PEOPLE.items():
        _call(team.owner if role == "owner" else team.people[role], *names)
    for role, name, mailbox in FURTHER:
        _call(join(team, role), name, mailbox)
    execute("UPDATE teams SET name = '서울 리서치 Lab' WHERE id = :id", id=team.id)
    execute("UPDATE workspaces SET name = 'Customer research' WHERE id = :id", id=team.workspace_id)
    rooms = [team.workspace_id] + [
        UUID(_made(team.owner, f"{team.path}/workspaces", body)["id"])
        for body in ({"name": "결제·정산"}, {"name": "Board papers", "visibility": "private"})
    ]
    scout = make_agent(team, "member", "Digest")
    translator = make_agent(team, "member", "번역가")
    make_role(team, "auditor", "teams:read", "members:read", "activity:read", "usage:read", "billing:read")
    make_key(team, team.owner, "tasks:read", "tasks:create", name="CI pipeline")
    make_key(team, team.owner, "tasks:read", "tasks:update", agent_id=translator["id"], name="Translator")
    for email, role in (("jiwoo.han@example.com", "member"), ("external.auditor@example.org", "auditor")):
        invite(team, email, role)
    webhook = make_webhook(team, by=team.owner, enabled=False)
    task = _work(team, rooms, scout)
    refused = team.viewer.post(f"{team.path}/workspaces", json={"name": "Mine"})
    assert refused.status_code == 403
    drain()
    make_delivery(webhook)
    fold()
    _weeks_of_usage(team)
    fold()
    drain()
    fold_log()
    backfill = _made(
        team.owner,
        f"{team.path}/usage/backfills",
        {"name": "September export", "reason": "The reporter was down for a week"},
    )
    ledger = team.owner.get(f"{team.path}/usage/ledger").json["items"]
    newcomer = make_person(app, "Newcomer")
    _call(newcomer, "정다은", "daeun.jung")
    empty = _made(newcomer, "/teams", {"name": "New ideas"})["id"]
    drain()
    ids = {
        "team_id": team.id,
        "workspace_id": team.workspace_id,
        "task_id": task,
        "user_id": team.member.id,
        "webhook_id": webhook["id"],
        "backfill_id": backfill["id"],
        "ledger_id": ledger[0]["id"],
        "invoice_id": billing.invoices(team)[0].id,
    }
    return Scene(team, newcomer, UUID(empty), ids)


def _call(person: Person, name: str, mailbox: str) -> None:
    email = f"{mailbox}@lab-{person.id.hex[-4:]}.example"
    execute(
        "UPDATE users SET name = :name, email = :email, email_normalized = :email, email_verified_at = now() WHERE id = :id",
        name=name,
        email=email,
        id=person.id,
    )
    person.name, person.email = name, email


def _made(by: Person, path: str, body: dict[str, Any]) -> Any:
    answer = by.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json


def _work(team: TeamSetting, rooms: list[UUID], agent: dict[str, Any]) -> str:
    """The id of a completed task."""
    shown = ""
    for number, (title, state, tokens) in enumerate(WORK):
        path = f"{team.path}/workspaces/{rooms[number % len(rooms)]}/tasks"
        body = {"title": title, "prompt": "Use the shared style guide.\nKeep it to one page."}
        if number % 3 == 0 or state == "processing":
            body["assignee_id"] = str(team.owner.id)
        task = f"{team.path}/tasks/{_made(team.owner, path, body)['id']}"
        ends: dict[str, list[tuple[str, dict[str, Any]]]] = {
            "completed": [
                ("start", {}),
                ("complete", {"llm_tokens_used": tokens, "result": {"summary": "Three themes.", "pages": 1}}),
            ],
            "processing": [("start", {})],
            "failed": [("start", {}), ("fail", {"error": FAILURE})],
            "cancelled": [("cancel", {})],
        }
        for verb, sent in ends.get(state, []):
            answer = team.owner.post(f"{task}/{verb}", json=sent)
            assert answer.status_code == 200, answer.text
        if number % 4 == 1:
            execute(
                "UPDATE tasks SET agent_id = :agent WHERE id = :id",
                agent=agent["id"],
                id=task.rpartition("/")[2],
            )
        if state == "completed":
            shown = task.rpartition("/")[2]
    return shown


def _weeks_of_usage(team: TeamSetting) -> None:
    """Of this month and the last, quieter at weekends, by two people."""
    today = datetime.now(UTC).replace(hour=9, minute=0, second=0, microsecond=0)
    first = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    billing.on_plans(team, ("pro", first.date().isoformat(), None))
    for person, part in ((team.owner, 0.6), (team.member, 0.4)):
        events = []
        for ago in range(1, (today - first).days + 1):
            on = today - timedelta(days=ago)
            share = part * (0.15 if on.weekday() >= 5 else 1.0) * (0.7 + (ago * 37 % 50) / 100)
            for metric, quantity in ((Metric.llm_tokens_used, 2_310_000), (Metric.tasks_completed, 22)):
                events.append(UsageEvent(uuid7().hex, metric, max(1, int(quantity * share)), on))
        with transaction() as session:
            usage.report(session, person.enter(session, team.id), events)
    billing.draft(team)
    execute("UPDATE month_closes SET due_at = now() WHERE team_id = :id", id=team.id)
    billing.finalize(team)
