"""Every table, so that importing this package makes the metadata whole."""

from models.tables.accounts import AccountEvent, MailedToken, RecoveryCode, SecondFactor
from models.tables.activity import (
    ActivityCount,
    ActivityDay,
    ActivityFold,
    ActivityHead,
    ActivityLog,
    ActivityPerson,
)
from models.tables.api_keys import Agent, ApiKey
from models.tables.idempotency import IdempotencyKey
from models.tables.invitations import Invitation
from models.tables.mails import Mail
from models.tables.members import TeamMember
from models.tables.outbox import OutboxEvent
from models.tables.permissions import PermissionGrant
from models.tables.sessions import UserSession
from models.tables.tasks import Task
from models.tables.teams import Team
from models.tables.tickets import Ticket
from models.tables.usage import UsageLedger, UsagePending, UsageStats
from models.tables.users import User
from models.tables.workspaces import DeletedWorkspace, Workspace, WorkspaceMember

__all__ = [
    "AccountEvent",
    "ActivityCount",
    "ActivityDay",
    "ActivityFold",
    "ActivityHead",
    "ActivityLog",
    "ActivityPerson",
    "Agent",
    "ApiKey",
    "DeletedWorkspace",
    "IdempotencyKey",
    "Invitation",
    "Mail",
    "MailedToken",
    "OutboxEvent",
    "PermissionGrant",
    "RecoveryCode",
    "SecondFactor",
    "Task",
    "Team",
    "TeamMember",
    "Ticket",
    "UsageLedger",
    "UsagePending",
    "UsageStats",
    "User",
    "UserSession",
    "Workspace",
    "WorkspaceMember",
]
