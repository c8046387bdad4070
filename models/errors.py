"""Domain errors. Each has a stable `code`; which HTTP status or WebSocket frame it becomes is the edge's business."""

from collections.abc import Mapping
from typing import Any, ClassVar


class DomainError(Exception):
    """A rule said no. `detail` helps the caller mend the call; `members` are further fields for the answer."""

    code: ClassVar[str]

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


class Unauthenticated(DomainError):
    code = "unauthenticated"


class PermissionDenied(DomainError):
    """In one's own team, without the permission; `missing` names it (`owner` for what only the owner may)."""

    code = "permission_denied"

    def __init__(self, missing: str, detail: str | None = None) -> None:
        super().__init__(detail or f"This needs {missing}, which your role does not grant.", missing=missing)
        self.missing = missing


class NotFound(DomainError):
    """Absent, or another team's: the caller can't tell which."""

    code = "not_found"

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no such {what} here.")


class Conflict(DomainError):
    code = "conflict"


class EmailTaken(DomainError):
    code = "email_taken"


class SeatLimitReached(DomainError):
    code = "seat_limit_reached"


class PreconditionFailed(DomainError):
    code = "precondition_failed"


class Unavailable(DomainError):
    """Something that we stand on is away; the same call can succeed later."""

    code = "unavailable"


class Invalid(DomainError):
    """Well-formed, yet not acceptable; `errors` maps a field to its messages."""

    code = "validation_failed"

    def __init__(self, errors: Mapping[str, Any], detail: str = "Some fields are not acceptable.") -> None:
        super().__init__(detail, errors=dict(errors))
        self.errors = dict(errors)


def for_constraint(name: str | None) -> DomainError | None:
    """The domain error that a violated database constraint stands for, by the constraint's name."""
    match name:
        case "uq_users_email_normalized":
            return EmailTaken("An account with this address exists already.")
        case "uq_team_members_team_id_user_id":
            return Conflict("This user is a member of the team already.")
        case "fk_teams_id_owner_id_team_members":
            return Conflict("The owner must stay a member of the team; transfer the ownership first.")
        case "fk_tasks_team_id_workspace_id_workspaces":
            return NotFound("workspace")
        case "fk_tasks_team_id_assignee_id_team_members":
            return Invalid({"assignee_id": ["The assignee must be a member of the team."]})
        case _:
            return None
