"""
Every event, declared once: its type (the activity log's `action`), its payload and the sentence that people read.

To add one: write a dataclass below with `@event(type, resource, sentence)`, record it in the operation that makes the
change, and give it a test in tests/models/test_events.py. A type that is declared twice fails at import.

A sentence may use {actor}, {resource} (the name of what it happened to) and every field of the payload. Persons stand
in a payload by id alone (models/tables/activity.py says why); their names are joined when the log is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, ClassVar, TypeVar, dataclass_transform
from uuid import UUID

from models.tables.activity import DENIED, SUCCESS


@dataclass(frozen=True, slots=True)
class Event:
    type: ClassVar[str]
    resource_type: ClassVar[str]
    sentence: ClassVar[str]
    id_field: ClassVar[str]
    schema_version: ClassVar[int] = 1
    """Of the payload. Raise it when a field changes its meaning or goes: readers tell old rows by it."""
    outcome: ClassVar[str] = SUCCESS

    @property
    def resource_id(self) -> UUID:
        resource_id: UUID = getattr(self, self.id_field)
        return resource_id

    @property
    def resource_name(self) -> str | None:
        """The resource's name as it was; None for a person."""
        return getattr(self, "title", None) or getattr(self, "name", None)

    def payload(self) -> dict[str, Any]:
        """The fields as plain values; the log's `metadata` and a socket's `data`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


E = TypeVar("E", bound=Event)
CATALOGUE: dict[str, type[Event]] = {}


@dataclass_transform(frozen_default=True)
def event(type_: str, resource: str, sentence: str) -> Callable[[type[E]], type[E]]:
    """
    Registers a payload class under its type. `resource` names both the resource's type and, with `_id`, its id's field;
    what has no id of its own goes by its team's.
    """

    def register(declared: type[E]) -> type[E]:
        if type_ in CATALOGUE:
            raise ValueError(f"The event {type_} is declared twice.")
        payload_class = dataclass(frozen=True, slots=True)(declared)
        payload_class.type, payload_class.resource_type, payload_class.sentence = type_, resource, sentence
        names = {field.name for field in fields(payload_class)}
        payload_class.id_field = f"{resource}_id" if f"{resource}_id" in names else "team_id"
        CATALOGUE[type_] = payload_class
        return payload_class

    return register


@dataclass(frozen=True, slots=True)
class TeamEvent(Event):
    team_id: UUID
    name: str


@event("team_created", "team", "{actor} created the team {resource}")
class TeamCreated(TeamEvent): ...


@event("team_updated", "team", "{actor} changed the team {resource}")
class TeamUpdated(TeamEvent):
    changes: dict[str, list[Any]]


@event("team_deleted", "team", "{actor} deleted the team {resource}")
class TeamDeleted(TeamEvent): ...


@event("team_restored", "team", "{actor} restored the team {resource}")
class TeamRestored(TeamEvent): ...


@event("team_suspended", "team", "{actor} suspended the team {resource}: {reason}")
class TeamSuspended(TeamEvent):
    reason: str


@event("team_reinstated", "team", "{actor} lifted the suspension of the team {resource}: {reason}")
class TeamReinstated(TeamEvent):
    reason: str


@event("ownership_transferred", "team", "{actor} handed the team {resource} over to another owner")
class OwnershipTransferred(TeamEvent):
    from_user_id: UUID
    to_user_id: UUID


@event("plan_changed", "team", "{actor} changed the plan from {from_plan} to {to_plan}")
class PlanChanged(TeamEvent):
    from_plan: str
    to_plan: str
    max_members: int


@event("legal_hold_placed", "team", "{actor} placed a legal hold on the team {resource}: {reason}")
class LegalHoldPlaced(TeamEvent):
    reason: str


@event("legal_hold_released", "team", "{actor} released the legal hold on the team {resource}: {reason}")
class LegalHoldReleased(TeamEvent):
    reason: str
    """For which it was placed."""


@event(
    "activity_purged", "team", "{actor} purged the log's rows {from_seq} to {to_seq}, older than {days} days"
)
class ActivityPurged(Event):
    team_id: UUID
    from_seq: int
    to_seq: int
    rows: int
    days: int
    """How long the team's rows are kept."""


@event("permission_denied", "team", "{actor} was refused {permission}: {method} {route} (attempts: {count})")
class AttemptRefused(Event):
    """The first of a kind at once; what the same actor is refused of it again, summed once a minute."""

    outcome: ClassVar[str] = DENIED

    team_id: UUID
    permission: str
    """What was missing: a permission, `owner`, or what else the refusal named."""
    method: str
    route: str
    """The route's template, or `/ws/{team_id}` for what was sent over a socket; of repeats, that of the last."""
    count: int


@event(
    "permission_denials_summed",
    "team",
    "{actor} counted {count} more refused attempts than it names in a minute",
)
class RefusalsSummed(Event):
    """What is refused to more actors, or for more reasons, than are named in a minute: how often, and no more."""

    outcome: ClassVar[str] = DENIED

    team_id: UUID
    count: int


@event(
    "price_book_changed", "team", "{actor} moved the {plan} plan to version {to_version} of the price book"
)
class PriceBookChanged(TeamEvent):
    plan: str
    from_version: int
    to_version: int
    max_members: int


@event(
    "usage_limit_reached",
    "team",
    "{actor} noticed that {metric} reached {threshold} percent of what the plan includes",
)
class UsageLimitReached(Event):
    team_id: UUID
    metric: str
    threshold: int
    """Percent: 50, 80, 100 or 120."""
    used: int
    included: int
    """Of storage in bytes, like `used`."""
    period: date
    """The month's first day (UTC)."""


@dataclass(frozen=True, slots=True)
class MemberEvent(Event):
    user_id: UUID
    role: str


@event("member_added", "user", "{actor} added {resource} as {role}")
class MemberAdded(MemberEvent):
    invitation_id: UUID | None
    """The one that waited for them, if one did."""


@dataclass(frozen=True, slots=True)
class MemberGone(MemberEvent):
    api_keys_revoked: int
    """The member's keys go with the membership."""


@event("member_removed", "user", "{actor} removed {resource}")
class MemberRemoved(MemberGone): ...


@event("member_left", "user", "{actor} left the team")
class MemberLeft(MemberGone): ...


@event("member_erased", "user", "{actor} ended the membership of {resource} by erasing the account")
class MemberErased(MemberGone): ...


@event("member_suspended", "user", "{actor} suspended {resource}")
class MemberSuspended(MemberEvent): ...


@event("member_reactivated", "user", "{actor} lifted the suspension of {resource}")
class MemberReactivated(MemberEvent): ...


@event("member_role_changed", "user", "{actor} changed the role of {resource} from {from_role} to {role}")
class MemberRoleChanged(MemberEvent):
    from_role: str


@dataclass(frozen=True, slots=True)
class InvitationEvent(Event):
    """The invited address stands in the invitation alone, as it identifies a person; the log's readers join it."""

    invitation_id: UUID
    role: str


@event("invitation_created", "invitation", "{actor} invited {resource} as {role}")
class InvitationCreated(InvitationEvent): ...


@event("invitation_resent", "invitation", "{actor} invited {resource} as {role} again")
class InvitationResent(InvitationEvent): ...


@event("invitation_revoked", "invitation", "{actor} revoked the invitation of {resource}")
class InvitationRevoked(InvitationEvent): ...


@event("invitation_declined", "invitation", "{actor} declined the invitation as {role}")
class InvitationDeclined(InvitationEvent): ...


@event("invitation_accepted", "invitation", "{actor} accepted the invitation and joined as {role}")
class InvitationAccepted(InvitationEvent):
    user_id: UUID
    """The new member."""


@dataclass(frozen=True, slots=True)
class RoleEvent(Event):
    """A role has no id of its own: its resource is its name in the team."""

    team_id: UUID
    name: str


@event("role_created", "role", "{actor} made the role {resource}")
class RoleCreated(RoleEvent):
    permissions: list[str]


@event("role_updated", "role", "{actor} changed the role {resource}")
class RoleUpdated(RoleEvent):
    changes: dict[str, list[Any]]


@event("role_deleted", "role", "{actor} deleted the role {resource}")
class RoleDeleted(RoleEvent):
    permissions: list[str]
    replacement: str | None


@dataclass(frozen=True, slots=True)
class AgentEvent(Event):
    agent_id: UUID
    name: str
    role: str


@event("agent_created", "agent", "{actor} made the agent {resource} with the role {role}")
class AgentCreated(AgentEvent): ...


@event("agent_updated", "agent", "{actor} changed the agent {resource}")
class AgentUpdated(AgentEvent):
    changes: dict[str, list[Any]]


@event("agent_deleted", "agent", "{actor} deleted the agent {resource} with its {api_keys_revoked} keys")
class AgentDeleted(AgentEvent):
    api_keys_revoked: int


@dataclass(frozen=True, slots=True)
class ApiKeyEvent(Event):
    api_key_id: UUID
    name: str
    agent_id: UUID | None
    user_id: UUID
    """Whom it acts for."""


@event("api_key_created", "api_key", "{actor} made the API key {resource}")
class ApiKeyCreated(ApiKeyEvent):
    permissions: list[str]
    expires_at: datetime


@event("api_key_revoked", "api_key", "{actor} revoked the API key {resource}")
class ApiKeyRevoked(ApiKeyEvent): ...


@dataclass(frozen=True, slots=True)
class WorkspaceEvent(Event):
    workspace_id: UUID
    name: str


@event("workspace_created", "workspace", "{actor} created the workspace {resource}")
class WorkspaceCreated(WorkspaceEvent): ...


@event("workspace_updated", "workspace", "{actor} changed the workspace {resource}")
class WorkspaceUpdated(WorkspaceEvent):
    changes: dict[str, list[Any]]


@event(
    "workspace_deleted",
    "workspace",
    "{actor} deleted the workspace {resource} with its {tasks_deleted} tasks",
)
class WorkspaceDeleted(WorkspaceEvent):
    tasks_deleted: int


@dataclass(frozen=True, slots=True)
class WorkspaceMemberEvent(WorkspaceEvent):
    user_id: UUID
    role: str | None
    """In this workspace; None: the same as in the team."""


@event("workspace_member_added", "workspace", "{actor} added a member to the workspace {resource}")
class WorkspaceMemberAdded(WorkspaceMemberEvent): ...


@event(
    "workspace_member_role_changed",
    "workspace",
    "{actor} changed a member's role in the workspace {resource}",
)
class WorkspaceMemberRoleChanged(WorkspaceMemberEvent):
    from_role: str | None


@event("workspace_member_removed", "workspace", "{actor} took a member off the workspace {resource}")
class WorkspaceMemberRemoved(WorkspaceMemberEvent): ...


@dataclass(frozen=True, slots=True)
class TaskEvent(Event):
    task_id: UUID
    workspace_id: UUID
    title: str
    status: str
    assignee_id: UUID | None


@event("task_created", "task", "{actor} created the task {resource}")
class TaskCreated(TaskEvent): ...


@event("task_updated", "task", "{actor} changed the task {resource}")
class TaskUpdated(TaskEvent):
    changes: dict[str, list[Any]]


@event("task_started", "task", "{actor} started the task {resource}")
class TaskStarted(TaskEvent):
    attempt: int


@event("task_returned", "task", "{actor} made the task {resource} pending again, as its lease ran out")
class TaskReturned(TaskEvent):
    attempt: int
    """The one that ended so."""


@event("task_completed", "task", "{actor} completed the task {resource} with {llm_tokens_used} tokens")
class TaskCompleted(TaskEvent):
    llm_tokens_used: int


@event("task_failed", "task", "{actor} reported the task {resource} as failed: {error}")
class TaskFailed(TaskEvent):
    error: str


@event("task_cancelled", "task", "{actor} cancelled the task {resource}")
class TaskCancelled(TaskEvent): ...


@event("task_deleted", "task", "{actor} deleted the task {resource}")
class TaskDeleted(TaskEvent): ...


@event("activity_read", "team", "{actor} read the activity log")
class ActivityRead(Event):
    """Once per reader and hour, however much they read (models/operations/activity_reads.py)."""

    team_id: UUID


@event("activity_exported", "export", "{actor} exported the activity log as {format}")
class ActivityExported(Event):
    """Recorded before the first byte leaves."""

    export_id: UUID
    format: str
    proof: bool
    descending: bool
    filters: dict[str, Any]
    """As they were given; of a text or an address that was searched for, only that it was: either can name a person."""
    as_file: bool
    """Whether a worker writes it to a file; else it is streamed at once."""


@event("activity_export_finished", "export", "{actor} finished an export of the activity log: {state}")
class ActivityExportFinished(Event):
    export_id: UUID
    state: str
    """`completed` or `failed`."""
    rows: int
    sha256: str | None
    """Of the file, in hex: what somebody holds against it later."""
    error: str | None


@event("activity_export_deleted", "export", "{actor} deleted an export of the activity log")
class ActivityExportDeleted(Event):
    export_id: UUID
    state: str
    """What it was in."""


@dataclass(frozen=True, slots=True)
class WebhookEvent(Event):
    """Of a URL it tells the host alone: path and query may be a secret of the receiver's."""

    webhook_id: UUID
    name: str
    """The host."""


@event("webhook_created", "webhook", "{actor} made a webhook to {resource}")
class WebhookCreated(WebhookEvent):
    actions: list[str] | None
    """None: all."""
    enabled: bool


@event("webhook_updated", "webhook", "{actor} changed the webhook to {resource}")
class WebhookUpdated(WebhookEvent):
    changes: dict[str, list[Any]]


@event("webhook_deleted", "webhook", "{actor} deleted the webhook to {resource}")
class WebhookDeleted(WebhookEvent): ...


@event("webhook_secret_rotated", "webhook", "{actor} rotated the secret of the webhook to {resource}")
class WebhookSecretRotated(WebhookEvent): ...


@event("webhook_disabled", "webhook", "{actor} disabled the webhook to {resource}: {reason}")
class WebhookDisabled(WebhookEvent):
    reason: str
    failing_since: datetime | None


@event("webhook_tested", "webhook", "{actor} sent a test to the webhook to {resource}")
class WebhookTested(WebhookEvent):
    status: int | None
    error: str | None


@event(
    "webhook_replayed",
    "webhook",
    "{actor} had the events {from_seq} to {until_seq} sent again to the webhook to {resource}",
)
class WebhookReplayed(WebhookEvent):
    from_seq: int
    until_seq: int


@event(
    "webhook_redelivered", "webhook", "{actor} had the event {seq} sent again to the webhook to {resource}"
)
class WebhookRedelivered(WebhookEvent):
    seq: int


@event(
    "usage_unsettled", "team", "{actor} found {count} reservations unsettled, of {quantity} tokens at most"
)
class UsageUnsettled(Event):
    """Those that expired since it looked last: one event for all of them, as agents reserve for each call."""

    team_id: UUID
    count: int
    quantity: int


@event("usage_corrected", "usage_ledger", "{actor} took back {quantity} of {metric}: {reason}")
class UsageCorrected(Event):
    usage_ledger_id: UUID
    """The ledger's row that is taken back."""
    correction_id: UUID
    """The row that takes it back."""
    metric: str
    quantity: int
    reason: str
    workspace_id: UUID | None


@dataclass(frozen=True, slots=True)
class UsageBackfillEvent(Event):
    usage_backfill_id: UUID
    name: str


@event("usage_backfill_created", "usage_backfill", "{actor} opened the backfill {resource}: {reason}")
class UsageBackfillCreated(UsageBackfillEvent):
    reason: str


@event(
    "usage_backfill_applied",
    "usage_backfill",
    "{actor} applied the backfill {resource}: {accepted} counted, {duplicates} known before",
)
class UsageBackfillApplied(UsageBackfillEvent):
    accepted: int
    duplicates: int


@event(
    "usage_backfill_reverted", "usage_backfill", "{actor} took the backfill {resource} back: {reversed} rows"
)
class UsageBackfillReverted(UsageBackfillEvent):
    reversed: int


@dataclass(frozen=True, slots=True)
class InvoiceEvent(Event):
    invoice_id: UUID
    name: str
    """Its number."""


@event("invoice_finalized", "invoice", "{actor} finalized the invoice {resource} over {amount}")
class InvoiceFinalized(InvoiceEvent):
    period_start: date
    period_end: date
    """The first day after it."""
    total: int
    """Minor units."""
    currency: str
    amount: str
    """The total as people read it."""


@event(
    "invoice_voided",
    "invoice",
    "{actor} voided the invoice {resource} by the credit note {credit_note}: {reason}",
)
class InvoiceVoided(InvoiceEvent):
    credit_note_id: UUID
    credit_note: str
    """Its number."""
    reason: str


@event("invoice_paid", "invoice", "{actor} noted that the invoice {resource} is paid")
class InvoicePaid(InvoiceEvent): ...


@event("invoice_payment_failed", "invoice", "{actor} noted that paying the invoice {resource} failed")
class InvoicePaymentFailed(InvoiceEvent):
    state: str
    """failed, while it is tried again; uncollectible, when it was given up."""


@event("billing_details_updated", "team", "{actor} changed who the invoices of {resource} are made out to")
class BillingDetailsUpdated(TeamEvent):
    fields: list[str]
    """Which changed; what they say can be a person's, and stands in the billing details alone."""
