"""
Sending a team's log to its webhooks, in the log's order: each webhook has a place in the log and sends what follows it.

`claim` leases webhooks to a worker, `load` reads what is next, the worker sends with no transaction open, and `settle` notes
what came of it and moves the place on. A worker that dies in between leaves a lease that runs out, and what it had not
noted is sent again with the same id: never none. An event that fails holds those behind it until it is delivered, or has
been tried for about a day and is a dead letter.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import delete, exists, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.entry import Access, enter_for_webhook
from models.operations import webhook_messages, webhooks
from models.posting import TOTAL_S, Answer
from models.queries import webhooks as queries
from models.queries.activity import ActivityView
from models.tables import ActivityHead, Team, Webhook, WebhookDelivery
from models.tables.webhooks import DEAD, DELIVERED, PENDING

LEASED_FOR = timedelta(seconds=2 * TOTAL_S)
"""Longer than a POST takes; renewed whenever something is noted."""
AT_ONCE_PER_TEAM = 4
"""Of a team's webhooks so many are served at one time, so that no team has all the threads."""
BATCH = 100
REDELIVERED_AT_ONCE = 20
SCANNED_AT_ONCE = 20_000
"""Numbers of the log that one batch looks at, where few of them are for the webhook."""
FIRST_DELAY, FACTOR, LONGEST_DELAY = timedelta(seconds=5), 4, timedelta(hours=3)
JITTER = 0.2
"""The share that a delay is longer or shorter by, so that what failed together does not come back together."""
MAXIMUM_ATTEMPTS = 15
"""With the delays between them about a day."""
DISABLED_AFTER = timedelta(days=3)
"""Without a single success."""
SLOW_MS = 1_000
KEPT_FOR = timedelta(days=30)
EXPIRED_AT_ONCE = 10_000
WITHHELD = "withheld"
"""In place of an error: the event is not, or not any more, for this webhook."""
GONE_STATUS = 410
BUSY_STATUSES = {429, 503}

CLAIM = text("""
WITH ready AS (
  SELECT w.id, w.due_at, w.slow, row_number() OVER (PARTITION BY w.team_id ORDER BY w.due_at, w.id) + (
           SELECT count(*) FROM webhooks o WHERE o.team_id = w.team_id AND o.lease_expires_at > now()) AS place
  FROM webhooks w
  JOIN activity_heads h ON h.team_id = w.team_id
  JOIN teams t ON t.id = w.team_id AND t.deleted_at IS NULL AND t.suspended_at IS NULL
  WHERE w.enabled AND (w.lease_expires_at IS NULL OR w.lease_expires_at <= now())
    AND (w.redelivering OR (w.due_at <= now() AND (w.replay_seq IS NOT NULL OR w.delivered_seq < h.seq)))
), fair AS (
  SELECT *, row_number() OVER (PARTITION BY slow ORDER BY due_at, id) AS rank FROM ready WHERE place <= :per_team
), chosen AS (
  SELECT w.id FROM webhooks w JOIN fair r ON r.id = w.id
  WHERE (NOT r.slow OR r.rank <= :slow) AND w.enabled AND (w.lease_expires_at IS NULL OR w.lease_expires_at <= now())
  ORDER BY r.due_at LIMIT :limit FOR UPDATE OF w SKIP LOCKED
)
UPDATE webhooks w SET lease_id = gen_random_uuid(), lease_expires_at = now() + :leased_for
FROM chosen WHERE chosen.id = w.id
RETURNING w.id, w.lease_id, w.slow
""")


class Lease(NamedTuple):
    """A webhook that is the caller's to serve, until the lease runs out or is broken."""

    webhook_id: UUID
    lease_id: UUID
    slow: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One event on its way to one webhook."""

    seq: int
    id: UUID
    """The event's; a receiver knows by it what it got before."""
    action: str
    body: bytes
    attempts: int
    """Before this one."""
    requested: bool = False
    """Whether somebody asked to deliver it again, so that it goes out of turn."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is next for a webhook: deliveries that were asked for, then a stretch of the log."""

    url: str
    secrets: list[bytes] = field(repr=False)
    redeliveries: list[Message]
    events: list[Message]
    through: int
    """The place in the log that is reached when all of `events` are delivered."""

    @property
    def is_empty(self) -> bool:
        return not self.redeliveries and not self.events


@dataclass(frozen=True, slots=True)
class Outcome:
    message: Message
    answer: Answer


def claim(session: Session, *, limit: int, slow: int) -> list[Lease]:
    """
    Leases up to `limit` webhooks that have something to send, those first that have waited the longest; up to `slow` of
    those that were slow the last time. Any number of workers may claim at once: none gets what another has.
    """
    rows = session.execute(
        CLAIM,
        {
            "limit": limit,
            "slow": slow,
            "per_team": AT_ONCE_PER_TEAM,
            "leased_for": LEASED_FOR,
        },
    )
    return [Lease(*row) for row in rows]


def load(session: Session, lease: Lease) -> Batch | None:
    """
    What is next, as its person may see it now; the lease runs anew. None when the lease is not the caller's any more, or
    nobody answers for the webhook, which is disabled then. Raises Unavailable when its secret can't be read.
    """
    webhook = _leased(session, lease)
    if webhook is None:
        return None
    access = enter_for_webhook(session, webhook.team_id, webhook.user_id)
    if access is None and _is_suspended(session, webhook):
        _end(webhook)
        return None
    if access is None:
        webhooks.disable(session, webhook, webhooks.NO_ACCESS)
        _end(webhook)
        return None
    webhook.lease_expires_at = _now(session) + LEASED_FOR
    redeliveries = _requested(session, access, webhook)
    events: list[Message] = []
    through = _place(webhook)
    if webhook.due_at <= _now(session):
        events, through = _stretch(session, access, webhook)
    return Batch(
        url=webhook.url,
        secrets=webhook_messages.secrets_of(webhook),
        redeliveries=redeliveries,
        events=events,
        through=through,
    )


def _is_suspended(session: Session, webhook: Webhook) -> bool:
    """Whether the team is: nobody enters it for now, and what is to be sent waits."""
    return session.scalar(select(Team.suspended_at).where(Team.id == webhook.team_id)) is not None


def settle(
    session: Session, lease: Lease, outcomes: Sequence[Outcome], *, through: int | None = None
) -> bool:
    """
    Notes what came of some messages of a batch, in the order in which they were sent, and that the log is dealt with up to
    `through`, if that is given. Whether the caller may go on: the lease is theirs, and nothing failed.
    """
    webhook = _leased(session, lease)
    if webhook is None:
        return False
    webhook.lease_expires_at = _now(session) + LEASED_FOR
    place = before = _place(webhook)
    noted = []
    for outcome in outcomes:
        row = _noted(webhook, outcome)
        if outcome.message.requested:
            row["state"] = DELIVERED if outcome.answer.delivered else DEAD
        elif outcome.answer.delivered:
            webhook.failing_since = webhook.last_error = None
            place = outcome.message.seq
        else:
            place = _fail(session, webhook, outcome, row)
        webhook.slow = not outcome.answer.delivered or outcome.answer.duration_ms > SLOW_MS
        noted.append(row)
    if through is not None:
        place = through
    _write(session, noted)
    _move(session, webhook, before, place)
    webhook.redelivering = _is_asked(session, webhook)
    session.flush()
    return webhook.enabled and webhook.due_at <= _now(session)


def release(session: Session, lease: Lease, *, after: timedelta = timedelta(0)) -> None:
    """Ends the lease, if it is still the caller's; the webhook's turn comes again after those that wait, and `after`."""
    webhook = _leased(session, lease)
    if webhook is not None:
        _end(webhook)
        webhook.due_at = max(webhook.due_at, _now(session) + after)


def expire(session: Session) -> int:
    """Deletes some of the deliveries that ended a month ago; how many."""
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.attempted_at < _now(session) - KEPT_FOR, WebhookDelivery.state != PENDING)
        .limit(EXPIRED_AT_ONCE)
    )
    gone = delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.id)
    return len(session.execute(gone).all())


def delay_after(attempts: int) -> timedelta:
    """How long after the given number of tries the next one comes, give or take JITTER."""
    delay: timedelta = FIRST_DELAY * FACTOR ** min(attempts - 1, 10)
    return min(LONGEST_DELAY, delay)


def _delay(attempts: int, answer: Answer) -> timedelta:
    jittered = delay_after(attempts) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret  # nosec B311
    if answer.status not in BUSY_STATUSES or answer.retry_after_s is None:
        return jittered
    asked = min(LONGEST_DELAY, timedelta(seconds=answer.retry_after_s))
    return max(jittered, asked)


def _now(session: Session) -> datetime:
    """Of this transaction, by the database's clock, which every worker shares."""
    found: datetime | None = session.info.get("now")
    if found is None:
        found = session.info["now"] = session.scalar(text("SELECT now()"))
    assert found is not None  # noqa: S101  a SELECT without FROM has a row  # nosec B101
    return found


def _leased(session: Session, lease: Lease) -> Webhook | None:
    """The webhook, locked, if the lease is still good."""
    return session.scalar(
        select(Webhook)
        .where(Webhook.id == lease.webhook_id, Webhook.lease_id == lease.lease_id, Webhook.enabled)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def _end(webhook: Webhook) -> None:
    webhook.lease_id = webhook.lease_expires_at = None


def _place(webhook: Webhook) -> int:
    """Where it is in the log: of its replay, while there is one."""
    return webhook.delivered_seq if webhook.replay_seq is None else webhook.replay_seq


def _stretch(session: Session, access: Access, webhook: Webhook) -> tuple[list[Message], int]:
    """The next events and the place that they lead to. What is not for the webhook is passed over."""
    after, until = _place(webhook), webhook.replay_until
    if until is None:
        # Before the events are read, so that all up to it are there to be seen.
        until = session.scalar(select(ActivityHead.seq).where(ActivityHead.team_id == webhook.team_id)) or 0
    until = max(after, min(until, after + SCANNED_AT_ONCE))
    views = queries.events(session, access, after=after, until=until, actions=webhook.actions, limit=BATCH)
    if len(views) == BATCH:
        until = views[-1].row.seq
    attempts = _attempts(session, webhook, views[0].row.seq) if views else 0
    messages = [_message(view, 0 if number else attempts) for number, view in enumerate(views)]
    if not messages:
        _move(session, webhook, after, until)
    return messages, until


def _requested(session: Session, access: Access, webhook: Webhook) -> list[Message]:
    """The deliveries that were asked for, as far as they may still be seen; the others are given up."""
    if not webhook.redelivering:
        return []
    rows = session.scalars(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.webhook_id == webhook.id,
            WebhookDelivery.state == PENDING,
            WebhookDelivery.requested,
        )
        .order_by(WebhookDelivery.seq)
        .limit(REDELIVERED_AT_ONCE)
    ).all()
    views = {
        view.row.seq: view for view in queries.events_numbered(session, access, [row.seq for row in rows])
    }
    for row in rows:
        if row.seq not in views:
            row.state, row.requested, row.next_attempt_at, row.last_error = DEAD, False, None, WITHHELD
    session.flush()
    if not views:
        webhook.redelivering = _is_asked(session, webhook)
    return [_message(views[row.seq], row.attempts, requested=True) for row in rows if row.seq in views]


def _is_asked(session: Session, webhook: Webhook) -> bool:
    """Whether a delivery that was asked for still waits."""
    if not webhook.redelivering:
        return False
    waiting = exists().where(
        WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.state == PENDING, WebhookDelivery.requested
    )
    return bool(session.scalar(select(waiting)))


def _attempts(session: Session, webhook: Webhook, seq: int) -> int:
    """How often the event was tried that waits for its next try; 0 if it is a new one."""
    statement = select(WebhookDelivery.attempts).where(
        WebhookDelivery.team_id == webhook.team_id,
        WebhookDelivery.webhook_id == webhook.id,
        WebhookDelivery.seq == seq,
        WebhookDelivery.state == PENDING,
        ~WebhookDelivery.requested,
    )
    return session.scalar(statement) or 0


def _message(view: ActivityView, attempts: int, *, requested: bool = False) -> Message:
    row = view.row
    return Message(row.seq, row.id, row.action, webhook_messages.event_body(view), attempts, requested)


def _noted(webhook: Webhook, outcome: Outcome) -> dict[str, Any]:
    message, answer = outcome.message, outcome.answer
    return {
        "id": uuid7(),
        "team_id": webhook.team_id,
        "webhook_id": webhook.id,
        "seq": message.seq,
        "event_id": message.id,
        "action": message.action,
        "state": DELIVERED,
        "attempts": message.attempts + 1,
        "requested": False,
        "last_status": answer.status,
        "last_error": answer.error,
        "duration_ms": answer.duration_ms,
        "next_attempt_at": None,
        "attempted_at": datetime.now(UTC),
    }


def _fail(session: Session, webhook: Webhook, outcome: Outcome, row: dict[str, Any]) -> int:
    """What a failure leads to: another try, a dead letter, or no webhook any more. The place in the log after it."""
    now, answer, attempts = _now(session), outcome.answer, row["attempts"]
    webhook.failing_since = webhook.failing_since or now
    webhook.last_error = answer.error
    _end(webhook)
    place: int = row["seq"] - 1
    if attempts >= MAXIMUM_ATTEMPTS:
        row["state"], place = DEAD, row["seq"]
        webhook.due_at = now + FIRST_DELAY
    else:
        webhook.due_at = now + _delay(attempts, answer)
        row["state"], row["next_attempt_at"] = PENDING, webhook.due_at
    if answer.status == GONE_STATUS:
        webhooks.disable(session, webhook, webhooks.GONE)
    elif now - webhook.failing_since >= DISABLED_AFTER:
        webhooks.disable(session, webhook, webhooks.FAILING)
    return place


def _write(session: Session, noted: list[dict[str, Any]]) -> None:
    if not noted:
        return
    row = insert(WebhookDelivery)
    kept = {"id", "team_id", "webhook_id", "seq", "event_id", "action"}
    session.execute(
        row.on_conflict_do_update(
            index_elements=["team_id", "webhook_id", "seq"],
            set_={name: row.excluded[name] for name in noted[0] if name not in kept},
        ),
        noted,
    )


def _move(session: Session, webhook: Webhook, before: int, place: int) -> None:
    """Moves the place in the log on, and ends a replay that has come to its end."""
    if webhook.replay_seq is None:
        webhook.delivered_seq = place
    elif webhook.replay_until is not None and place >= webhook.replay_until:
        webhook.replay_seq = webhook.replay_until = None
    else:
        webhook.replay_seq = place
    if place > before:
        # One that waited for its next try, and was passed over since: it may not be seen any more, or is not wanted.
        session.execute(
            text("""
UPDATE webhook_deliveries SET state = :dead, last_error = :withheld, next_attempt_at = NULL
WHERE webhook_id = :id AND state = :pending AND NOT requested AND seq > :before AND seq <= :place
"""),
            {
                "dead": DEAD,
                "withheld": WITHHELD,
                "id": webhook.id,
                "pending": PENDING,
                "before": before,
                "place": place,
            },
        )
