"""Every event of the catalogue, recorded by the operation that it belongs to; and none where nothing changed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import Actor, Origin
from models.access.credentials import Credential, hash_secret
from models.access.entry import Access, enter, enter_team
from models.database import transaction
from models.errors import Conflict, DomainError, Invalid
from models.events import catalogue
from models.events.catalogue import CATALOGUE, Event
from models.events.record import EVENTS_RECORDED
from models.operations import (
    activity_exports,
    agents,
    api_keys,
    backfills,
    billing_details,
    closing,
    corrections,
    erasures,
    invitations,
    invoices,
    members,
    payments,
    price_books,
    refusals,
    reservations,
    retention,
    roles,
    suspensions,
    tasks,
    teams,
    usage,
    webhooks,
    workspaces,
)
from models.operations.closing import TeamMonth
from models.operations.usage import Unit, UsageEvent
from models.posting import Answer
from models.queries import activity as log
from models.queries import ledger, users
from models.queries import members as member_queries
from models.queries import roles as role_queries
from models.queries import tasks as task_queries
from models.queries import teams as team_queries
from models.queries import workspaces as workspace_queries
from models.queries.activity_exports import ExportRequest
from models.queries.activity_filters import ActivityFilter
from models.queries.ledger import LedgerFilter
from models.queries.paging import Page
from models.queries.roles import RoleView
from models.tables import (
    ActivityExport,
    Agent,
    ApiKey,
    Invitation,
    Invoice,
    MonthClose,
    Payment,
    PermissionGrant,
    RefusedAttempt,
    Task,
    Team,
    TeamMember,
    UsageBackfill,
    Webhook,
    WebhookDelivery,
    Workspace,
    WorkspaceMember,
)
from models.tables.usage import Metric
from tests.billing import ISSUER
from tests.books import REISSUE, load_reissue
from tests.factories import Person, TeamSetting, drain, execute, fold, make_person

ORIGIN = Origin("192.0.2.1", "a test", "the-request")
LONG_AFTER = datetime(2099, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(1999, 1, 1, tzinfo=UTC)


@dataclass
class Scene:
    """A team in which something is about to happen, as the person who does it sees it."""

    setting: TeamSetting
    actor: Person
    task_id: UUID
    newcomer: Person
    session: Session
    access: Access
    arranged: Any = None
    """The row that was made for the act to change, with no event."""

    @property
    def team(self) -> Team:
        return team_queries.get(self.session, self.access, for_update=True)

    @property
    def workspace(self) -> Workspace:
        return workspace_queries.get(self.session, self.access, self.setting.workspace_id, for_update=True)

    @property
    def task(self) -> Task:
        return task_queries.get(self.session, self.access, self.task_id, for_update=True)

    def member(self, role: str) -> TeamMember:
        return member_queries.get(self.session, self.access, self.setting.people[role].id)

    @property
    def args(self) -> tuple[Session, Access]:
        return self.session, self.access

    @property
    def as_person(self) -> tuple[Session, Actor]:
        """What somebody does who is not in the team."""
        return self.session, enter(self.session, Credential(self.actor.token, ORIGIN))

    def arrange(self, row: Any) -> Any:
        self.session.add(row)
        self.session.flush()
        self.arranged = row
        return row

    def invitation(self) -> Invitation:
        """The newcomer's, who has proved to read its address."""
        self.session.execute(
            text("UPDATE users SET email_verified_at = now() WHERE id = :id"), {"id": self.newcomer.id}
        )
        invitation: Invitation = self.arrange(
            Invitation(
                team_id=self.setting.id,
                email=self.newcomer.email,
                email_normalized=self.newcomer.email,
                role="viewer",
                invited_by=self.setting.owner.id,
                token_hash=hash_secret(self.newcomer.token),
                expires_at=LONG_AFTER,
            )
        )
        return invitation

    def role(self) -> RoleView:
        self.arrange(
            PermissionGrant(team_id=self.setting.id, role="auditor", resource="activity", action="read")
        )
        return role_queries.get(self.session, self.access, "auditor")

    def agent(self) -> Agent:
        agent: Agent = self.arrange(
            Agent(team_id=self.setting.id, name="Scout", role="member", created_by=self.setting.owner.id)
        )
        return agent

    def key(self, agent: Agent | None = None) -> ApiKey:
        key: ApiKey = self.arrange(
            ApiKey(
                team_id=self.setting.id,
                user_id=self.setting.owner.id,
                agent_id=agent and agent.id,
                name="Robot",
                prefix="ahk_",
                key_hash=hash_secret(self.newcomer.token),
                permissions=["tasks:read"],
                expires_at=LONG_AFTER,
            )
        )
        return key

    def listed(self) -> TeamMember:
        """The viewer, in the workspace."""
        self.arrange(
            WorkspaceMember(
                team_id=self.setting.id,
                workspace_id=self.setting.workspace_id,
                user_id=self.setting.viewer.id,
                role="viewer",
            )
        )
        return self.member("viewer")

    def export(self, **values: Any) -> ActivityExport:
        export: ActivityExport = self.arrange(
            ActivityExport(
                team_id=self.setting.id,
                user_id=self.setting.owner.id,
                session_id=self.access.session_id,
                format="csv",
                proof=False,
                descending=True,
                filters={},
                **values,
            )
        )
        return export

    def webhook(self) -> Webhook:
        webhook: Webhook = self.arrange(
            Webhook(
                team_id=self.setting.id,
                user_id=self.setting.owner.id,
                url="https://hooks.example/secret?token=secret",
                secret=b"",
                delivered_seq=7,
            )
        )
        return webhook

    def delivery(self, webhook: Webhook) -> WebhookDelivery:
        delivery: WebhookDelivery = self.arrange(
            WebhookDelivery(
                team_id=self.setting.id,
                webhook_id=webhook.id,
                seq=5,
                event_id=webhook.id,
                action="task_created",
                state="dead",
                attempts=15,
            )
        )
        self.arranged = webhook
        return delivery

    def said_of_the_webhook(self, **more: Any) -> dict[str, Any]:
        return {"webhook_id": str(self.arranged.id), "name": "hooks.example", **more}

    def started(self) -> Task:
        """The task in processing, with the event of that out of the way."""
        self.session.execute(
            text("UPDATE tasks SET status = 'processing', started_at = now() WHERE id = :id"),
            {"id": self.task_id},
        )
        return self.task

    def said_of_the_task(self, status: str, **more: Any) -> dict[str, Any]:
        return {
            "task_id": str(self.task_id),
            "workspace_id": str(self.setting.workspace_id),
            "title": "Write",
            "status": status,
            "assignee_id": None,
            **more,
        }

    @property
    def said_of_the_team(self) -> dict[str, Any]:
        return {"team_id": str(self.setting.id), "name": "Design"}

    @property
    def said_of_the_workspace(self) -> dict[str, Any]:
        return {"workspace_id": str(self.setting.workspace_id), "name": "Research"}

    def said_of_a_list(self, role: str | None, **more: Any) -> dict[str, Any]:
        return {
            **self.said_of_the_workspace,
            "user_id": str(self.setting.viewer.id),
            "role": role,
            **more,
        }

    @property
    def said_of_the_invitation(self) -> dict[str, Any]:
        return {"invitation_id": str(self.arranged.id), "role": "viewer"}

    @property
    def said_of_the_viewer(self) -> dict[str, Any]:
        return {"user_id": str(self.setting.viewer.id), "role": "viewer"}


SYSTEM = "system"
"""Nobody: what the product does of itself."""
NEWCOMER = "newcomer"


@dataclass
class Case:
    type: str
    act: Callable[[Scene], Any]
    payload: Callable[[Scene], dict[str, Any]]
    sentence: str
    by: str = "owner"


def transfer(scene: Scene) -> None:
    members.transfer_ownership(*scene.args, scene.team, user_id=scene.setting.member.id)


def add(scene: Scene) -> None:
    newcomer = users.get(scene.session, scene.newcomer.id)
    members.add(*scene.args, scene.team, user=newcomer, role="viewer")


def add_who_was_invited(scene: Scene) -> None:
    scene.invitation()
    add(scene)


def restore(scene: Scene) -> None:
    scene.session.execute(
        text("UPDATE teams SET deleted_at = now() WHERE id = :id"), {"id": scene.setting.id}
    )
    teams.restore(*scene.as_person, scene.setting.id)


def reinstate_team(scene: Scene) -> None:
    scene.session.execute(
        text("UPDATE teams SET suspended_at = now() WHERE id = :id"), {"id": scene.setting.id}
    )
    suspensions.reinstate_team(scene.session, scene.setting.id, reason="Paid")


def reactivate(scene: Scene) -> None:
    viewer = scene.member("viewer")
    viewer.suspended_at = LONG_AFTER
    scene.session.flush()
    members.reactivate(*scene.args, scene.team, viewer)


def delete_agent(scene: Scene) -> None:
    agent = scene.agent()
    scene.key(agent)
    scene.arranged = agent
    agents.delete(*scene.args, agent)


def make_key(scene: Scene) -> UUID:
    made = api_keys.create(
        *scene.args, name="Robot", permissions=["tasks:read", "teams:read"], expires_at=LONG_AFTER
    )
    return made.row.id


def redeliver(scene: Scene) -> None:
    webhook = scene.webhook()
    webhooks.redeliver(*scene.args, webhook, scene.delivery(webhook))


def let_a_lease_run_out(scene: Scene) -> None:
    scene.session.execute(
        text(
            "UPDATE tasks SET status = 'processing', attempts = 3, lease_id = gen_random_uuid(), lease_expires_at = now() "
            "WHERE id = :id"
        ),
        {"id": scene.task_id},
    )
    assert tasks.return_expired(scene.session, 1_000) == 1


def release(scene: Scene) -> None:
    scene.session.execute(
        text("UPDATE teams SET held_at = now(), hold_reason = 'The case of the tides' WHERE id = :id"),
        {"id": scene.setting.id},
    )
    retention.release(*scene.args, scene.team)


def refuse(scene: Scene) -> None:
    refusals.note(
        scene.session,
        scene.access.named,
        "tasks:create",
        method="POST",
        route="/api/v1/teams/{team_id}",
        count=2,
    )


def refuse_more_than_are_named(scene: Scene) -> None:
    scene.arrange(
        RefusedAttempt(
            team_id=scene.setting.id,
            actor_id=refusals.NOBODY,
            permission="",
            method="",
            route="",
            repeats=3,
            since=LONG_AGO,
        )
    )
    assert refusals.fold(scene.session, 1) == 1


def erase(scene: Scene) -> None:
    erasures.erase(scene.session, erasures.lock(scene.session, scene.setting.viewer.id), in_person=False)


SEARCH = ExportRequest(ActivityFilter(action=["task_created"], q="Ada", ip_address="192.0.2.1"), "csv")


def have_exported(scene: Scene) -> UUID:
    return activity_exports.create(*scene.args, scene.team, SEARCH).export.id


def finish_an_export(scene: Scene) -> None:
    export = scene.export(state="running", attempt_id=scene.task_id)
    attempt = activity_exports.Attempt(export.id, scene.task_id, scene.access, SEARCH)
    assert activity_exports.complete(scene.session, attempt, rows=7, size=70, sha256=b"\xab" * 32)


def let_reservations_expire(scene: Scene) -> None:
    for quantity in (30, 40):
        reservations.reserve(
            *scene.args, external_id=str(quantity), metric=Metric.llm_tokens_used, quantity=quantity
        )
    scene.session.execute(
        text("UPDATE usage_reservations SET expires_at = now() WHERE team_id = :id"), {"id": scene.setting.id}
    )
    assert reservations.mark_unsettled(scene.session, 1_000) >= 2  # and what other tests left


def take_back(scene: Scene) -> None:
    units = [Unit("call", Metric.llm_tokens_used, 42, workspace_id=scene.setting.workspace_id)]
    usage.append(*scene.args, units)
    rows = ledger.in_team(*scene.args, LedgerFilter(metric=Metric.llm_tokens_used), Page()).items
    scene.arranged = corrections.correct(*scene.args, scene.team, rows[0].row.id, reason="twice")


def staged(scene: Scene) -> UsageBackfill:
    """An open set with one unit that the ledger knows and one that it does not."""
    backfill: UsageBackfill = scene.arrange(
        UsageBackfill(team_id=scene.setting.id, name="May", reason="late", created_by=scene.setting.owner.id)
    )
    events = [UsageEvent(name, Metric.llm_tokens_used, 5) for name in ("known", "new")]
    usage.report(*scene.args, events[:1])
    backfills.stage(*scene.args, backfill, events)
    return backfill


def revert(scene: Scene) -> None:
    backfill = scene.arrange(
        UsageBackfill(
            team_id=scene.setting.id,
            name="May",
            reason="late",
            created_by=scene.setting.owner.id,
            state="applied",
            applied_at=LONG_AFTER,
        )
    )
    usage.append(
        *scene.args, [Unit(f"external:{n}", Metric.llm_tokens_used, 1, set_id=backfill.id) for n in range(3)]
    )
    backfills.revert(*scene.args, backfill)


def use_half_of_the_tokens(scene: Scene) -> None:
    half = usage.UsageEvent(uuid7().hex, Metric.llm_tokens_used, 25_000_001)
    usage.report(*scene.args, [half])
    while usage.fold(scene.session, 5_000):
        pass


def finalize(scene: Scene) -> UUID:
    """The invoice of January 2025, in which the team was on the pro plan."""
    scene.session.execute(
        text(
            "UPDATE plan_periods SET plan = 'pro', starts_at = '2025-01-01', ends_at = '2025-02-01' WHERE team_id = :id AND id ="
            " (SELECT min(id::text)::uuid FROM plan_periods WHERE team_id = :id)"
        ),
        {"id": scene.setting.id},
    )
    of = TeamMonth(scene.setting.id, date(2025, 1, 1))
    assert closing.draft(scene.session, of, grace=ISSUER.grace)
    close = closing.finalize(scene.session, of, issuer=ISSUER)
    assert isinstance(close, MonthClose)
    assert close.invoice_id
    scene.arranged = scene.session.get_one(Invoice, close.invoice_id)
    return close.invoice_id


def finalized(scene: Scene) -> Invoice:
    """An invoice, with the event of its finalizing out of the way."""
    finalize(scene)
    scene.session.execute(text("DELETE FROM outbox WHERE team_id = :id"), {"id": scene.setting.id})
    invoice: Invoice = scene.arranged
    return invoice


def void(scene: Scene) -> None:
    scene.arranged = (
        finalized(scene),
        invoices.void(*scene.args, scene.arranged.id, reason="wrong buyer", issuer=ISSUER),
    )


def hear(scene: Scene, state: str) -> None:
    payment = scene.session.get_one(Payment, finalized(scene).id)
    payment.reference = f"in_{payment.invoice_id}"
    scene.session.flush()
    payments.settle(scene.session, "null", payment.reference, state)


def said_of_the_invoice(scene: Scene) -> dict[str, Any]:
    return {"invoice_id": str(scene.arranged.id), "name": scene.arranged.number}


CASES = [
    Case(
        "usage_unsettled",
        let_reservations_expire,
        lambda scene: {"team_id": str(scene.setting.id), "count": 2, "quantity": 70},
        "The system found 2 reservations unsettled, of 70 tokens at most",
        by=SYSTEM,
    ),
    Case(
        "usage_corrected",
        take_back,
        lambda scene: {
            "usage_ledger_id": str(scene.arranged.row.reverses),
            "correction_id": str(scene.arranged.row.id),
            "metric": "llm_tokens_used",
            "quantity": 42,
            "reason": "twice",
            "workspace_id": str(scene.setting.workspace_id),
        },
        "Owner took back 42 of llm_tokens_used: twice",
    ),
    Case(
        "usage_backfill_created",
        lambda scene: backfills.create(*scene.args, name="May", reason="late").id,
        lambda _: {"name": "May", "reason": "late"},
        "Owner opened the backfill May: late",
    ),
    Case(
        "usage_backfill_applied",
        lambda scene: backfills.apply(*scene.args, staged(scene)),
        lambda scene: {
            "usage_backfill_id": str(scene.arranged.id),
            "name": "May",
            "accepted": 1,
            "duplicates": 1,
        },
        "Owner applied the backfill May: 1 counted, 1 known before",
    ),
    Case(
        "usage_backfill_reverted",
        revert,
        lambda scene: {"usage_backfill_id": str(scene.arranged.id), "name": "May", "reversed": 3},
        "Owner took the backfill May back: 3 rows",
    ),
    Case(
        "team_updated",
        lambda scene: teams.update(*scene.args, scene.team, name="Art"),
        lambda scene: {**scene.said_of_the_team, "name": "Art", "changes": {"name": ["Design", "Art"]}},
        "Owner changed the team Art",
    ),
    Case(
        "team_deleted",
        lambda scene: teams.delete(*scene.args, scene.team),
        lambda scene: scene.said_of_the_team,
        "Owner deleted the team Design",
    ),
    Case("team_restored", restore, lambda scene: scene.said_of_the_team, "Owner restored the team Design"),
    Case(
        "ownership_transferred",
        transfer,
        lambda scene: {
            **scene.said_of_the_team,
            "from_user_id": str(scene.setting.owner.id),
            "to_user_id": str(scene.setting.member.id),
        },
        "Owner handed the team Design over to another owner",
    ),
    Case(
        "plan_changed",
        lambda scene: teams.change_plan(*scene.args, scene.team, plan="enterprise"),
        lambda scene: {
            **scene.said_of_the_team,
            "from_plan": "pro",
            "to_plan": "enterprise",
            "max_members": 100_000,
        },
        "Owner changed the plan from pro to enterprise",
    ),
    Case(
        "legal_hold_placed",
        lambda scene: retention.hold(*scene.args, scene.team, reason="The case of the tides"),
        lambda scene: {**scene.said_of_the_team, "reason": "The case of the tides"},
        "Owner placed a legal hold on the team Design: The case of the tides",
    ),
    Case(
        "legal_hold_released",
        release,
        lambda scene: {**scene.said_of_the_team, "reason": "The case of the tides"},
        "Owner released the legal hold on the team Design: The case of the tides",
    ),
    Case(
        "permission_denied",
        refuse,
        lambda scene: {
            "team_id": str(scene.setting.id),
            "permission": "tasks:create",
            "method": "POST",
            "route": "/api/v1/teams/{team_id}",
            "count": 2,
        },
        "Viewer was refused tasks:create: POST /api/v1/teams/{team_id} (attempts: 2)",
        by="viewer",
    ),
    Case(
        "team_suspended",
        lambda scene: suspensions.suspend_team(scene.session, scene.setting.id, reason="Unpaid") and None,
        lambda scene: {**scene.said_of_the_team, "reason": "Unpaid"},
        "The system suspended the team Design: Unpaid",
        by=SYSTEM,
    ),
    Case(
        "team_reinstated",
        reinstate_team,
        lambda scene: {**scene.said_of_the_team, "reason": "Paid"},
        "The system lifted the suspension of the team Design: Paid",
        by=SYSTEM,
    ),
    Case(
        "permission_denials_summed",
        refuse_more_than_are_named,
        lambda scene: {"team_id": str(scene.setting.id), "count": 3},
        "The system counted 3 more refused attempts than it names in a minute",
        by=SYSTEM,
    ),
    Case(
        "member_erased",
        erase,
        lambda scene: {**scene.said_of_the_viewer, "api_keys_revoked": 0},
        "The system ended the membership of Erased person by erasing the account",
        by=SYSTEM,
    ),
    Case(
        "price_book_changed",
        lambda scene: price_books.move(scene.session, scene.setting.id, REISSUE) and None,
        lambda scene: {
            **scene.said_of_the_team,
            "plan": "pro",
            "from_version": 1,
            "to_version": REISSUE,
            "max_members": 50,
        },
        f"The system moved the pro plan to version {REISSUE} of the price book",
        by=SYSTEM,
    ),
    Case(
        "usage_limit_reached",
        use_half_of_the_tokens,
        lambda scene: {
            "team_id": str(scene.setting.id),
            "metric": "llm_tokens_used",
            "threshold": 50,
            "used": 25_000_001,
            "included": 50_000_000,
            "period": datetime.now(UTC).date().replace(day=1).isoformat(),
        },
        "The system noticed that llm_tokens_used reached 50 percent of what the plan includes",
        by=SYSTEM,
    ),
    Case(
        "member_added",
        add,
        lambda scene: {"user_id": str(scene.newcomer.id), "role": "viewer", "invitation_id": None},
        "Owner added Newcomer as viewer",
    ),
    Case(
        "member_added",
        add_who_was_invited,
        lambda scene: {**scene.said_of_the_invitation, "user_id": str(scene.newcomer.id)},
        "Owner added Newcomer as viewer",
    ),
    Case(
        "member_removed",
        lambda scene: members.remove(*scene.args, scene.team, scene.member("viewer")),
        lambda scene: {**scene.said_of_the_viewer, "api_keys_revoked": 0},
        "Owner removed Viewer",
    ),
    Case(
        "member_left",
        lambda scene: members.remove(*scene.args, scene.team, scene.member("viewer")),
        lambda scene: {**scene.said_of_the_viewer, "api_keys_revoked": 0},
        "Viewer left the team",
        by="viewer",
    ),
    Case(
        "member_suspended",
        lambda scene: members.suspend(*scene.args, scene.team, scene.member("viewer")),
        lambda scene: scene.said_of_the_viewer,
        "Owner suspended Viewer",
    ),
    Case(
        "member_reactivated",
        reactivate,
        lambda scene: scene.said_of_the_viewer,
        "Owner lifted the suspension of Viewer",
    ),
    Case(
        "invitation_created",
        lambda scene: (
            invitations.create(*scene.args, scene.team, email="Ina@example.com", role="viewer").invitation.id
        ),
        lambda _: {"role": "viewer"},
        "Owner invited Ina@example.com as viewer",
    ),
    Case(
        "invitation_resent",
        lambda scene: invitations.resend(*scene.args, scene.team, scene.invitation()).invitation.id,
        lambda scene: scene.said_of_the_invitation,
        "Owner invited {newcomer} as viewer again",
    ),
    Case(
        "invitation_revoked",
        lambda scene: invitations.revoke(*scene.args, scene.team, scene.invitation()),
        lambda scene: scene.said_of_the_invitation,
        "Owner revoked the invitation of {newcomer}",
    ),
    Case(
        "invitation_declined",
        lambda scene: invitations.decline(*scene.as_person, scene.invitation().id),
        lambda scene: scene.said_of_the_invitation,
        "Newcomer declined the invitation as viewer",
        by=NEWCOMER,
    ),
    Case(
        "invitation_accepted",
        lambda scene: invitations.accept_waiting(*scene.as_person, scene.invitation().id).id and None,
        lambda scene: {**scene.said_of_the_invitation, "user_id": str(scene.newcomer.id)},
        "Newcomer accepted the invitation and joined as viewer",
        by=NEWCOMER,
    ),
    Case(
        "role_created",
        lambda scene: roles.create(
            *scene.args, scene.team, name="clerk", permissions=["usage:read", "activity:read", "usage:read"]
        ),
        lambda scene: {
            **scene.said_of_the_team,
            "name": "clerk",
            "permissions": ["activity:read", "usage:read"],
        },
        "Owner made the role clerk",
    ),
    Case(
        "role_updated",
        lambda scene: roles.update(
            *scene.args, scene.team, scene.role(), name="clerk", permissions=["usage:read"]
        ),
        lambda scene: {
            **scene.said_of_the_team,
            "name": "clerk",
            "changes": {"name": ["auditor", "clerk"], "permissions": [["activity:read"], ["usage:read"]]},
        },
        "Owner changed the role clerk",
    ),
    Case(
        "role_deleted",
        lambda scene: roles.delete(*scene.args, scene.team, scene.role(), replacement="viewer"),
        lambda scene: {
            **scene.said_of_the_team,
            "name": "auditor",
            "permissions": ["activity:read"],
            "replacement": "viewer",
        },
        "Owner deleted the role auditor",
    ),
    Case(
        "agent_created",
        lambda scene: agents.create(*scene.args, scene.team, name="Scout", role="member").id,
        lambda _: {"name": "Scout", "role": "member"},
        "Owner made the agent Scout with the role member",
    ),
    Case(
        "agent_updated",
        lambda scene: agents.update(*scene.args, scene.team, scene.agent(), role="viewer", name="Scout"),
        lambda scene: {
            "agent_id": str(scene.arranged.id),
            "name": "Scout",
            "role": "viewer",
            "changes": {"role": ["member", "viewer"]},
        },
        "Owner changed the agent Scout",
    ),
    Case(
        "agent_deleted",
        delete_agent,
        lambda scene: {
            "agent_id": str(scene.arranged.id),
            "name": "Scout",
            "role": "member",
            "api_keys_revoked": 1,
        },
        "Owner deleted the agent Scout with its 1 keys",
    ),
    Case(
        "api_key_created",
        make_key,
        lambda scene: {
            "name": "Robot",
            "agent_id": None,
            "user_id": str(scene.setting.owner.id),
            "permissions": ["tasks:read", "teams:read"],
            "expires_at": "2099-01-01T00:00:00+00:00",
        },
        "Owner made the API key Robot",
    ),
    Case(
        "api_key_revoked",
        lambda scene: api_keys.revoke(*scene.args, scene.key()),
        lambda scene: {
            "api_key_id": str(scene.arranged.id),
            "name": "Robot",
            "agent_id": None,
            "user_id": str(scene.setting.owner.id),
        },
        "Owner revoked the API key Robot",
    ),
    Case(
        "workspace_member_added",
        lambda scene: workspaces.set_member(
            *scene.args, scene.team, scene.workspace, scene.member("viewer"), role=None
        ),
        lambda scene: scene.said_of_a_list(None),
        "Owner added a member to the workspace Research",
    ),
    Case(
        "workspace_member_role_changed",
        lambda scene: workspaces.set_member(
            *scene.args, scene.team, scene.workspace, scene.listed(), role="member"
        ),
        lambda scene: scene.said_of_a_list("member", from_role="viewer"),
        "Owner changed a member's role in the workspace Research",
    ),
    Case(
        "workspace_member_removed",
        lambda scene: workspaces.remove_member(*scene.args, scene.team, scene.workspace, scene.listed()),
        lambda scene: scene.said_of_a_list("viewer"),
        "Owner took a member off the workspace Research",
    ),
    Case(
        "member_role_changed",
        lambda scene: members.change_role(*scene.args, scene.team, scene.member("viewer"), role="member"),
        lambda scene: {"user_id": str(scene.setting.viewer.id), "role": "member", "from_role": "viewer"},
        "Owner changed the role of Viewer from viewer to member",
    ),
    Case(
        "workspace_created",
        lambda scene: workspaces.create(*scene.args, name="Lab").id,
        lambda _: {"name": "Lab"},
        "Owner created the workspace Lab",
    ),
    Case(
        "workspace_updated",
        lambda scene: workspaces.update(*scene.args, scene.workspace, name="Lab", description=None),
        lambda scene: {
            **scene.said_of_the_workspace,
            "name": "Lab",
            "changes": {"name": ["Research", "Lab"]},
        },
        "Owner changed the workspace Lab",
    ),
    Case(
        "workspace_deleted",
        lambda scene: workspaces.delete(*scene.args, scene.workspace),
        lambda scene: {**scene.said_of_the_workspace, "tasks_deleted": 1},
        "Owner deleted the workspace Research with its 1 tasks",
    ),
    Case(
        "task_created",
        lambda scene: (
            tasks.create(*scene.args, scene.workspace, title="Read", assignee_id=scene.setting.member.id).id
        ),
        lambda scene: {
            "workspace_id": str(scene.setting.workspace_id),
            "title": "Read",
            "status": "pending",
            "assignee_id": str(scene.setting.member.id),
        },
        "Owner created the task Read",
    ),
    Case(
        "task_updated",
        lambda scene: tasks.update(*scene.args, scene.task, type="code"),
        lambda scene: scene.said_of_the_task("pending", changes={"type": ["general", "code"]}),
        "Owner changed the task Write",
    ),
    Case(
        "task_started",
        lambda scene: tasks.start(*scene.args, scene.task),
        lambda scene: scene.said_of_the_task("processing", attempt=1),
        "Member started the task Write",
        by="member",
    ),
    Case(
        "task_returned",
        let_a_lease_run_out,
        lambda scene: scene.said_of_the_task("pending", attempt=3),
        "The system made the task Write pending again, as its lease ran out",
        by=SYSTEM,
    ),
    Case(
        "task_completed",
        lambda scene: tasks.complete(*scene.args, scene.started(), result={"a": 1}, llm_tokens_used=42),
        lambda scene: scene.said_of_the_task("completed", llm_tokens_used=42),
        "Owner completed the task Write with 42 tokens",
    ),
    Case(
        "task_failed",
        lambda scene: tasks.fail(*scene.args, scene.started(), error="no {braces} meant"),
        lambda scene: scene.said_of_the_task("failed", error="no {braces} meant"),
        "Owner reported the task Write as failed: no {braces} meant",
    ),
    Case(
        "task_cancelled",
        lambda scene: tasks.cancel(*scene.args, scene.task),
        lambda scene: scene.said_of_the_task("cancelled"),
        "Owner cancelled the task Write",
    ),
    Case(
        "task_deleted",
        lambda scene: tasks.delete(*scene.args, scene.task),
        lambda scene: scene.said_of_the_task("pending"),
        "Owner deleted the task Write",
    ),
    Case(
        "activity_exported",
        have_exported,
        lambda scene: {
            "format": "csv",
            "proof": False,
            "descending": True,
            "filters": {"action": ["task_created"], "q": "withheld", "ip_address": "withheld"},
            "as_file": True,
        },
        "Owner exported the activity log as csv",
    ),
    Case(
        "activity_export_finished",
        finish_an_export,
        lambda scene: {
            "export_id": str(scene.arranged.id),
            "state": "completed",
            "rows": 7,
            "sha256": "ab" * 32,
            "error": None,
        },
        "The system finished an export of the activity log: completed",
        by=SYSTEM,
    ),
    Case(
        "activity_export_deleted",
        lambda scene: activity_exports.delete(*scene.args, scene.export()),
        lambda scene: {"export_id": str(scene.arranged.id), "state": "pending"},
        "Owner deleted an export of the activity log",
    ),
    Case(
        "webhook_created",
        lambda scene: (
            webhooks.create(
                *scene.args,
                scene.team,
                url="https://hooks.example/secret?token=secret",
                actions=["task_created", "role_created", "task_created"],
            ).row.id
        ),
        lambda _: {"name": "hooks.example", "actions": ["role_created", "task_created"], "enabled": True},
        "Owner made a webhook to hooks.example",
    ),
    Case(
        "webhook_updated",
        lambda scene: webhooks.update(
            *scene.args, scene.webhook(), url="https://new.example:8443/secret", enabled=False
        ),
        lambda scene: scene.said_of_the_webhook(
            name="new.example:8443",
            changes={"url": ["hooks.example", "new.example:8443"], "enabled": [True, False]},
        ),
        "Owner changed the webhook to new.example:8443",
    ),
    Case(
        "webhook_deleted",
        lambda scene: webhooks.delete(*scene.args, scene.webhook()),
        lambda scene: scene.said_of_the_webhook(),
        "Owner deleted the webhook to hooks.example",
    ),
    Case(
        "webhook_secret_rotated",
        lambda scene: webhooks.rotate_secret(*scene.args, scene.webhook()) and None,
        lambda scene: scene.said_of_the_webhook(),
        "Owner rotated the secret of the webhook to hooks.example",
    ),
    Case(
        "webhook_disabled",
        lambda scene: webhooks.disable(scene.session, scene.webhook(), webhooks.GONE),
        lambda scene: scene.said_of_the_webhook(reason="gone", failing_since=None),
        "The system disabled the webhook to hooks.example: gone",
        by=SYSTEM,
    ),
    Case(
        "webhook_tested",
        lambda scene: webhooks.tested(*scene.args, scene.webhook(), Answer(500, "status", 3)),
        lambda scene: scene.said_of_the_webhook(status=500, error="status"),
        "Owner sent a test to the webhook to hooks.example",
    ),
    Case(
        "webhook_replayed",
        lambda scene: webhooks.replay(*scene.args, scene.webhook(), from_seq=2),
        lambda scene: scene.said_of_the_webhook(from_seq=2, until_seq=7),
        "Owner had the events 2 to 7 sent again to the webhook to hooks.example",
    ),
    Case(
        "webhook_redelivered",
        redeliver,
        lambda scene: scene.said_of_the_webhook(seq=5),
        "Owner had the event 5 sent again to the webhook to hooks.example",
    ),
    Case(
        "invoice_finalized",
        finalize,
        lambda scene: {
            **said_of_the_invoice(scene),
            "period_start": "2025-01-01",
            "period_end": "2025-02-01",
            "total": 4_900,
            "currency": "USD",
            "amount": "49.00 USD",
        },
        "The system finalized the invoice {number} over 49.00 USD",
        by=SYSTEM,
    ),
    Case(
        "invoice_voided",
        void,
        lambda scene: {
            "invoice_id": str(scene.arranged[0].id),
            "name": scene.arranged[0].number,
            "credit_note_id": str(scene.arranged[1].id),
            "credit_note": scene.arranged[1].number,
            "reason": "wrong buyer",
        },
        "Owner voided the invoice {number} by the credit note {credit_note}: wrong buyer",
    ),
    Case(
        "invoice_paid",
        lambda scene: hear(scene, "paid"),
        said_of_the_invoice,
        "The system noted that the invoice {number} is paid",
        by=SYSTEM,
    ),
    Case(
        "invoice_payment_failed",
        lambda scene: hear(scene, "failed"),
        lambda scene: {**said_of_the_invoice(scene), "state": "failed"},
        "The system noted that paying the invoice {number} failed",
        by=SYSTEM,
    ),
    Case(
        "billing_details_updated",
        lambda scene: billing_details.put(
            *scene.args, scene.team, {"name": "Tides Ltd", "address": "1 Quay", "tax_id": None, "email": None}
        ),
        lambda scene: {**scene.said_of_the_team, "fields": ["name", "address"]},
        "Owner changed who the invoices of Design are made out to",
    ),
]
ELSEWHERE = {
    "activity_purged",  # tests/workers/test_retention.py
    "team_created",  # there is no team yet to set a scene in
    "activity_read",  # recorded as the transaction commits: test_activity_reads.py
}


@pytest.fixture
def scene_by(app: Flask, team: TeamSetting) -> Callable[[Session, str], Scene]:
    task_id = UUID(team.task(title="Write")["id"])
    newcomer = make_person(app, "Newcomer")
    load_reissue()
    execute("UPDATE plan_periods SET price_book = 1 WHERE team_id = :id", id=team.id)
    with transaction() as session:
        tasks.return_expired(session, 1_000)  # whatever other tests left
    fold()
    drain()

    def set_scene(session: Session, by: str) -> Scene:
        actor = {NEWCOMER: newcomer, **team.people}.get(by, team.owner)
        within = team.owner if by == NEWCOMER else actor
        access = enter_team(session, Credential(within.token, ORIGIN), team.id)
        return Scene(team, actor, task_id, newcomer, session, access)

    return set_scene


def outbox(team_id: UUID) -> list[Any]:
    with transaction() as session:
        return list(
            session.execute(text("SELECT * FROM outbox WHERE team_id = :id ORDER BY id"), {"id": team_id})
        )


def newest(access: Access) -> log.ActivityView:
    with transaction() as session:
        return log.in_team(session, access, ActivityFilter(), Page(limit=1)).items[0]


def test_the_table_below_holds_every_event() -> None:
    assert set(CATALOGUE) == {*ELSEWHERE, *(case.type for case in CASES)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
def test_a_change_records_its_event(case: Case, scene_by: Callable[[Session, str], Scene]) -> None:
    with transaction() as session:
        scene = scene_by(session, case.by)
        made = case.act(scene)
        assert session.info[EVENTS_RECORDED]
    expected = case.payload(scene)
    if isinstance(made, UUID):
        expected[CATALOGUE[case.type].resource_type + "_id"] = str(made)

    (row,) = outbox(scene.setting.id)
    declared = CATALOGUE[case.type]
    by = None if case.by == SYSTEM else scene.actor.id
    assert (row.action, row.user_id, row.details) == (case.type, by, expected)
    assert (row.resource_type, str(row.resource_id)) == (
        declared.resource_type,
        expected[declared.id_field],
    )
    origin = Origin(row.ip_address and str(row.ip_address), row.user_agent, row.request_id)
    assert origin == (Origin() if case.by == SYSTEM else ORIGIN)

    assert drain() == 1
    shown = newest(scene.access)
    sentence = case.sentence.replace("{newcomer}", scene.newcomer.email)
    sentence = sentence.replace("{number}", str(expected.get("name")))
    sentence = sentence.replace("{credit_note}", str(expected.get("credit_note")))
    assert (shown.row.action, shown.row.details, shown.summary) == (case.type, expected, sentence)
    assert (shown.row.id, shown.row.created_at) == (row.event_id, row.created_at)


def test_a_team_begins_with_the_event_of_its_making(app: Flask) -> None:
    person = make_person(app, "Ada")
    drain()
    with transaction() as session:
        team_id = teams.create(session, enter(session, Credential(person.token, ORIGIN)), name="Alone").id
    (row,) = outbox(team_id)
    assert (row.action, row.user_id) == ("team_created", person.id)
    assert row.details == {"team_id": str(team_id), "name": "Alone"}
    assert drain() == 1
    with transaction() as session:
        access = person.enter(session, team_id)
    shown = newest(access)
    assert (shown.row.seq, shown.summary) == (1, "Ada created the team Alone")


UNCHANGED: dict[str, Callable[[Scene], Any]] = {
    "team": lambda scene: teams.update(*scene.args, scene.team, name="Design"),
    "plan": lambda scene: teams.change_plan(*scene.args, scene.team, plan="pro"),
    "role": lambda scene: members.change_role(*scene.args, scene.team, scene.member("viewer"), role="viewer"),
    "workspace": lambda scene: workspaces.update(
        *scene.args, scene.workspace, name="Research", description=None
    ),
    "task": lambda scene: tasks.update(*scene.args, scene.task, title="Write", assignee_id=None),
    "nothing": lambda scene: tasks.update(*scene.args, scene.task),
    "a suspension": lambda scene: members.reactivate(*scene.args, scene.team, scene.member("viewer")),
    "a role of the team's own": lambda scene: roles.update(
        *scene.args, scene.team, scene.role(), name="auditor", permissions=["activity:read", "activity:read"]
    ),
    "an agent": lambda scene: agents.update(*scene.args, scene.team, scene.agent(), role="member"),
    "a webhook": lambda scene: webhooks.update(*scene.args, scene.webhook(), actions=None, enabled=True),
    "a list": lambda scene: workspaces.set_member(
        *scene.args, scene.team, scene.workspace, scene.listed(), role="viewer"
    ),
}


@pytest.mark.parametrize("act", UNCHANGED.values(), ids=UNCHANGED)
def test_no_event_when_nothing_changed(
    act: Callable[[Scene], Any], scene_by: Callable[[Session, str], Scene]
) -> None:
    with transaction() as session:
        scene = scene_by(session, "owner")
        act(scene)
        assert EVENTS_RECORDED not in session.info
    assert outbox(scene.setting.id) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
def test_no_event_for_a_change_that_rolled_back(
    case: Case, scene_by: Callable[[Session, str], Scene]
) -> None:
    def change_and_fall() -> None:
        with transaction() as session:
            case.act(scene_by(session, case.by))
            raise RuntimeError("the process fell over")

    with pytest.raises(RuntimeError):
        change_and_fall()
    with transaction() as session:
        scene = scene_by(session, "owner")
        assert (scene.team.name, scene.team.plan, scene.task.status) == ("Design", "pro", "pending")
        assert len(member_queries.in_team(session, scene.access, Page()).items) == 4
    assert outbox(scene.setting.id) == []


REFUSED: dict[str, tuple[Callable[[Scene], Any], type[DomainError]]] = {
    "complete before start": (lambda scene: tasks.complete(*scene.args, scene.task), Conflict),
    "an assignee from elsewhere": (
        lambda scene: tasks.update(*scene.args, scene.task, assignee_id=scene.newcomer.id),
        Invalid,
    ),
    "a role that is none": (
        lambda scene: members.change_role(*scene.args, scene.team, scene.member("viewer"), role="king"),
        Invalid,
    ),
    "an invitation of a member": (
        lambda scene: invitations.create(
            *scene.args, scene.team, email=scene.setting.viewer.email, role="viewer"
        ),
        Conflict,
    ),
    "a built-in role": (
        lambda scene: roles.delete(
            *scene.args,
            scene.team,
            role_queries.get(scene.session, scene.access, "viewer"),
            replacement="member",
        ),
        Conflict,
    ),
    "a replay of what was not sent": (
        lambda scene: webhooks.replay(*scene.args, scene.webhook(), from_seq=8, until_seq=8),
        Invalid,
    ),
    "to its owner": (
        lambda scene: members.transfer_ownership(*scene.args, scene.team, user_id=scene.actor.id),
        Conflict,
    ),
}


@pytest.mark.parametrize(("act", "error"), REFUSED.values(), ids=REFUSED)
def test_no_event_for_a_change_that_is_refused(
    act: Callable[[Scene], Any], error: type[DomainError], scene_by: Callable[[Session, str], Scene]
) -> None:
    def try_it() -> None:
        with transaction() as session:
            act(scene_by(session, "owner"))

    with pytest.raises(error):
        try_it()
    with transaction() as session:
        assert outbox(scene_by(session, "owner").setting.id) == []


def test_a_type_that_is_declared_twice_fails_at_import() -> None:
    with pytest.raises(ValueError, match="team_created is declared twice"):

        @catalogue.event("team_created", "team", "{actor} made {resource}")
        class Again(Event):
            team_id: UUID

    assert CATALOGUE["team_created"] is catalogue.TeamCreated


def test_a_sentence_uses_no_field_that_its_event_lacks() -> None:
    for declared in CATALOGUE.values():
        known = {"actor", "resource", *declared.__dataclass_fields__}
        declared.sentence.format(**dict.fromkeys(known, "x"))
        assert declared.id_field in known


def test_a_row_that_this_release_can_not_read_still_has_a_sentence() -> None:
    assert log.summarize("agent_cloned", {}, actor="Ada", resource=None) == "agent_cloned"
    assert log.summarize("task_completed", {}, actor="Ada", resource="Write") == "Ada: task_completed Write"
    assert log.summarize("task_started", {}, actor=None, resource=None) == "The system started the task task"
