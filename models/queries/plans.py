"""The price books that are loaded, and the plans of the newest: what a team gets that chooses one now."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from models.errors import NotFound
from models.plans import Book, Plan, parse
from models.queries.paging import Page, Slice, bad_cursor
from models.tables import PlanPeriod, PriceBook

THIS_MONTH = text("SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date")
NEWEST = text("SELECT version, sha256 FROM price_books ORDER BY version DESC LIMIT 1")
_parsed: dict[str, Book] = {}
"""By the hash of what they say; a book that is loaded never changes."""


class LoadedBook(NamedTuple):
    version: int
    sha256: str
    loaded_at: object
    teams: int
    """How many are on it at present."""


LOADED = text("""
SELECT b.version, b.sha256, b.loaded_at, count(t.id) AS teams FROM price_books b
LEFT JOIN plan_periods p ON p.price_book = b.version AND p.ends_at IS NULL
LEFT JOIN teams t ON t.id = p.team_id AND t.deleted_at IS NULL
GROUP BY b.version ORDER BY b.version
""")


def current_book(session: Session) -> Book:
    """The newest book that is loaded; one short statement, as its text is read and parsed once a process."""
    version, sha256 = session.execute(NEWEST).one()
    return _book(session, version, sha256)


def book(session: Session, version: int) -> Book:
    """A loaded book; raises NotFound."""
    sha256 = session.scalar(select(PriceBook.sha256).where(PriceBook.version == version))
    if sha256 is None:
        raise NotFound("price book")
    return _book(session, version, sha256)


def last_book_of(session: Session, team_id: UUID) -> Book:
    """The book of the team's last plan period, ended or not."""
    last = (
        select(PlanPeriod.price_book)
        .where(PlanPeriod.team_id == team_id)
        .order_by(PlanPeriod.starts_at.desc())
        .limit(1)
    )
    return book(session, session.scalars(last).one())


def loaded(session: Session) -> list[LoadedBook]:
    """Every book, the oldest first."""
    return [LoadedBook(*row) for row in session.execute(LOADED)]


def listed(session: Session, page: Page) -> tuple[Book, Slice[Plan]]:
    """The newest book and a page of its plans, the smallest first; raises Invalid for a cursor that names none."""
    newest = current_book(session)
    names, begin = list(newest.plans), 0
    if page.after is not None:
        if len(page.after) != 1 or page.after[0] not in names:
            raise bad_cursor()
        begin = names.index(page.after[0]) + 1
    rest = [newest.plans[name] for name in names[begin:]]
    items = rest[: page.limit]
    return newest, Slice(items, (items[-1].name,) if len(rest) > page.limit else None)


def _book(session: Session, version: int, sha256: str) -> Book:
    if sha256 not in _parsed:
        body = session.scalar(select(PriceBook.body).where(PriceBook.version == version))
        _parsed[sha256] = parse(body)
    return _parsed[sha256]
