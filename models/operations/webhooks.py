"""
Webhooks: making and changing them, and asking for what was sent to be sent again (sending is models/operations/deliveries.py).

A webhook streams a team's log to an address until somebody notices. So what decides where it goes, what goes, and with which
secret takes a person who signed in, and may read the log: what a leaked API key had set up would outlive the key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models import encryption
from models.access.actor import System
from models.access.entry import Access
from models.access.permissions import Permission
from models.destinations import parse
from models.errors import Conflict, Invalid, PermissionDenied
from models.events.catalogue import (
    WebhookCreated,
    WebhookDeleted,
    WebhookDisabled,
    WebhookRedelivered,
    WebhookReplayed,
    WebhookSecretRotated,
    WebhookTested,
    WebhookUpdated,
)
from models.events.record import record
from models.operations import mails, webhook_messages
from models.operations.changes import apply_changes
from models.posting import TOTAL_S, Answer
from models.queries import webhooks
from models.tables import ActivityHead, Team, Webhook, WebhookDelivery
from models.tables.webhooks import DEAD, PENDING

LIMIT = 20
"""Webhooks of a team."""
OVERLAP = timedelta(hours=24)
"""So long the secret before a rotation signs too."""
WINDS_DOWN = timedelta(seconds=TOTAL_S + 2)
"""A worker whose lease was broken sends nothing after this: one POST that it was at, and what it had not noted yet."""
FAILING, GONE, NO_ACCESS = "failing", "gone", "no_access"
DECISIVE = {"url", "actions", "enabled"}
"""What decides where the log goes."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook and its secret, which is not shown again."""

    row: Webhook
    secret: str


def create(
    session: Session,
    access: Access,
    team: Team,
    *,
    url: str,
    description: str | None = None,
    actions: Sequence[str] | None = None,
    enabled: bool = True,
) -> NewSecret:
    """
    A webhook to the URL, whose address the caller has checked, for what happens from now on; the caller has locked the team.

    Raises PermissionDenied for an API key and for who may not read the log, Conflict where the team has its LIMIT of them,
    Unavailable where secrets can't be kept.
    """
    _require_reader_in_person(access)
    if webhooks.count(session, access) >= LIMIT:
        raise Conflict(f"A team has {LIMIT} webhooks at the most; delete one first.")
    webhook_id, secret = uuid7(), webhook_messages.new_secret()
    head = session.scalar(select(ActivityHead.seq).where(ActivityHead.team_id == team.id))
    row = Webhook(
        id=webhook_id,
        team_id=team.id,
        user_id=access.user_id,
        url=url,
        description=description,
        actions=_sorted(actions),
        secret=webhook_messages.keep_secret(secret, webhook_id),
        enabled=enabled,
        disabled_at=None if enabled else func.now(),
        delivered_seq=head or 0,
    )
    session.add(row)
    session.flush()
    record(session, access, WebhookCreated(**_said_of(row), actions=row.actions, enabled=row.enabled))
    return NewSecret(row, webhook_messages.show_secret(secret))


def update(session: Session, access: Access, row: Webhook, **values: Any) -> None:
    """
    Changes `url`, `description`, `actions` and `enabled`, as given; the caller has locked the row and checked the address.

    Whoever changes where it points, what it gets, or enables it, answers for it from then on: it gets what they may see.
    Raises PermissionDenied as `create` does; an API key may still disable a webhook and describe it.
    """
    if "actions" in values:
        values["actions"] = _sorted(values["actions"])
    wanted = {name for name, value in values.items() if getattr(row, name) != value}
    decides = bool(wanted & DECISIVE) and not (wanted & DECISIVE == {"enabled"} and not values["enabled"])
    if decides:
        _require_reader_in_person(access)
        values["user_id"] = access.user_id
    before = row.url
    changes = apply_changes(session, row, values)
    if not changes:
        return
    if "url" in changes:
        changes["url"] = [parse(before).authority, parse(row.url).authority]
    if "enabled" in changes:
        row.disabled_at, row.disabled_reason = (None if row.enabled else func.now()), None
    if decides:
        row.failing_since = row.last_error = None
        row.slow, row.due_at = False, func.now()
    if changes.keys() & DECISIVE:
        break_lease(session, row)
    row.updated_at = func.now()
    session.flush()
    record(session, access, WebhookUpdated(**_said_of(row), changes=changes))


def delete(session: Session, access: Access, row: Webhook) -> None:
    """Ends it, with what is known of its deliveries. The caller has locked the row."""
    session.delete(row)
    session.flush()
    record(session, access, WebhookDeleted(**_said_of(row)))


def rotate_secret(session: Session, access: Access, row: Webhook) -> NewSecret:
    """
    A new secret; the one before it signs too, for OVERLAP. The caller has locked the row. Raises PermissionDenied for an API
    key: with the secret, whoever has it can forge events.
    """
    _require_reader_in_person(access)
    secret = webhook_messages.new_secret()
    row.previous_secret, row.previous_secret_expires_at = row.secret, func.now() + OVERLAP
    row.secret = webhook_messages.keep_secret(secret, row.id)
    row.updated_at = func.now()
    break_lease(session, row)
    record(session, access, WebhookSecretRotated(**_said_of(row)))
    return NewSecret(row, webhook_messages.show_secret(secret))


def replay(
    session: Session, access: Access, row: Webhook, *, from_seq: int, until_seq: int | None = None
) -> None:
    """
    Sends the events of these numbers again, both included (up to the last one that was dealt with, unless told), before
    whatever is new. One replay at a time: it takes the place of one under way. The caller has locked the row.

    Raises Conflict for a webhook that is disabled, Invalid for numbers that it has not come to.
    """
    _require_enabled(row)
    until = row.delivered_seq if until_seq is None else until_seq
    if until > row.delivered_seq:
        raise Invalid({"until_seq": [f"It has come to {row.delivered_seq}; what follows is sent anyway."]})
    if from_seq > until:
        raise Invalid({"from_seq": [f"This must be {until} at the most."]})
    _give_up_waiting(session, row)
    row.replay_seq, row.replay_until = from_seq - 1, until
    row.due_at = func.now()
    break_lease(session, row)
    record(session, access, WebhookReplayed(**_said_of(row), from_seq=from_seq, until_seq=until))


def redeliver(session: Session, access: Access | System, row: Webhook, delivery: WebhookDelivery) -> None:
    """
    Sends one event again, soon and out of turn; or, if it waits for its next try, has it tried now. One attempt decides it.
    The caller has locked both rows. Raises Conflict for a webhook that is disabled.
    """
    _require_enabled(row)
    if delivery.state == PENDING:
        row.due_at = func.now()
        delivery.next_attempt_at = func.now()
    else:
        delivery.state, delivery.requested, delivery.next_attempt_at = PENDING, True, func.now()
        row.redelivering = True
    session.flush()
    record(session, access, WebhookRedelivered(**_said_of(row), seq=delivery.seq))


def tested(session: Session, access: Access, row: Webhook, answer: Answer) -> None:
    """Notes that a test was sent, and what came of it."""
    record(session, access, WebhookTested(**_said_of(row), status=answer.status, error=answer.error))


def disable(session: Session, row: Webhook, reason: str) -> None:
    """The product's own doing: FAILING, GONE or NO_ACCESS. The owner and the admins get mail. The caller has locked the row."""
    row.enabled, row.disabled_at, row.disabled_reason = False, func.now(), reason
    session.flush()
    record(
        session,
        System(row.team_id),
        WebhookDisabled(**_said_of(row), reason=reason, failing_since=row.failing_since),
    )
    mails.enqueue_webhook_disabled(session, row)


def expire_secrets(session: Session) -> None:
    """Forgets the secrets whose day after a rotation is over; they sign no more since then."""
    session.execute(
        text(
            "UPDATE webhooks SET previous_secret = NULL, previous_secret_expires_at = NULL "
            "WHERE previous_secret_expires_at <= now()"
        )
    )


def encrypt_again(session: Session) -> int:
    """Brings the secrets that another key than the first encrypted under the first; how many webhooks had one."""
    stale = [
        webhook_id
        for webhook_id, *kept in session.execute(select(Webhook.id, Webhook.secret, Webhook.previous_secret))
        if any(each is not None and encryption.is_stale(each) for each in kept)
    ]
    for row in session.scalars(select(Webhook).where(Webhook.id.in_(stale)).with_for_update()):
        if encryption.is_stale(row.secret):
            row.secret = webhook_messages.keep_again(row.secret, row.id)
        if row.previous_secret is not None and encryption.is_stale(row.previous_secret):
            row.previous_secret = webhook_messages.keep_again(row.previous_secret, row.id)
    return len(stale)


def break_lease(session: Session, row: Webhook) -> None:
    """Whoever is sending stops as soon as they note what they sent; nobody else begins before they have."""
    session.flush()
    session.execute(
        text("""
UPDATE webhooks SET lease_id = NULL, lease_expires_at = least(lease_expires_at, now() + :winds_down)
WHERE id = :id AND lease_id IS NOT NULL
"""),
        {"id": row.id, "winds_down": WINDS_DOWN},
    )
    session.refresh(row)


def _give_up_waiting(session: Session, row: Webhook) -> None:
    """Of a replay that another takes the place of: the event that waited for its next try does so no more."""
    if row.replay_seq is not None:
        session.execute(
            text("""
UPDATE webhook_deliveries SET state = :dead, last_error = 'replaced', next_attempt_at = NULL
WHERE webhook_id = :id AND state = :pending AND NOT requested AND seq > :after AND seq <= :until
"""),
            {
                "id": row.id,
                "dead": DEAD,
                "pending": PENDING,
                "after": row.replay_seq,
                "until": row.replay_until,
            },
        )


def _require_reader_in_person(access: Access) -> None:
    if access.session_id is None:
        raise PermissionDenied("session", "An API key can't decide where the log goes; sign in for this.")
    access.require(Permission.activity_read)


def _require_enabled(row: Webhook) -> None:
    if not row.enabled:
        raise Conflict("This webhook is disabled; enable it first.")


def _sorted(actions: Sequence[str] | None) -> list[str] | None:
    return None if actions is None else sorted(set(actions))


def _said_of(row: Webhook) -> dict[str, Any]:
    return {"webhook_id": row.id, "name": parse(row.url).authority}
