"""An operator's word that something is tried again: what waits for its next try, at once; what was given up, from the start."""

from collections.abc import Callable, Mapping
from datetime import date
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.access.actor import System
from models.errors import Conflict, Invalid, NotFound
from models.operations import closing, webhooks
from models.operations.closing import TeamMonth
from models.tables import Erasure, Mail, MonthClose, PaymentOrder, Webhook, WebhookDelivery
from models.tables.billing import MISMATCH


def retry(session: Session, kind: str, id_: str) -> None:
    """
    Has the work of this kind and id (models/queries/jobs.py) tried again. Raises NotFound for what is not there (any more),
    Conflict for what can't be tried now, and Invalid for a kind that is not retried by hand.
    """
    if kind not in RETRIES:
        raise Invalid(
            {
                "kind": [
                    f"It can be {', '.join(RETRIES)}; the others go on by themselves, or are asked for anew."
                ]
            }
        )
    try:
        RETRIES[kind](session, id_)
    except ValueError as error:
        raise NotFound(kind) from error


def _mail(session: Session, id_: str) -> None:
    mail = session.get(Mail, UUID(id_), with_for_update=True)
    if mail is None:
        raise NotFound("mail")
    mail.failed_at, mail.due_at, mail.attempts = None, func.now(), 0


def _payment(session: Session, id_: str) -> None:
    order = session.get(PaymentOrder, UUID(id_), with_for_update=True)
    if order is None:
        raise NotFound("payment order")
    # Never the first attempt again: the provider is asked what earlier ones have done.
    order.failed_at, order.due_at, order.attempts = None, func.now(), min(order.attempts, 1)


def _delivery(session: Session, id_: str) -> None:
    delivery = session.get(WebhookDelivery, UUID(id_))
    if delivery is None:
        raise NotFound("delivery")
    webhook = session.get_one(Webhook, delivery.webhook_id, with_for_update=True)
    session.refresh(delivery, with_for_update=True)
    webhooks.redeliver(session, System(webhook.team_id), webhook, delivery)


def _close(session: Session, id_: str) -> None:
    team, _, month = id_.partition("/")
    of = TeamMonth(UUID(team), date.fromisoformat(f"{month}-01"))
    state = session.scalar(
        select(MonthClose.state).where(MonthClose.team_id == of.team_id, MonthClose.month == of.month)
    )
    if state is None:
        raise NotFound("month close")
    if state != MISMATCH:
        raise Conflict(f"It is {state}.")
    closing.retry(session, of)


def _erasure(session: Session, id_: str) -> None:
    erasure = session.get(Erasure, UUID(id_), with_for_update=True)
    if erasure is None or erasure.finished_at is not None:
        raise NotFound("erasure")
    erasure.due_at = func.now()


RETRIES: Mapping[str, Callable[[Session, str], None]] = {
    "mail": _mail,
    "payment": _payment,
    "delivery": _delivery,
    "close": _close,
    "erasure": _erasure,
}
