"""What somebody may do in the end: sets of permissions, put together. Nothing here compares ranks or names of roles."""

from collections.abc import Iterable

from models.access.permissions import OWNER_ONLY, Permission
from models.errors import PermissionDenied

WORKSPACE_SCOPED = frozenset(permission.value for permission in Permission if permission.workspace_scoped)
"""What a role in one workspace decides about; everything else is decided by the role in the team."""

OWNER = "owner"
"""What is missing where only the team's owner in person may do something."""


def effective(
    role: Iterable[str],
    *,
    workspace: Iterable[str] | None = None,
    agent: Iterable[str] | None = None,
    key: Iterable[str] | None = None,
) -> frozenset[str]:
    """
    The power of a person with these role permissions; within a workspace if they have a role in it (`workspace`), acting
    through an agent (`agent`) and a key (`key`), each of which can only take away. None: not involved.
    """
    power = frozenset(role)
    if workspace is not None:
        power = (power - WORKSPACE_SCOPED) | (WORKSPACE_SCOPED & frozenset(workspace))
    for cap in (agent, key):
        if cap is not None:
            power &= frozenset(cap)
    return power


def lacking(permission: Permission, power: frozenset[str], *, is_owner: bool) -> str | None:
    """What somebody with this power lacks for the permission: itself, `owner` for what only the owner may do, or nothing."""
    if permission in OWNER_ONLY and not is_owner:
        return OWNER
    return None if permission in power else permission.value


def refuse_above(power: frozenset[str], granted: Iterable[str], what: str) -> None:
    """
    Nobody grants, or takes from, more than their own power: raises PermissionDenied naming what is above.

    `what` is the subject of the sentence that the caller reads: "The role auditor".
    """
    if above := sorted(frozenset(granted) - power):
        raise PermissionDenied(above[0], f"{what} grants {', '.join(above)}, which you do not have yourself.")
