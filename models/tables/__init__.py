"""Every table, so that importing this package makes the metadata whole."""

from models.tables.accounts import AccountEvent, Erasure, MailedToken, RecoveryCode, SecondFactor
from models.tables.activity import (
    ActivityCount,
    ActivityDay,
    ActivityFold,
    ActivityHead,
    ActivityLog,
    ActivityPerson,
)
from models.tables.activity_exports import ActivityExport
from models.tables.activity_reads import ActivityRead
from models.tables.api_keys import Agent, ApiKey
from models.tables.billing import (
    ArchivedInvoice,
    BillingDetails,
    Charge,
    ChargeEstimate,
    Invoice,
    InvoiceLine,
    InvoiceNumber,
    JobRun,
    MonthClose,
    PlanPeriod,
    PriceBook,
    UsageDifference,
)
from models.tables.checkpoints import Checkpoint, SigningKey
from models.tables.idempotency import IdempotencyKey
from models.tables.invitations import Invitation
from models.tables.mails import Mail
from models.tables.members import TeamMember
from models.tables.outbox import OutboxEvent
from models.tables.payments import Payment, PaymentCustomer, PaymentNotice, PaymentOrder
from models.tables.permissions import PermissionGrant
from models.tables.refusals import RefusedAttempt
from models.tables.sessions import UserSession
from models.tables.tasks import Task
from models.tables.teams import Team
from models.tables.tickets import Ticket
from models.tables.usage import (
    UsageAlert,
    UsageBackfill,
    UsageBackfillEvent,
    UsageBreakdown,
    UsageLedger,
    UsagePending,
    UsageQuota,
    UsageReservation,
    UsageStats,
)
from models.tables.users import User
from models.tables.webhooks import Webhook, WebhookDelivery
from models.tables.workspaces import DeletedWorkspace, Workspace, WorkspaceMember

__all__ = [
    "AccountEvent",
    "ActivityCount",
    "ActivityDay",
    "ActivityExport",
    "ActivityFold",
    "ActivityHead",
    "ActivityLog",
    "ActivityPerson",
    "ActivityRead",
    "Agent",
    "ApiKey",
    "ArchivedInvoice",
    "BillingDetails",
    "Charge",
    "ChargeEstimate",
    "Checkpoint",
    "DeletedWorkspace",
    "Erasure",
    "IdempotencyKey",
    "Invitation",
    "Invoice",
    "InvoiceLine",
    "InvoiceNumber",
    "JobRun",
    "Mail",
    "MailedToken",
    "MonthClose",
    "OutboxEvent",
    "Payment",
    "PaymentCustomer",
    "PaymentNotice",
    "PaymentOrder",
    "PermissionGrant",
    "PlanPeriod",
    "PriceBook",
    "RecoveryCode",
    "RefusedAttempt",
    "SecondFactor",
    "SigningKey",
    "Task",
    "Team",
    "TeamMember",
    "Ticket",
    "UsageAlert",
    "UsageBackfill",
    "UsageBackfillEvent",
    "UsageBreakdown",
    "UsageDifference",
    "UsageLedger",
    "UsagePending",
    "UsageQuota",
    "UsageReservation",
    "UsageStats",
    "User",
    "UserSession",
    "Webhook",
    "WebhookDelivery",
    "Workspace",
    "WorkspaceMember",
]
