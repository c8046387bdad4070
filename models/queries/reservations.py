"""A team's reservations of usage, as far as the caller may see the workspaces that they are for."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, func, or_, select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.queries import workspaces
from models.queries.paging import Page, Slice, keyset
from models.tables import UsageReservation
from models.tables.usage import OPEN, UNSETTLED

EXPIRED = (UsageReservation.state == OPEN) & (UsageReservation.expires_at <= func.now())
SHOWN_STATE = case((EXPIRED, UNSETTLED), else_=UsageReservation.state)
"""What has expired is unsettled from that moment on, whenever the worker says so."""


@dataclass(frozen=True, slots=True)
class ReservationView:
    row: UsageReservation
    state: str


@dataclass(frozen=True, slots=True)
class Unsettled:
    """How many reservations nobody settled, and how much they may have used at the most."""

    count: int
    quantity: int


def in_team(
    session: Session, access: Access, page: Page, *, state: str | None = None
) -> Slice[ReservationView]:
    """The team's reservations, newest first."""
    statement = _seen_by(access)
    if state is not None:
        statement = statement.where(SHOWN_STATE.in_([state]))
    found = keyset(session, statement, page, UsageReservation.id, descending=True)
    return Slice([ReservationView(*row) for row in found.items], found.next_key)


def get(session: Session, access: Access, reservation_id: UUID) -> ReservationView:
    """One reservation; raises NotFound."""
    row = session.execute(_seen_by(access).where(UsageReservation.id == reservation_id)).one_or_none()
    if row is None:
        raise NotFound("reservation")
    return ReservationView(*row)


def locked(session: Session, access: Access, reservation_id: UUID) -> UsageReservation:
    """One reservation with its row locked; raises NotFound."""
    found = get(session, access, reservation_id).row
    session.refresh(found, with_for_update={"key_share": True})
    return found


def unsettled(session: Session, access: Access, *, since: date, until: date) -> Unsettled:
    """What nobody settled of what was reserved from `since` to `until`, both included."""
    begins = datetime.combine(since, time(), UTC)
    ends = datetime.combine(until, time(), UTC) + timedelta(days=1)
    statement = select(func.count(), func.coalesce(func.sum(UsageReservation.quantity), 0)).where(
        UsageReservation.team_id == access.team_id,
        UsageReservation.created_at >= begins,
        UsageReservation.created_at < ends,
        # Said in full, as the index of these says it.
        UsageReservation.state.in_([OPEN, UNSETTLED]),
        or_(UsageReservation.state == UNSETTLED, EXPIRED),
    )
    count, quantity = session.execute(statement).one()
    return Unsettled(count, int(quantity))


def _seen_by(access: Access) -> Select[UsageReservation, str]:
    at = UsageReservation.workspace_id
    hidden: ColumnElement[bool] = workspaces.shown_id(access, at).is_(None) & at.is_not(None)
    return select(UsageReservation, SHOWN_STATE).where(UsageReservation.team_id == access.team_id, ~hidden)
