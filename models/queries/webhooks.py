"""A team's webhooks, their deliveries, and the events that are to be sent to one."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.queries.activity import ActivityView, named
from models.queries.activity_filters import visible
from models.queries.paging import Page, Slice, keyset
from models.tables import ActivityLog, Webhook, WebhookDelivery


def in_team(session: Session, access: Access, page: Page) -> Slice[Webhook]:
    """The team's webhooks, oldest first."""
    return keyset(session, select(Webhook).where(Webhook.team_id == access.team_id), page, Webhook.id)


def count(session: Session, access: Access) -> int:
    return session.scalar(select(func.count()).where(Webhook.team_id == access.team_id)) or 0


def get(session: Session, access: Access, webhook_id: UUID, *, for_update: bool = False) -> Webhook:
    """One webhook of the team; raises NotFound."""
    statement = select(Webhook).where(Webhook.team_id == access.team_id, Webhook.id == webhook_id)
    found = session.scalar(statement.with_for_update() if for_update else statement)
    if found is None:
        raise NotFound("webhook")
    return found


def deliveries(
    session: Session, access: Access, webhook_id: UUID, page: Page, *, state: str | None = None
) -> Slice[WebhookDelivery]:
    """What became of the events, newest event first; of one state, if that is given."""
    statement = select(WebhookDelivery).where(
        WebhookDelivery.team_id == access.team_id, WebhookDelivery.webhook_id == webhook_id
    )
    if state is not None:
        statement = statement.where(WebhookDelivery.state == state)
    return keyset(session, statement, page, WebhookDelivery.seq, descending=True)


def delivery(session: Session, access: Access, webhook_id: UUID, delivery_id: UUID) -> WebhookDelivery:
    """One delivery of the webhook, locked; raises NotFound."""
    found = session.scalar(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.team_id == access.team_id,
            WebhookDelivery.webhook_id == webhook_id,
            WebhookDelivery.id == delivery_id,
        )
        .with_for_update()
    )
    if found is None:
        raise NotFound("delivery")
    return found


def events(
    session: Session, access: Access, *, after: int, until: int, actions: Sequence[str] | None, limit: int
) -> list[ActivityView]:
    """What the caller may see of the team's log after one number and up to another, in its order."""
    statement = named(select(ActivityLog)).where(
        *visible(access), ActivityLog.seq > after, ActivityLog.seq <= until
    )
    if actions is not None:
        statement = statement.where(ActivityLog.action.in_(actions))
    rows = session.execute(statement.order_by(ActivityLog.seq).limit(limit))
    return [ActivityView(*row) for row in rows]


def events_numbered(session: Session, access: Access, seqs: Sequence[int]) -> list[ActivityView]:
    """Those of the events that the caller may see, in the log's order."""
    statement = named(select(ActivityLog)).where(*visible(access), ActivityLog.seq.in_(seqs))
    return [ActivityView(*row) for row in session.execute(statement.order_by(ActivityLog.seq))]
