"""The permission catalogue: every `resource:action` that a route can need, and what the built-in roles are seeded with."""

from enum import StrEnum


class Permission(StrEnum):
    """A member's name is its value with `_` for `:`, so `Permission.members_create` is `members:create`."""

    teams_read = "teams:read"
    teams_update = "teams:update"
    teams_delete = "teams:delete"
    teams_transfer = "teams:transfer"
    members_read = "members:read"
    members_create = "members:create"
    members_update = "members:update"
    members_delete = "members:delete"
    workspaces_read = "workspaces:read"
    workspaces_create = "workspaces:create"
    workspaces_update = "workspaces:update"
    workspaces_delete = "workspaces:delete"
    tasks_read = "tasks:read"
    tasks_create = "tasks:create"
    tasks_update = "tasks:update"
    tasks_delete = "tasks:delete"
    activity_read = "activity:read"
    usage_read = "usage:read"
    usage_create = "usage:create"
    billing_read = "billing:read"
    billing_update = "billing:update"
    roles_read = "roles:read"
    roles_create = "roles:create"
    roles_update = "roles:update"
    roles_delete = "roles:delete"
    api_keys_read = "api_keys:read"
    api_keys_create = "api_keys:create"
    api_keys_delete = "api_keys:delete"
    webhooks_read = "webhooks:read"
    webhooks_create = "webhooks:create"
    webhooks_update = "webhooks:update"
    webhooks_delete = "webhooks:delete"
    realtime_read = "realtime:read"
    realtime_publish = "realtime:publish"

    @property
    def description(self) -> str:
        """What it lets somebody do, in a few words."""
        return DESCRIPTIONS[self]

    @property
    def owner_only(self) -> bool:
        return self in OWNER_ONLY

    @property
    def workspace_scoped(self) -> bool:
        """Whether a role in a workspace decides about it there, instead of that in the team."""
        return self.resource in {"workspaces", "tasks"} and self is not Permission.workspaces_create

    @property
    def resource(self) -> str:
        return self.value.partition(":")[0]

    @property
    def action(self) -> str:
        return self.value.partition(":")[2]


DESCRIPTIONS = {
    Permission.teams_read: "See the team, its settings and its plan.",
    Permission.teams_update: "Change the team's name and settings.",
    Permission.teams_delete: "Delete the team; place and release a legal hold.",
    Permission.teams_transfer: "Make another member the owner.",
    Permission.members_read: "See who is in the team and in which role.",
    Permission.members_create: "Add and invite people.",
    Permission.members_update: "Change a member's role; suspend and reactivate members.",
    Permission.members_delete: "Remove members.",
    Permission.workspaces_read: "See workspaces and who is listed in them.",
    Permission.workspaces_create: "Make workspaces.",
    Permission.workspaces_update: "Change a workspace, who is listed in it and their roles there.",
    Permission.workspaces_delete: "Delete a workspace with its tasks.",
    Permission.tasks_read: "See tasks.",
    Permission.tasks_create: "Make tasks.",
    Permission.tasks_update: "Change tasks; claim, start, complete, fail and cancel them.",
    Permission.tasks_delete: "Delete tasks.",
    Permission.activity_read: "Read, export and verify the activity log.",
    Permission.usage_read: "See what the team has used.",
    Permission.usage_create: "Report and reserve usage; stage backfills.",
    Permission.billing_read: "See invoices.",
    Permission.billing_update: "Change the plan; correct usage, apply and revert backfills.",
    Permission.roles_read: "See roles and what each grants.",
    Permission.roles_create: "Make roles.",
    Permission.roles_update: "Change a role's name and what it grants.",
    Permission.roles_delete: "Delete roles.",
    Permission.api_keys_read: "See API keys and agents.",
    Permission.api_keys_create: "Make API keys; make and change agents.",
    Permission.api_keys_delete: "Revoke API keys; delete agents.",
    Permission.webhooks_read: "See webhooks and their deliveries.",
    Permission.webhooks_create: "Make webhooks.",
    Permission.webhooks_update: "Change webhooks.",
    Permission.webhooks_delete: "Delete webhooks.",
    Permission.realtime_read: "Open a socket: events, messages and presence.",
    Permission.realtime_publish: "Send messages over a socket.",
}
OWNER_ONLY = frozenset({Permission.teams_delete, Permission.teams_transfer})
"""What no role grants by itself: the team's owner alone may do it."""

ADMIN = "admin"
VIEWER_PERMISSIONS = frozenset(
    {
        Permission.teams_read,
        Permission.members_read,
        Permission.workspaces_read,
        Permission.tasks_read,
        Permission.activity_read,
        Permission.usage_read,
        Permission.roles_read,
        Permission.realtime_read,
    }
)
MEMBER_PERMISSIONS = VIEWER_PERMISSIONS | {
    Permission.workspaces_create,
    Permission.workspaces_update,
    Permission.tasks_create,
    Permission.tasks_update,
    Permission.tasks_delete,
    Permission.usage_create,
    Permission.realtime_publish,
}
BUILT_IN_ROLES: dict[str, frozenset[Permission]] = {
    ADMIN: frozenset(Permission),
    "member": MEMBER_PERMISSIONS,
    "viewer": VIEWER_PERMISSIONS,
}
"""
What the migration seeds. At run time the `permissions` table decides; a test compares the two.
"""
