"""Keyset paging: a page is what comes after a key, so the millionth page costs what the first does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.errors import Invalid

T = TypeVar("T")
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What a caller asks of a list: how many rows, and the key of the last row seen, as the strings that a cursor carries."""

    limit: int = 50
    after: tuple[str, ...] | None = None
    backwards: bool = False
    """Towards what comes before `after` in the list's order; only of a list that can go both ways."""


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """One page of rows, and the key to ask for the next one with; None at the end."""

    items: Sequence[T]
    next_key: Key | None


@dataclass(frozen=True, slots=True)
class TwoWaySlice(Slice[T]):
    """A page from which one can go both ways."""

    previous_key: Key | None
    """To ask, backwards, for the page before; None at the beginning."""


def keyset(
    session: Session,
    statement: Select[*tuple[Any, ...]],
    page: Page,
    *columns: InstrumentedAttribute[Any] | ColumnElement[Any],
    descending: bool = False,
) -> Slice[Any]:
    """
    The page of `statement` in the order of `columns`, which together must be unique.

    Rows of one column come as that value. Raises Invalid if the page's key does not fit the columns.
    """
    if page.after is not None:
        key = tuple_(*columns)
        after = tuple_(*parse_key(page.after, columns))
        statement = statement.where(key < after if descending else key > after)
    statement = statement.order_by(*(column.desc() if descending else column.asc() for column in columns))
    rows = session.execute(statement.add_columns(*columns).limit(page.limit + 1)).all()
    width = len(statement.selected_columns) if not rows else len(rows[0]) - len(columns)
    items = [row[0] if width == 1 else row[:width] for row in rows[: page.limit]]
    more = len(rows) > page.limit
    return Slice(items, tuple(rows[page.limit - 1][width:]) if more else None)


def parse_key(values: tuple[str, ...], columns: tuple[Any, ...]) -> list[Any]:
    """The values of a page's key as those of the columns; raises Invalid if it does not fit them."""
    parsers: dict[type, Callable[[str], Any]] = {
        UUID: UUID,
        int: _bigint,
        str: str,
        datetime: datetime.fromisoformat,
        date: date.fromisoformat,
    }
    if len(values) != len(columns):
        raise bad_cursor()
    try:
        return [
            parsers[column.type.python_type](value) for value, column in zip(values, columns, strict=True)
        ]
    except (ValueError, OverflowError, TypeError) as error:
        raise bad_cursor() from error


def _bigint(value: str) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise OverflowError
    return number


def bad_cursor() -> Invalid:
    return Invalid(
        {"cursor": ["This is not a cursor of this list; leave it out to start from the beginning."]}
    )
