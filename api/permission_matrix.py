"""`docs/permissions.md`: the matrix of role and permission, from the catalogue and what the built-in roles are seeded with."""

from collections.abc import Container, Mapping

from models.access.permissions import BUILT_IN_ROLES, Permission

HEAD = """# Permissions

Made by `flask --app wsgi permissions-doc`; `make check` compares.

What the built-in roles grant. A team's own roles grant any choice of these, within the power of whoever makes them.
**owner**: the team's owner alone may use it, in person, whoever has it. **workspace**: in a workspace where somebody has a role of
their own, that role decides about it instead of the one in the team.
"""


def matrix(granted: Mapping[str, Container[Permission]] = BUILT_IN_ROLES) -> str:
    roles = list(granted)
    lines = [
        _row("permission", *roles, "", "what it lets somebody do"),
        _row("---", *("---" for _ in roles), "---", "---"),
    ]
    for permission in Permission:
        held = ("yes" if permission in granted[role] else "-" for role in roles)
        marks = ("owner" if permission.owner_only else "", "workspace" if permission.workspace_scoped else "")
        lines.append(_row(f"`{permission}`", *held, "".join(marks), permission.description))
    return "\n".join([HEAD, *lines]) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
