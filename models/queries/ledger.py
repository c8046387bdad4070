"""The ledger, read: what every number of the usage opens to."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, null, select
from sqlalchemy.orm import Session, aliased

from models.access.entry import Access
from models.errors import NotFound
from models.queries import workspaces
from models.queries.paging import Page, Slice, keyset
from models.tables import UsageLedger
from models.tables.usage import Metric, TokenPart

EXTERNAL = "external:"
"""Keeps a reporter's ids apart from the keys that we derive."""
EXPORTED = (
    "id", "key", "metric", "quantity", "occurred_at", "recorded_at", "user_id", "agent_id", "api_key_id", "workspace_id",
    "model", "part", "reverses", "reason", "set_id",
)  # fmt: skip
"""The columns of a row, for whoever recounts."""


class NoneAtAll:
    """In a filter: rows that have none of it."""


NONE_AT_ALL = NoneAtAll()
Reversal = aliased(UsageLedger, name="reversal")


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Each narrows what the others leave; days are UTC's, both included. NONE_AT_ALL finds the rows without a value."""

    since: date | None = None
    until: date | None = None
    metric: str | None = None
    user_id: UUID | NoneAtAll | None = None
    agent_id: UUID | NoneAtAll | None = None
    api_key_id: UUID | NoneAtAll | None = None
    workspace_id: UUID | NoneAtAll | None = None
    model: str | NoneAtAll | None = None
    part: str | NoneAtAll | None = None
    set_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class LedgerView:
    """A row, without what names a workspace that the caller may not see."""

    row: UsageLedger
    workspace_id: UUID | None
    reversed_by: UUID | None

    @property
    def key(self) -> str | None:
        return self.row.key if self.workspace_id == self.row.workspace_id else None

    @property
    def external_id(self) -> str | None:
        key = self.key
        return key.removeprefix(EXTERNAL) if key and key.startswith(EXTERNAL) else None


def in_team(session: Session, access: Access, wanted: LedgerFilter, page: Page) -> Slice[LedgerView]:
    """The rows that match every given filter, what happened last first."""
    statement = _shown_to(access).where(*_conditions(access, wanted))
    found = keyset(session, statement, page, UsageLedger.occurred_at, UsageLedger.id, descending=True)
    return Slice([LedgerView(*row) for row in found.items], found.next_key)


def get(session: Session, access: Access, ledger_id: UUID) -> LedgerView:
    """One row; raises NotFound."""
    row = session.execute(_shown_to(access).where(UsageLedger.id == ledger_id)).one_or_none()
    if row is None:
        raise NotFound("ledger row")
    return LedgerView(*row)


def of_task(session: Session, access: Access, task_id: UUID) -> list[UsageLedger]:
    """What completing the task counted of tokens, by part where that was said; of a task that the caller may see."""
    counted = f"task:{task_id}:completed"
    keys = [f"{counted}:{Metric.llm_tokens_used}", *(f"{counted}:tokens:{part}" for part in TokenPart)]
    statement = select(UsageLedger).where(UsageLedger.team_id == access.team_id, UsageLedger.key.in_(keys))
    parts = [None, *TokenPart]
    return sorted(session.scalars(statement), key=lambda row: parts.index(row.part))


def taking_back(session: Session, access: Access, ledger_id: UUID) -> LedgerView:
    """The row that takes this one back, which there is."""
    return LedgerView(*session.execute(_shown_to(access).where(UsageLedger.reverses == ledger_id)).one())


def export(session: Session, team_id: UUID, *, since: date, until: date) -> Iterator[dict[str, object]]:
    """Every row of these days, both included, in the order of their ids, from one snapshot; for operators."""
    columns = [getattr(UsageLedger, name) for name in EXPORTED]
    statement = select(*columns).where(UsageLedger.team_id == team_id, *within(since, until))
    rows = session.execute(statement.order_by(UsageLedger.id), execution_options={"yield_per": 1_000})
    for row in rows:
        yield row._asdict()


def within(since: date | None, until: date | None) -> list[ColumnElement[bool]]:
    """Of these days (UTC), both included."""
    found: list[ColumnElement[bool]] = []
    if since:
        found.append(UsageLedger.occurred_at >= datetime.combine(since, time(), UTC))
    if until:
        found.append(UsageLedger.occurred_at < datetime.combine(until, time(), UTC) + timedelta(days=1))
    return found


def _shown_to(access: Access) -> Select[UsageLedger, UUID | None, UUID | None]:
    return (
        select(UsageLedger, workspaces.shown_id(access, UsageLedger.workspace_id), Reversal.id)
        .outerjoin(Reversal, Reversal.reverses == UsageLedger.id)
        .where(UsageLedger.team_id == access.team_id)
    )


def _conditions(access: Access, wanted: LedgerFilter) -> list[ColumnElement[bool]]:
    found = within(wanted.since, wanted.until)
    columns: dict[str, ColumnElement[Any]] = {
        name: getattr(UsageLedger, name)
        for name in ("metric", "user_id", "agent_id", "api_key_id", "model", "part", "set_id")
    }
    columns["workspace_id"] = workspaces.shown_id(access, UsageLedger.workspace_id)
    for name, column in columns.items():
        value = getattr(wanted, name)
        if isinstance(value, NoneAtAll):
            found.append(column.is_(null()))
        elif value is not None:
            found.append(column == value)
    return found
