"""Every table, so that importing this package makes the metadata whole."""

from models.tables.accounts import AccountEvent, MailedToken, RecoveryCode, SecondFactor
from models.tables.activity import ActivityHead, ActivityLog
from models.tables.api_keys import Agent, ApiKey
from models.tables.billing import (
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
from models.tables.idempotency import IdempotencyKey
from models.tables.invitations import Invitation
from models.tables.mails import Mail
from models.tables.members import TeamMember
from models.tables.outbox import OutboxEvent
from models.tables.payments import Payment, PaymentCustomer, PaymentNotice, PaymentOrder
from models.tables.permissions import PermissionGrant
from models.tables.sessions import UserSession
from models.tables.tasks import Task
from models.tables.teams import Team
from models.tables.tickets import Ticket
from models.tables.usage import UsageBreakdown, UsageLedger, UsagePending, UsageQuota, UsageStats
from models.tables.users import User
from models.tables.workspaces import DeletedWorkspace, Workspace, WorkspaceMember

__all__ = [
    "AccountEvent",
    "ActivityHead",
    "ActivityLog",
    "Agent",
    "ApiKey",
    "BillingDetails",
    "Charge",
    "ChargeEstimate",
    "DeletedWorkspace",
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
    "SecondFactor",
    "Task",
    "Team",
    "TeamMember",
    "Ticket",
    "UsageBreakdown",
    "UsageDifference",
    "UsageLedger",
    "UsagePending",
    "UsageQuota",
    "UsageStats",
    "User",
    "UserSession",
    "Workspace",
    "WorkspaceMember",
]
