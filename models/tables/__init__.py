"""Every table, so that importing this package makes the metadata whole."""

from models.tables.activity import ActivityHead, ActivityLog
from models.tables.idempotency import IdempotencyKey
from models.tables.members import TeamMember
from models.tables.outbox import OutboxEvent
from models.tables.permissions import PermissionGrant
from models.tables.sessions import UserSession
from models.tables.tasks import Task
from models.tables.teams import Team
from models.tables.usage import UsageLedger, UsagePending, UsageStats
from models.tables.users import User
from models.tables.workspaces import Workspace

__all__ = [
    "ActivityHead",
    "ActivityLog",
    "IdempotencyKey",
    "OutboxEvent",
    "PermissionGrant",
    "Task",
    "Team",
    "TeamMember",
    "UsageLedger",
    "UsagePending",
    "UsageStats",
    "User",
    "UserSession",
    "Workspace",
]
