"""Domain errors. Each has a stable `code`; which HTTP status or WebSocket frame it becomes is the edge's business."""

from collections.abc import Callable, Mapping
from datetime import datetime
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


class SecondFactorRequired(DomainError):
    """The password is right, and this account wants a code besides; nobody else is told."""

    code = "second_factor_required"

    def __init__(self) -> None:
        super().__init__("This account has a second factor; send its code, or a recovery code, as `code`.")


class TooManyAttempts(DomainError):
    """Too many wrong codes; `retry_after` says in how many seconds the next one is looked at."""

    code = "rate_limited"

    def __init__(self, *, retry_after: int) -> None:
        super().__init__(f"Too many wrong codes; wait {retry_after} s and repeat.", retry_after=retry_after)


class PermissionDenied(DomainError):
    """
    In one's own team, without the permission; `missing` names it (`owner` for what only the owner may). `by` is who was
    refused (models.access.actor.Named), where that is known here: not everyone who is refused was let in before.
    """

    code = "permission_denied"

    def __init__(self, missing: str, detail: str | None = None, *, by: object | None = None) -> None:
        super().__init__(detail or f"This needs {missing}, which your role does not grant.", missing=missing)
        self.missing = missing
        self.by = by


class NotFound(DomainError):
    """Absent, or another team's: the caller can't tell which."""

    code = "not_found"

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no such {what} here.")


class Conflict(DomainError):
    code = "conflict"


class EmailTaken(DomainError):
    code = "email_taken"


UPGRADE = "PUT /teams/{team_id}/plan"
"""What lifts a limit of the plan."""


class SeatLimitReached(DomainError):
    """The plan has no seat for this; seats don't come back by waiting."""

    code = "seat_limit_reached"

    def __init__(self, detail: str, *, used: int, limit: int) -> None:
        super().__init__(detail, metric="seats", used=used, limit=limit, upgrade=UPGRADE)


class QuotaExceeded(DomainError):
    """
    A hard limit of the plan does not leave room for this. `resets_at` is when the next month begins; None for storage, whose level
    stays until something is deleted.
    """

    code = "quota_exceeded"

    def __init__(self, *, metric: str, used: int, limit: int, resets_at: datetime | None) -> None:
        super().__init__(
            f"The plan includes {limit:,} {metric} a month, of which {used:,} are used; this would pass the limit. Change the plan "
            f"({UPGRADE}), or wait until the month ends."
            if resets_at
            else f"The plan includes {limit:,} {metric} at a time, of which {used:,} are used; this would pass the limit. Change "
            f"the plan ({UPGRADE}), or free some.",
            metric=metric,
            used=used,
            limit=limit,
            resets_at=resets_at and resets_at.isoformat().replace("+00:00", "Z"),
            upgrade=UPGRADE,
        )


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


FOR_CONSTRAINT: Mapping[str, Callable[[], DomainError]] = {
    "uq_users_email_normalized": lambda: EmailTaken("An account with this address exists already."),
    "uq_team_members_team_id_user_id": lambda: Conflict("This user is a member of the team already."),
    "fk_teams_id_owner_id_team_members": lambda: Conflict(
        "The owner must stay a member of the team; transfer the ownership first."
    ),
    "uq_invitations_pending": lambda: Conflict("An invitation waits for this address already; resend it."),
    "uq_usage_ledger_reverses": lambda: Conflict("This row was taken back already."),
    "uq_agents_team_id_name": lambda: Conflict("An agent of this team has this name already."),
    "fk_api_keys_team_id_agent_id_agents": lambda: NotFound("agent"),
    "fk_tasks_team_id_agent_id_agents": lambda: NotFound("agent"),
    # Whoever makes a key or a private workspace was removed meanwhile.
    "fk_api_keys_team_id_user_id_team_members": lambda: NotFound("team"),
    "fk_workspace_members_team_id_user_id_team_members": lambda: NotFound("team"),
    "fk_tasks_team_id_workspace_id_workspaces": lambda: NotFound("workspace"),
    "fk_tasks_team_id_assignee_id_team_members": lambda: Invalid(
        {"assignee_id": ["The assignee must be a member of the team."]}
    ),
}


def for_constraint(name: str | None) -> DomainError | None:
    """The domain error that a violated database constraint stands for, by the constraint's name."""
    make = FOR_CONSTRAINT.get(name or "")
    return make() if make else None
