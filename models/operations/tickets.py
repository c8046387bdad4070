"""Tickets: each opens one socket, once (models/access/entry.py, enter_with_ticket)."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from models.access.credentials import hash_secret, new_token
from models.access.entry import Access
from models.tables import Ticket

VALID_FOR = timedelta(seconds=30)
TICKET_PREFIX = "aht_"


@dataclass(frozen=True, slots=True)
class NewTicket:
    """A ticket's row and the ticket, which is not kept and can't be shown again."""

    row: Ticket
    ticket: str


def create(session: Session, access: Access) -> NewTicket:
    """A ticket for the actor to open a socket of the team with. It is no change of the team's, and so no event."""
    ticket = new_token(TICKET_PREFIX)
    row = Ticket(
        team_id=access.team_id,
        token_hash=hash_secret(ticket),
        session_id=access.session_id,
        api_key_id=access.api_key_id,
        expires_at=func.clock_timestamp() + VALID_FOR,
    )
    session.add(row)
    session.flush()  # its time is part of the answer
    return NewTicket(row, ticket)


def expire(session: Session) -> None:
    """Deletes the tickets that nobody used in time."""
    session.execute(delete(Ticket).where(Ticket.expires_at <= func.now()))
