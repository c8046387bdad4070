"""A team's exports of its log: what may be asked for, whose they are, and the rows of one from a server-side cursor."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, and_, case, cast, func, not_, select, text
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import Invalid, NotFound
from models.queries import chain
from models.queries.activity import named
from models.queries.activity_filters import ActivityFilter, conditions, visible
from models.queries.paging import Page, Slice, keyset
from models.tables import ActivityExport, ActivityHead, ActivityLog
from models.tables.activity_exports import NDJSON

ROWS_AT_ONCE = 500
"""Rows that are in memory at a time: a few milliseconds' work."""
STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = '45s'")
"""Of each fetch: a rare word can be far away. Shorter than a worker's lease (models/operations/activity_exports.py)."""
IDS = {"user_id", "agent_id", "api_key_id", "resource_id", "workspace_id"}
TIMES = {"since", "until"}
COLUMNS = (
    ActivityLog.seq, ActivityLog.id, ActivityLog.team_id, ActivityLog.user_id, ActivityLog.agent_id,
    ActivityLog.api_key_id, ActivityLog.action, ActivityLog.outcome, ActivityLog.schema_version,
    ActivityLog.resource_type, ActivityLog.resource_id, ActivityLog.resource_name, ActivityLog.workspace_id,
    cast(ActivityLog.details, Text), func.host(ActivityLog.ip_address), ActivityLog.user_agent, ActivityLog.request_id,
    ActivityLog.created_at,
)  # fmt: skip
DIGEST = func.activity_digest(
    ActivityLog.team_id, ActivityLog.seq, ActivityLog.id, ActivityLog.created_at, ActivityLog.user_id,
    ActivityLog.agent_id, ActivityLog.api_key_id, ActivityLog.action, ActivityLog.schema_version, ActivityLog.outcome,
    ActivityLog.resource_type, ActivityLog.resource_id, ActivityLog.resource_name, ActivityLog.workspace_id,
    ActivityLog.details, ActivityLog.request_id, ActivityLog.origin_hash,
)  # fmt: skip
PROOF = (ActivityLog.hash, ActivityLog.origin_hash, ActivityLog.origin_salt)
Row = Sequence[Any]
"""COLUMNS, with proof then PROOF and the digest of a row that is hidden (else None), and last the names of actor, agent and subject."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What somebody wants to have exported. Raises Invalid for a proof of rows that do not follow each other."""

    wanted: ActivityFilter
    format: str = NDJSON
    proof: bool = False
    descending: bool = True

    def __post_init__(self) -> None:
        if self.proof and set(self.filters) - TIMES:
            raise Invalid(
                {"proof": ["A proof takes no filter but since and until: it needs every row between."]}
            )
        if self.proof and self.descending:
            raise Invalid({"proof": ["A proof follows the chain, oldest first."]})

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that are given, as JSON."""
        given = {name: value for name, value in asdict(self.wanted).items() if value}
        return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, (list, tuple)) else str(value)


def request_of(export: ActivityExport) -> ExportRequest:
    """What was asked for when the export was."""
    given = dict(export.filters)
    for name in IDS & given.keys():
        given[name] = UUID(given[name])
    for name in TIMES & given.keys():
        given[name] = datetime.fromisoformat(given[name])
    return ExportRequest(ActivityFilter(**given), export.format, export.proof, export.descending)


def mine(access: Access) -> ColumnElement[bool]:
    """
    The team's exports that are the caller's: all of them for the owner in person; for a person theirs, and those of what
    acts for them; for an agent or a key its own.
    """
    of_team = ActivityExport.team_id == access.team_id
    if access.is_owner:
        return of_team
    if access.agent_id is not None:
        return and_(of_team, ActivityExport.agent_id == access.agent_id)
    if access.api_key_id is not None:
        return and_(of_team, ActivityExport.api_key_id == access.api_key_id)
    return and_(of_team, ActivityExport.user_id == access.user_id)


def in_team(session: Session, access: Access, page: Page) -> Slice[ActivityExport]:
    """The caller's exports, newest first."""
    return keyset(
        session, select(ActivityExport).where(mine(access)), page, ActivityExport.id, descending=True
    )


def get(session: Session, access: Access, export_id: UUID, *, for_update: bool = False) -> ActivityExport:
    """One of the caller's exports; raises NotFound."""
    statement = select(ActivityExport).where(mine(access), ActivityExport.id == export_id)
    export = session.scalar(statement.with_for_update() if for_update else statement)
    if export is None:
        raise NotFound("export")
    return export


class Export:
    """
    One run of an export, in one session of `models.database.snapshot`: iterate over it once, for lists of rows.

    Its statement has a timeout of its own, and the session's transaction with it.
    """

    def __init__(self, session: Session, access: Access, request: ExportRequest) -> None:
        self._session, self._access, self._request = session, access, request
        self.rows = 0
        """That came so far."""
        self._reached: int | None = None
        session.execute(STATEMENT_TIMEOUT)
        of_team = ActivityHead.team_id == access.team_id
        first, last = session.execute(
            select(ActivityHead.purged_seq + 1, ActivityHead.seq).where(of_team)
        ).one()
        self._first, self._last = self._between(first, last) if request.proof else (first, last)
        self.previous_hash = (
            chain.hash_before(session, access.team_id, self._first) if request.proof else None
        )
        """What the first row of a proof chains to; None if the log does not have it."""

    @property
    def percent(self) -> int:
        """How much of the log's numbers lies behind."""
        if self._reached is None:
            return 0
        passed = self._last - self._reached if self._request.descending else self._reached - self._first
        return max(0, passed + 1) * 100 // (self._last - self._first + 1)

    def __iter__(self) -> Iterator[Sequence[Row]]:
        connection = self._session.connection()
        with connection.execute(self._statement(), execution_options={"yield_per": ROWS_AT_ONCE}) as found:
            for rows in found.partitions():
                self.rows += len(rows)
                self._reached = rows[-1][0]
                yield rows

    def _statement(self) -> Select[*tuple[Any, ...]]:
        seq = ActivityLog.seq
        seen = visible(self._access)
        columns: list[Any] = [*COLUMNS]
        # Up to the head as it was when this began, which the progress is measured by.
        wanted = [ActivityLog.team_id == self._access.team_id, seq.between(self._first, self._last)]
        if self._request.proof:
            columns += [*PROOF, case((not_(and_(*seen)), DIGEST))]
        else:
            wanted += [*seen, *conditions(self._request.wanted)]
        rows: Any = select(*columns).where(*wanted)
        return named(rows).order_by(seq.desc() if self._request.descending else seq)

    def _between(self, first: int, last: int) -> tuple[int, int]:
        """The numbers of the first and the last row of the time that is wanted; every row between them belongs to the proof."""
        if not self._request.filters:
            return first, last
        bounds = select(func.min(ActivityLog.seq), func.max(ActivityLog.seq)).where(
            ActivityLog.team_id == self._access.team_id, *conditions(self._request.wanted)
        )
        lowest, highest = self._session.execute(bounds).one()
        return (1, 0) if lowest is None else (lowest, highest)
