"""The activity log: what it says of each change, its filters, and paging through it while it grows."""

import datetime as dt
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

import workers.usage
from models.database import transaction
from models.events.catalogue import CATALOGUE
from models.operations import activity_exports as operations
from models.operations import erasures, payments, price_books, refusals, suspensions, webhooks
from models.queries import activity_exports
from models.tables import Webhook
from tests import billing
from tests.books import load_reissue
from tests.factories import (
    Person,
    TeamSetting,
    drain,
    execute,
    fold,
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

FIELDS = {
    "seq", "id", "team_id", "user_id", "action", "resource_type", "resource_id", "resource_name", "summary",
    "metadata", "ip_address", "user_agent", "request_id", "created_at", "agent_id", "api_key_id", "workspace_id",
    "outcome", "schema_version",
}  # fmt: skip
Rows = list[dict[str, Any]]
INVITED = "ina@example.org"


def log(setting: TeamSetting, **query: Any) -> Rows:
    answer = setting.viewer.get(f"{setting.path}/activity", query_string=query)
    assert answer.status_code == 200, answer.text
    rows: Rows = answer.json["items"]
    return rows


def actions(rows: Rows) -> list[str]:
    return [row["action"] for row in rows]


def make_everything_happen(app: Flask) -> TeamSetting:
    """Causes every event of the catalogue through the API; the log is read by a viewer who stays."""
    setting = make_team(app)
    owner, path, member = setting.owner, setting.path, setting.member
    leaver, removed = make_person(app, "Lea"), make_person(app, "Rem")

    def do(method: str, below: str, body: Any = None, by: Person = owner) -> Any:
        answer = by.call(method, path + below, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json if answer.data else None

    do("PATCH", "", {"name": "Tides"})
    do("PUT", "/plan", {"plan": "enterprise"})
    make_refusals_happen(setting)
    make_limits_happen(setting)
    for person in (leaver, removed):
        do("POST", "/members", {"user_id": str(person.id), "role": "viewer"})
    do("PATCH", f"/members/{removed.id}", {"role": "member"})
    do("DELETE", f"/members/{removed.id}")
    do("DELETE", f"/members/{leaver.id}", by=leaver)
    workspace = do("POST", "/workspaces", {"name": "Answers"})["id"]
    do("PATCH", f"/workspaces/{workspace}", {"name": "Replies"})
    tasks = [
        do("POST", f"/workspaces/{workspace}/tasks", {"title": title}, by=member)["id"]
        for title in ("Write", "Count", "Sing")
    ]
    do("PATCH", f"/tasks/{tasks[0]}", {"title": "Write it down"})
    do("POST", f"/tasks/{tasks[0]}/start", by=member)
    do("POST", f"/tasks/{tasks[0]}/complete", {"llm_tokens_used": 42}, by=member)
    do("POST", f"/tasks/{tasks[1]}/start")
    do("POST", f"/tasks/{tasks[1]}/fail", {"error": "lost {count} at 100%"})
    do("POST", f"/tasks/{tasks[2]}/cancel")
    do("DELETE", f"/tasks/{tasks[2]}")
    claimed = do("POST", f"/workspaces/{workspace}/tasks", {"title": "Wait"})["id"]
    do("POST", f"/workspaces/{workspace}/tasks/claim", {}, by=member)
    execute("UPDATE tasks SET lease_expires_at = now() WHERE id = :id", id=claimed)
    do("POST", f"/workspaces/{workspace}/tasks/claim", {}, by=member)
    make_memberships_happen(setting, workspace)
    do("PUT", "/legal-hold", {"reason": "The case"})
    do("DELETE", "/legal-hold")
    for happens in (suspensions.suspend_team, suspensions.reinstate_team):
        with transaction() as session:
            happens(session, setting.id, reason="The bill")
    make_exports_happen(setting)
    make_usage_happen(setting)
    make_invoices_happen(setting)
    do("DELETE", f"/workspaces/{workspace}")
    make_webhooks_happen(setting)
    owner.delete(path)
    assert owner.post(f"{path}/restore").status_code == 200
    do("POST", "/transfer-ownership", {"user_id": str(setting.admin.id)})
    drain()
    return setting


def make_limits_happen(setting: TeamSetting) -> None:
    """Half of what the plan includes is used, and an operator moves the team to another price book."""
    half = {"external_id": "half", "metric": "llm_tokens_used", "quantity": 1_000_000_000}
    assert setting.owner.post(f"{setting.path}/usage", json={"events": [half]}).status_code == 202
    fold()
    version = load_reissue()
    execute("UPDATE plan_periods SET price_book = 1 WHERE team_id = :id AND ends_at IS NULL", id=setting.id)
    with transaction() as session:
        assert price_books.move(session, setting.id, version)


def make_memberships_happen(setting: TeamSetting, workspace: str) -> None:
    """What has to do with invitations, suspension, roles, lists, agents and keys."""
    owner, path, member = setting.owner, setting.path, setting.member

    def do(method: str, below: str, body: Any = None) -> None:
        answer = owner.call(method, path + below, json=body)
        assert answer.status_code < 300, answer.text

    for verb in ("suspend", "reactivate"):
        do("POST", f"/members/{member.id}/{verb}")
    listed = f"/workspaces/{workspace}/members/{member.id}"
    for role in (None, "viewer"):
        do("PUT", listed, {"role": role})
    do("DELETE", listed)
    make_role(setting, "auditor", "activity:read")
    do("PATCH", "/roles/auditor", {"permissions": ["activity:read", "usage:read"]})
    do("DELETE", "/roles/auditor")
    accepts, declines = make_person(owner.app, "Acc"), make_person(owner.app, "Dec")
    token = invite(setting, accepts.email)["token"]
    assert accepts.post("/invitations/accept", json={"token": token}).status_code == 200
    declines.verify_email()
    declined = invite(setting, declines.email, "member")["id"]
    assert declines.post(f"/me/invitations/{declined}/decline").status_code == 204
    invited = invite(setting, INVITED, "member")["id"]
    do("POST", f"/invitations/{invited}/resend")
    do("DELETE", f"/invitations/{invited}")
    agent = make_agent(setting)["id"]
    do("PATCH", f"/agents/{agent}", {"description": "Looks ahead"})
    key = make_key(setting, owner, "tasks:read", agent_id=agent)
    do("DELETE", f"/api-keys/{key.key_id}")
    make_key(setting, owner, "tasks:read", agent_id=agent)
    do("DELETE", f"/agents/{agent}")


def make_refusals_happen(setting: TeamSetting) -> None:
    """One that is named, and one more than are; and a member who is erased."""
    erased = make_person(setting.owner.app, "Era")
    path, body = setting.path, {"user_id": str(erased.id), "role": "viewer"}
    assert setting.owner.post(f"{path}/members", json=body).status_code == 201
    assert erased.post(f"{path}/workspaces", json={"name": "A"}).status_code == 403
    with transaction() as session:
        erasures.erase(session, erasures.lock(session, erased.id), in_person=True)
    execute(
        "INSERT INTO refused_attempts (team_id, actor_id, permission, method, route, repeats, since)"
        " VALUES (:id, :nobody, '', '', '', 7, now() - interval '1 hour')",
        id=setting.id,
        nobody=refusals.NOBODY,
    )
    maintenance.fold_refusals()


def make_exports_happen(setting: TeamSetting) -> None:
    """One that fails, and is deleted; and the viewer reads the log, which is noted once."""
    path = f"{setting.path}/activity"
    export_id = UUID(setting.admin.post(f"{path}/exports", json={"format": "csv"}).json["id"])
    with transaction() as session:
        access = setting.admin.enter(session, setting.id)
        export = activity_exports.get(session, access, export_id)
        export.state, export.attempt_id = "running", export_id
        attempt = operations.Attempt(export_id, export_id, access, activity_exports.request_of(export))
        session.flush()
        operations.failed(session, attempt, "No space is left", for_good=True)
    assert setting.admin.delete(f"{path}/exports/{export_id}").status_code == 204
    log(setting)


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    """Whose viewer was noted as a reader of the log."""
    setting = make_team(app)
    log(setting)
    return setting


def make_webhooks_happen(setting: TeamSetting) -> None:
    webhook = make_webhook(setting)
    below = f"{setting.path}/webhooks/{webhook['id']}"
    delivery = make_delivery(webhook)
    execute("UPDATE webhooks SET delivered_seq = 3 WHERE id = :id", id=webhook["id"])
    for path, body in (
        ("/rotate-secret", None),
        ("/test", None),
        ("/replay", {"from_seq": 1}),
        (f"/deliveries/{delivery}/redeliver", None),
    ):
        answer = setting.owner.post(below + path, json=body)
        assert answer.status_code == 200, answer.text
    with transaction() as session:
        row = session.get(Webhook, UUID(webhook["id"]), with_for_update=True)
        assert row is not None
        webhooks.disable(session, row, webhooks.FAILING)
    assert setting.owner.patch(below, json={"description": "Ours"}).status_code == 200
    assert setting.owner.delete(below).status_code == 204


def make_usage_happen(setting: TeamSetting) -> None:
    """What has to do with usage beside its counting."""
    owner, path = setting.owner, f"{setting.path}/usage"

    def do(below: str, body: Any = None) -> Any:
        answer = owner.post(path + below, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json

    reservation = {"external_id": "lost", "metric": "llm_tokens_used", "quantity": 70}
    reserved = do("/reservations", reservation)["id"]
    execute("UPDATE usage_reservations SET expires_at = now() WHERE id = :id", id=reserved)
    workers.usage.mark_unsettled()
    tokens = {"external_id": "wrong", "metric": "llm_tokens_used", "quantity": 5}
    do("", {"events": [tokens]})
    row = owner.get(f"{path}/ledger?metric=llm_tokens_used").json["items"][0]
    do("/corrections", {"ledger_id": row["id"], "reason": "counted twice"})
    backfill = do("/backfills", {"name": "May", "reason": "the exporter was down"})["id"]
    do(f"/backfills/{backfill}/events", {"events": [tokens, {**tokens, "external_id": "late"}]})
    do(f"/backfills/{backfill}/apply")
    do(f"/backfills/{backfill}/revert")


def make_invoices_happen(setting: TeamSetting) -> None:
    """Three months on the pro plan: the first one's invoice is voided, and the others' are not paid, and paid."""
    billing.on_plans(setting, ("pro", "2025-01-01", "2025-04-01"), ("pro", "2026-01-01", None))
    execute(
        "UPDATE plan_periods SET starts_at = now() WHERE team_id = :id AND ends_at IS NULL", id=setting.id
    )
    details = {"name": "Tides Ltd", "address": "1 Quay"}
    assert setting.owner.put(f"{setting.path}/billing-details", json=details).status_code == 200
    billing.close(setting)
    voided, unpaid, paid = [row.id for row in billing.invoices(setting)]
    answer = setting.owner.post(f"{setting.path}/invoices/{voided}/void", json={"reason": "wrong buyer"})
    assert answer.status_code == 201
    for invoice_id, state in ((unpaid, "failed"), (paid, "paid")):
        execute(
            "UPDATE payments SET reference = CAST(:id AS text) WHERE invoice_id = CAST(:id AS uuid)",
            id=str(invoice_id),
        )
        with transaction() as session:
            payments.settle(session, "null", str(invoice_id), state)


@pytest.fixture(scope="module")
def eventful(app: Flask) -> TeamSetting:
    return make_everything_happen(app)


SUMMARIES = {
    "team_created": "Owner created the team Design",
    "team_updated": "Owner changed the team Tides",
    "team_deleted": "Owner deleted the team Tides",
    "team_restored": "Owner restored the team Tides",
    "ownership_transferred": "Owner handed the team Tides over to another owner",
    "legal_hold_placed": "Owner placed a legal hold on the team Tides: The case",
    "legal_hold_released": "Owner released the legal hold on the team Tides: The case",
    "team_suspended": "The system suspended the team Tides: The bill",
    "team_reinstated": "The system lifted the suspension of the team Tides: The bill",
    "permission_denied": (
        "Erased person was refused workspaces:create: POST /api/v1/teams/{team_id}/workspaces (attempts: 1)"
    ),
    "permission_denials_summed": "The system counted 7 more refused attempts than it names in a minute",
    "member_erased": "Erased person ended the membership of Erased person by erasing the account",
    "plan_changed": "Owner changed the plan from pro to enterprise",
    "price_book_changed": "The system moved the enterprise plan to version 2 of the price book",
    "usage_limit_reached": "The system noticed that llm_tokens_used reached 50 percent of what the plan includes",
    "member_added": "Owner added Rem as viewer",
    "member_removed": "Owner removed Rem",
    "member_left": "Lea left the team",
    "member_role_changed": "Owner changed the role of Rem from viewer to member",
    "member_suspended": "Owner suspended Member",
    "member_reactivated": "Owner lifted the suspension of Member",
    "invitation_created": f"Owner invited {INVITED} as member",
    "invitation_resent": f"Owner invited {INVITED} as member again",
    "invitation_revoked": f"Owner revoked the invitation of {INVITED}",
    "invitation_declined": "Dec declined the invitation as member",
    "invitation_accepted": "Acc accepted the invitation and joined as viewer",
    "role_created": "Owner made the role auditor",
    "role_updated": "Owner changed the role auditor",
    "role_deleted": "Owner deleted the role auditor",
    "agent_created": "Owner made the agent Scout with the role member",
    "agent_updated": "Owner changed the agent Scout",
    "agent_deleted": "Owner deleted the agent Scout with its 1 keys",
    "api_key_created": "Owner made the API key Robot",
    "api_key_revoked": "Owner revoked the API key Robot",
    "workspace_member_added": "Owner added a member to the workspace Replies",
    "workspace_member_role_changed": "Owner changed a member's role in the workspace Replies",
    "workspace_member_removed": "Owner took a member off the workspace Replies",
    "workspace_created": "Owner created the workspace Answers",
    "workspace_updated": "Owner changed the workspace Replies",
    "workspace_deleted": "Owner deleted the workspace Replies with its 3 tasks",
    "webhook_created": "Owner made a webhook to 127.0.0.1:65535",
    "webhook_updated": "Owner changed the webhook to 127.0.0.1:65535",
    "webhook_deleted": "Owner deleted the webhook to 127.0.0.1:65535",
    "webhook_secret_rotated": "Owner rotated the secret of the webhook to 127.0.0.1:65535",
    "webhook_disabled": "The system disabled the webhook to 127.0.0.1:65535: failing",
    "webhook_tested": "Owner sent a test to the webhook to 127.0.0.1:65535",
    "webhook_replayed": "Owner had the events 1 to 3 sent again to the webhook to 127.0.0.1:65535",
    "webhook_redelivered": "Owner had the event 1 sent again to the webhook to 127.0.0.1:65535",
    "task_created": "Owner created the task Wait",
    "task_updated": "Owner changed the task Write it down",
    "task_started": "Member started the task Wait",
    "task_returned": "The system made the task Wait pending again, as its lease ran out",
    "task_completed": "Member completed the task Write it down with 42 tokens",
    "task_failed": "Owner reported the task Count as failed: lost {count} at 100%",
    "task_cancelled": "Owner cancelled the task Sing",
    "task_deleted": "Owner deleted the task Sing",
    "activity_read": "Viewer read the activity log",
    "activity_exported": "Admin exported the activity log as csv",
    "activity_export_finished": "The system finished an export of the activity log: failed",
    "activity_export_deleted": "Admin deleted an export of the activity log",
    "usage_unsettled": "The system found 1 reservations unsettled, of 70 tokens at most",
    "usage_corrected": "Owner took back 5 of llm_tokens_used: counted twice",
    "usage_backfill_created": "Owner opened the backfill May: the exporter was down",
    "usage_backfill_applied": "Owner applied the backfill May: 1 counted, 1 known before",
    "usage_backfill_reverted": "Owner took the backfill May back: 1 rows",
    "invoice_finalized": "The system finalized the invoice {number} over 49.00 USD",
    "invoice_voided": "Owner voided the invoice {number} by the credit note {credit_note}: wrong buyer",
    "invoice_paid": "The system noted that the invoice {number} is paid",
    "invoice_payment_failed": "The system noted that paying the invoice {number} failed",
    "billing_details_updated": "Owner changed who the invoices of Tides are made out to",
}
"""What the newest row of each action says."""


@pytest.mark.parametrize("action", SUMMARIES)
def test_each_event_says_in_a_sentence_what_happened(eventful: TeamSetting, action: str) -> None:
    newest = log(eventful, action=action, limit=1)[0]
    said = newest["metadata"]
    expected = SUMMARIES[action].replace("{number}", said.get("name", ""))
    assert newest["summary"] == expected.replace("{credit_note}", said.get("credit_note", ""))
    assert newest["resource_type"] == CATALOGUE[action].resource_type


def test_every_event_of_the_catalogue_is_told(eventful: TeamSetting) -> None:
    assert set(SUMMARIES) == set(CATALOGUE) - {"activity_purged"}  # after which team_created is gone
    assert set(actions(log(eventful, limit=200))) == set(SUMMARIES)


def test_the_log_is_numbered_without_gaps_newest_first(eventful: TeamSetting) -> None:
    rows = log(eventful, limit=200)
    assert [row["seq"] for row in rows] == list(range(len(rows), 0, -1))
    assert [row["created_at"] for row in rows] == sorted((row["created_at"] for row in rows), reverse=True)
    assert len({row["id"] for row in rows}) == len(rows)


def test_a_row_has_its_fields_and_where_the_request_came_from(team: TeamSetting) -> None:
    answer = team.member.post(
        f"{team.path}/workspaces",
        json={"name": "Answers"},
        headers={"X-Request-Id": "the-request.1", "User-Agent": "an agent/1.0"},
        environ_overrides={"REMOTE_ADDR": "2001:db8::7"},
    )
    drain()
    row = log(team, action="workspace_created", limit=1)[0]
    assert set(row) == FIELDS
    assert (row["ip_address"], row["user_agent"], row["request_id"]) == (
        "2001:db8::7",
        "an agent/1.0",
        "the-request.1",
    )
    assert (row["team_id"], row["user_id"], row["resource_id"], row["resource_name"]) == (
        str(team.id),
        str(team.member.id),
        answer.json["id"],
        "Answers",
    )
    assert row["metadata"] == {"workspace_id": answer.json["id"], "name": "Answers"}
    assert row["created_at"] == answer.json["created_at"]


def test_an_update_tells_before_and_after(team: TeamSetting) -> None:
    assert team.owner.patch(team.path, json={"name": "Tides"}).status_code == 200
    drain()
    assert log(team, action="team_updated")[0]["metadata"]["changes"] == {"name": ["Design", "Tides"]}


def test_a_refused_change_leaves_no_row(team: TeamSetting) -> None:
    drain()
    before = len(log(team))
    task = team.task()
    refused = [
        team.viewer.post(f"{team.path}/workspaces", json={"name": "A"}),
        team.owner.post(f"{team.path}/workspaces", json={"name": ""}),
        team.member.post(f"{team.path}/tasks/{task['id']}/complete", json={}),
        team.member.patch(
            f"{team.path}/tasks/{task['id']}", json={"assignee_id": str(make_person(team.owner.app).id)}
        ),
        team.owner.delete(f"{team.path}/members/{team.owner.id}"),
    ]
    assert [answer.status_code for answer in refused] == [403, 422, 409, 422, 409]
    drain()
    rows = log(team)
    assert [row["action"] for row in rows[:-before]] == ["permission_denied", "task_created"]


def test_filters_by_action(eventful: TeamSetting) -> None:
    assert actions(log(eventful, action="task_failed")) == ["task_failed"]
    both = eventful.viewer.get(f"{eventful.path}/activity?action=task_failed&action=task_deleted")
    assert actions(both.json["items"]) == ["task_deleted", "task_failed"]
    assert log(eventful, action="no_such_action") == []


def test_filters_by_person_and_thing(eventful: TeamSetting) -> None:
    everything = log(eventful, limit=200)
    mine = log(eventful, user_id=str(eventful.member.id))
    assert mine == [row for row in everything if row["user_id"] == str(eventful.member.id)]
    assert len(mine) == 7
    tasks = log(eventful, resource_type="task", limit=200)
    assert tasks == [row for row in everything if row["resource_type"] == "task"]
    (deleted,) = log(eventful, action="task_deleted")
    one = log(eventful, resource_id=deleted["resource_id"])
    assert actions(one) == ["task_deleted", "task_cancelled", "task_created"]
    assert log(eventful, user_id=str(eventful.member.id), resource_id=deleted["resource_id"]) == one[2:]
    assert actions(log(eventful, user_id=str(eventful.viewer.id))) == ["activity_read"]
    assert log(eventful, user_id=str(make_person(eventful.owner.app).id)) == []


def test_filters_by_time_from_since_on_and_before_until(team: TeamSetting) -> None:
    for number in range(3):
        team.owner.post(f"{team.path}/workspaces", json={"name": str(number)})
    drain()
    rows = log(team)
    middle = rows[1]["created_at"]
    assert rows[0]["created_at"] > middle > rows[2]["created_at"]
    assert log(team, since=middle) == rows[:2]
    assert log(team, until=middle) == rows[2:]
    assert log(team, since=rows[2]["created_at"], until=rows[0]["created_at"]) == rows[1:3]
    assert log(team, since=rows[0]["created_at"], until=rows[0]["created_at"]) == []
    elsewhere = dt.datetime.fromisoformat(middle).astimezone(dt.timezone(dt.timedelta(hours=9)))
    assert log(team, since=elsewhere.isoformat()) == rows[:2]


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("write", {"task_created", "task_updated", "task_started", "task_completed"}),
        ("WRITE IT", {"task_updated", "task_started", "task_completed"}),
        ("100%", {"task_failed"}),
        ("{count}", {"task_failed"}),
        ("lea", {"member_added", "member_left", "legal_hold_released"}),
        ("enterprise", {"plan_changed", "price_book_changed"}),
        ("0_%", set()),
        ("no such thing", set()),
    ],
)
def test_searches_names_titles_and_details_in_any_case(
    eventful: TeamSetting, q: str, found: set[str]
) -> None:
    rows = log(eventful, q=q, limit=200)
    assert set(actions(rows)) == found


def test_searches_for_what_was_written_and_not_for_how_it_is_kept(team: TeamSetting) -> None:
    task = team.task(title="Ärger")
    assert team.member.post(f"{team.path}/tasks/{task['id']}/start").status_code == 200
    failed = team.member.post(f"{team.path}/tasks/{task['id']}/fail", json={"error": 'said "No"\\\nand left'})
    assert failed.status_code == 200
    drain()
    assert len(log(team, q="äRGER")) == 3
    for q in ('"no"', "\\\nand", "NO"):
        assert "task_failed" in actions(log(team, q=q))
    for q in ("assignee_id", '":', "\\n"):
        assert log(team, q=q) == []


def test_pages_have_no_gaps_and_no_repeats_while_new_rows_arrive(team: TeamSetting) -> None:
    for number in range(7):
        team.owner.post(f"{team.path}/workspaces", json={"name": str(number)})
    drain()
    expected = [row["seq"] for row in log(team)]
    seen: list[int] = []
    cursor = None
    while True:
        query = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = team.viewer.get(f"{team.path}/activity", query_string=query).json
        seen += [row["seq"] for row in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
        assert len(page["items"]) == 3
        team.owner.post(f"{team.path}/workspaces", json={"name": "meanwhile"})
        drain()
    assert seen == expected
    assert len(log(team)) > len(expected)


def test_filters_hold_on_every_page(eventful: TeamSetting) -> None:
    everything = log(eventful, resource_type="task", limit=200)
    first = eventful.viewer.get(f"{eventful.path}/activity?resource_type=task&limit=4").json
    second = eventful.viewer.get(
        f"{eventful.path}/activity",
        query_string={"resource_type": "task", "limit": 200, "cursor": first["next_cursor"]},
    ).json
    assert first["items"] + second["items"] == everything
    assert second["next_cursor"] is None


def test_a_log_holds_its_own_team_alone(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, owner=team.owner)
    drain()
    assert {row["team_id"] for row in log(team)} == {str(team.id)}
    assert {row["team_id"] for row in log(other)} == {str(other.id)}
