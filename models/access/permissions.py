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
    def resource(self) -> str:
        return self.value.partition(":")[0]

    @property
    def action(self) -> str:
        return self.value.partition(":")[2]


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
