"""Price books: loading a version for good, and moving teams to one."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models.access.actor import System
from models.errors import Conflict, NotFound
from models.events.catalogue import PriceBookChanged
from models.events.record import record
from models.operations import plan_periods
from models.operations.changes import apply_changes
from models.operations.members import refuse_without_seats
from models.plans import Book, parse
from models.queries import plans, teams
from models.tables import PlanPeriod, PriceBook, Team

ELSEWHERE = text("""
SELECT p.team_id FROM plan_periods p JOIN teams t ON t.id = p.team_id AND t.deleted_at IS NULL
WHERE p.ends_at IS NULL AND p.price_book <> :version AND p.team_id > :after ORDER BY p.team_id LIMIT :limit
""")


def digest(body: Any) -> str:
    """The SHA-256 of a book's compact JSON, in the order of its file: by which the same book is known again."""
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()


def load(session: Session, body: Any) -> bool:
    """
    Keeps the book for good; False if it is there already. From then on the newest version is what teams get that are made or choose
    a plan; the others stay on theirs until they choose, or `move`.

    Raises Invalid as `parse` does, and Conflict for a version that is there with another body, is older than the newest, or has
    another currency: an invoice has one.
    """
    book = parse(body)
    sha256 = digest(body)
    known = session.scalar(select(PriceBook.sha256).where(PriceBook.version == book.version))
    if known is None:
        _refuse_out_of_line(session, book)
        statement = insert(PriceBook).values(version=book.version, body=body, sha256=sha256)
        if session.scalar(statement.on_conflict_do_nothing().returning(PriceBook.version)):
            return True
        known = session.scalar(select(PriceBook.sha256).where(PriceBook.version == book.version))
    if known != sha256:
        raise Conflict(
            f"Version {book.version} is loaded and says something else; give this one a new number."
        )
    return False


def teams_elsewhere(session: Session, version: int, *, after: UUID, limit: int) -> Sequence[UUID]:
    """Teams that are on another version, by id and after the given one."""
    return session.scalars(ELSEWHERE, {"version": version, "after": after, "limit": limit}).all()


def move(session: Session, team_id: UUID, version: int) -> bool:
    """
    The team's plan goes on at the prices, and with the seats and limits, of another book; False if it is on it already.

    Raises NotFound for a team or a version that is absent, Conflict if the book has no such plan, and SeatLimitReached if the
    members don't fit into its seats.
    """
    book = plans.book(session, version)
    team = teams.lock(session, team_id)
    if team is None:
        raise NotFound("team")
    previous = session.scalar(
        select(PlanPeriod.price_book).where(PlanPeriod.team_id == team.id, PlanPeriod.ends_at.is_(None))
    )
    if previous is None or previous == version:
        return False
    _move(session, team, book, previous)
    return True


def _move(session: Session, team: Team, book: Book, previous: int) -> None:
    if team.plan not in book.plans:
        raise Conflict(f"Version {book.version} has no plan {team.plan}.")
    plan = book.plans[team.plan]
    refuse_without_seats(session, team, plan)
    apply_changes(session, team, {"max_members": plan.max_members})
    plan_periods.begin(session, team, book)
    record(
        session,
        System(team.id),
        PriceBookChanged(
            team_id=team.id,
            name=team.name,
            plan=plan.name,
            from_version=previous,
            to_version=book.version,
            max_members=plan.max_members,
        ),
    )


def _refuse_out_of_line(session: Session, book: Book) -> None:
    newest = plans.current_book(session)
    if book.version < newest.version:
        raise Conflict(f"Version {newest.version} is loaded; a newer one has a higher number.")
    if book.currency != newest.currency:
        raise Conflict(f"The loaded books are in {newest.currency}; an invoice can't be in two currencies.")
