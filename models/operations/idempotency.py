"""
Idempotency-Key: a POST's answer is kept in the transaction of its change, so a repeat can't find one without the other.

While the first request runs it holds an advisory lock of its transaction; a crash releases it with everything else.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models.errors import Conflict, Invalid
from models.tables import IdempotencyKey

KEPT_FOR = timedelta(hours=24)
MAXIMUM_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    scope: bytes
    """Whose key it is."""
    key: str
    fingerprint: bytes
    """Of the method, the path and the body: what the key must not be used again for."""


def claim(session: Session, request: IdempotentRequest) -> IdempotencyKey | None:
    """
    The kept answer of an earlier request with this key, or None for the caller to go on and `keep` its own.

    Raises Conflict while the first request is still running, or if its answer carried a secret; Invalid if the key was
    used for another request.
    """
    digest = hashlib.sha256(request.scope + request.key.encode()).digest()
    lock = int.from_bytes(digest[:8], signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise Conflict("A request with this Idempotency-Key is still running; repeat it when that has ended.")
    kept = session.get(IdempotencyKey, (request.scope, request.key))
    if kept is None:
        return None
    if kept.created_at < datetime.now(UTC) - KEPT_FOR:
        session.delete(kept)
        session.flush()  # makes room for the new answer under the same key
        return None
    if kept.fingerprint != request.fingerprint:
        raise Invalid({"Idempotency-Key": ["This key was used for another request; take a new one."]})
    if kept.body is None:
        raise Conflict(
            "This request was carried out, and its answer carried a secret that is not kept.",
            id=str(kept.resource_id) if kept.resource_id else None,
        )
    return kept


def keep(session: Session, kept: IdempotencyKey) -> None:
    session.add(kept)


def expire(session: Session) -> None:
    """Deletes the keys whose time is over."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < datetime.now(UTC) - KEPT_FOR))
