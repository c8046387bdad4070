"""
The person's own stream: what happened to their account. Signing in and what changes an account belong to the person and
to no team, so it is not the outbox's; like an event, each row commits with the change that it tells of.
"""

import time
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models import json_text
from models.access.actor import Origin
from models.tables import AccountEvent

KEPT_FOR = timedelta(days=400)
SUMMED_FOR = timedelta(minutes=1)


class AccountAction(StrEnum):
    """What can happen to an account; each says what, and which `details` come with it (docs/events.md)."""

    registered = "registered"
    """The account was made."""
    signed_in = "signed_in"
    """Somebody signed in; `session_id`."""
    sign_in_failed = "sign_in_failed"
    """Somebody failed to; `wrong`: `password` or `code`. Repeats from one address are summed for a minute."""
    signed_out = "signed_out"
    """A session ended itself; `session_id`."""
    session_ended = "session_ended"
    """A session was ended from another; `session_id`."""
    sessions_ended = "sessions_ended"
    """All sessions but the one that asked were ended; `sessions_ended`: how many."""
    password_changed = "password_changed"  # noqa: S105  the name of an event  # nosec B105
    """The password was changed; `sessions_ended`: how many with it."""
    password_reset = "password_reset"  # noqa: S105  the name of an event  # nosec B105
    """The password was reset by a mailed token; `sessions_ended`: how many with it."""
    email_verified = "email_verified"
    """The person proved to read the address."""
    two_factor_enabled = "two_factor_enabled"
    """A second factor was set up; `sessions_ended`: how many with it."""
    two_factor_disabled = "two_factor_disabled"
    """The second factor was taken away; `reason`, if it was not the person who did."""
    recovery_codes_renewed = "recovery_codes_renewed"
    """New recovery codes replaced the old ones."""
    recovery_code_used = "recovery_code_used"
    """A recovery code stood in for the second factor; `left`: how many are."""
    profile_updated = "profile_updated"
    """The name changed; `changes`: before and after of each field."""
    suspended = "suspended"
    """An operator suspended the account; `reason`, and `sessions_ended`: how many with it."""
    reinstated = "reinstated"
    """An operator lifted the suspension; `reason`."""


def record(session: Session, user_id: UUID, action: AccountAction, origin: Origin, **details: Any) -> None:
    """Writes what happened, in the change's own transaction: both commit, or neither."""
    session.add(
        AccountEvent(
            user_id=user_id,
            action=action.value,
            details=details,
            ip_address=origin.ip_address,
            user_agent=origin.user_agent,
            request_id=origin.request_id,
        )
    )


# The first statement makes guesses that come at one moment wait for each other, so that they are one row, and the loss of
# the last of them in a crash of the database an acceptable price for not waiting for its disk. Both do as much for an
# address that nobody has.
PREPARE_FAILURE = text("""
SELECT set_config('synchronous_commit', 'off', true), pg_advisory_xact_lock(hashtextextended(:guesser, 7))
""")
RECORD_FAILURE = text("""
WITH known AS (
  SELECT id FROM users WHERE email_normalized = :address
), repeated AS (
  UPDATE account_events SET count = count + 1 WHERE id = (
    SELECT e.id FROM account_events e JOIN known ON known.id = e.user_id
    WHERE e.id >= :since AND e.action = :action AND e.details = CAST(:details AS jsonb)
      AND e.ip_address IS NOT DISTINCT FROM CAST(:ip_address AS inet)
    ORDER BY e.id DESC LIMIT 1
  ) RETURNING id
)
INSERT INTO account_events (id, user_id, action, details, ip_address, user_agent, request_id)
SELECT :id, known.id, :action, CAST(:details AS jsonb), CAST(:ip_address AS inet), :user_agent, :request_id
FROM known WHERE NOT EXISTS (SELECT FROM repeated)
""")


def record_failed_sign_in(session: Session, email_normalized: str, *, origin: Origin, wrong: str) -> None:
    """
    Writes that a sign-in failed, to whoever has the address, if anybody has; `wrong` says what was: `password` or `code`.
    Repeats from one address are summed for a minute. A transaction of its own, since the refusal rolls the request's back.
    """
    guesser = f"{email_normalized} {origin.ip_address}"
    session.execute(PREPARE_FAILURE, {"guesser": guesser})
    session.execute(
        RECORD_FAILURE,
        {
            "id": uuid7(),
            "address": email_normalized,
            "action": AccountAction.sign_in_failed.value,
            "details": json_text.dumps({"wrong": wrong}),
            "since": _earliest_id(time.time() - SUMMED_FOR.total_seconds()),
            "ip_address": origin.ip_address,
            "user_agent": origin.user_agent,
            "request_id": origin.request_id,
        },
    )


def expire(session: Session) -> None:
    """Deletes what is older than it is kept for."""
    session.execute(delete(AccountEvent).where(AccountEvent.created_at < func.now() - KEPT_FOR))


def _earliest_id(timestamp: float) -> UUID:
    """The least UUIDv7 of this time (seconds since 1970): ids sort by it, and the index is by id (RFC 9562, 5.7)."""
    return UUID(int=int(timestamp * 1000) << 80)
