"""
Exports of the log: recording each, and the life of those that a worker writes to a file.

A worker claims an export, writes a file that bears the attempt's id, says all the while that it is alive, and completes it;
each of these is a short transaction. One that falls silent loses the export to another, which begins a file of its own. A
file is wanted as long as its row says so (`wanted`), so deleting a row, or its team, is enough.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import and_, exists, func, or_, select, text
from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import System
from models.access.credentials import hash_secret, new_token
from models.access.entry import Access, enter_as_requested
from models.access.permissions import Permission
from models.errors import Conflict, DomainError, NotFound
from models.events.catalogue import ActivityExportDeleted, ActivityExported, ActivityExportFinished
from models.events.record import record
from models.queries.activity_exports import ExportRequest, request_of
from models.settings import settings
from models.tables import ActivityExport, ActivityLog, ApiKey, Team, TeamMember, User
from models.tables.activity_exports import COMPLETED, EXPIRED, FAILED, PENDING, RUNNING

KEPT_FOR = timedelta(hours=24)
"""How long a file can be fetched."""
FORGOTTEN_AFTER = timedelta(days=30)
"""When the row of an export that is over goes too."""
PER_TEAM = 5
"""Exports of a team that wait, run or have a file."""
LEASE = timedelta(seconds=60)
"""An attempt that says nothing for so long is another's to repeat; longer than any statement of it may take."""
ATTEMPTS = 5
PAUSE = timedelta(seconds=10)
"""After a failed attempt, times the number of those."""
LINK_PREFIX = "ahx_"
LIVE = (PENDING, RUNNING, COMPLETED)
# One claimer at a time, so that no two see the same number of exports at work.
ONE_CLAIMER = text("SELECT pg_advisory_xact_lock(4117031979)")
SILENT = "The worker ended in the middle of it, again and again."


@dataclass(frozen=True, slots=True)
class WithLink:
    """An export and the secret of its download link, which is not kept and can't be shown again."""

    export: ActivityExport
    token: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a worker needs to write an export's file."""

    export_id: UUID
    id: UUID
    access: Access
    request: ExportRequest


def path_of(attempt_id: UUID) -> Path:
    """The file of an attempt, be it there or not."""
    return settings().export_directory / f"{attempt_id}.gz"


def record_export(
    session: Session, access: Access, request: ExportRequest, *, export_id: UUID | None = None
) -> None:
    """Records that the actor exports the log: to the file of the export `export_id`, or at once."""
    searched_for = {name: "withheld" for name in ("q", "ip_address") if name in request.filters}
    record(
        session,
        access,
        ActivityExported(
            export_id=export_id or uuid7(),
            format=request.format,
            proof=request.proof,
            descending=request.descending,
            filters=request.filters | searched_for,
            as_file=export_id is not None,
        ),
    )


def create(session: Session, access: Access, team: Team, request: ExportRequest) -> WithLink:
    """Asks for a file; the caller has locked the team. Raises Conflict while the team has PER_TEAM of them."""
    live = select(func.count()).where(ActivityExport.team_id == team.id, ActivityExport.state.in_(LIVE))
    if (session.scalar(live) or 0) >= PER_TEAM:
        raise Conflict(f"A team has at most {PER_TEAM} exports that run or are kept; delete one first.")
    token = new_token(LINK_PREFIX)
    export = ActivityExport(
        id=uuid7(),
        team_id=access.team_id,
        user_id=access.user_id,
        agent_id=access.agent_id,
        session_id=access.session_id,
        api_key_id=access.api_key_id,
        format=request.format,
        proof=request.proof,
        descending=request.descending,
        filters=request.filters,
        token_hash=hash_secret(token),
    )
    session.add(export)
    session.flush()
    record_export(session, access, request, export_id=export.id)
    return WithLink(export, token)


def renew_link(session: Session, export: ActivityExport) -> WithLink:
    """A new link, which ends the old one; the caller has locked the export. Raises Conflict for one that is over."""
    if export.state not in LIVE:
        raise Conflict(f"This export has {export.state}; ask for another.")
    token = new_token(LINK_PREFIX)
    export.token_hash = hash_secret(token)
    session.flush()
    return WithLink(export, token)


def delete(session: Session, access: Access, export: ActivityExport) -> None:
    """Cancels it, or has its file removed; the caller has locked it. The link is dead at once."""
    session.delete(export)
    record(session, access, ActivityExportDeleted(export_id=export.id, state=export.state))


def fetchable(session: Session, export_id: UUID, token: str) -> ActivityExport:
    """
    The export whose file the link's secret opens. Raises NotFound, for a link that is over too, or whose team is deleted, or
    who asked for it is no member any more; Conflict while the file is not ready.
    """
    member = exists().where(
        TeamMember.team_id == ActivityExport.team_id,
        TeamMember.user_id == ActivityExport.user_id,
        TeamMember.suspended_at.is_(None),
    )
    key = exists().where(ApiKey.id == ActivityExport.api_key_id)
    export = session.scalar(
        select(ActivityExport)
        .join(
            Team,
            and_(Team.id == ActivityExport.team_id, Team.deleted_at.is_(None), Team.suspended_at.is_(None)),
        )
        .join(User, and_(User.id == ActivityExport.user_id, User.suspended_at.is_(None)))
        .where(
            ActivityExport.id == export_id,
            ActivityExport.token_hash == hash_secret(token),
            ActivityExport.state.in_(LIVE),
            or_(ActivityExport.expires_at.is_(None), ActivityExport.expires_at > func.now()),
            member,
            or_(ActivityExport.api_key_id.is_(None), key),
        )
    )
    if export is None:
        raise NotFound("export")
    if export.state != COMPLETED:
        raise Conflict("The export is not ready yet.", state=export.state, percent=export.percent)
    return export


def claim(session: Session, *, at_once: int) -> Attempt | None:
    """
    The oldest export that is due, for the caller to write within LEASE of each `alive`; None if there is none, or `at_once`
    are being written. One that can't be written any more is failed on the way: the rights of whoever asked are gone, or too
    many attempts went wrong.
    """
    session.execute(ONE_CLAIMER)
    at_work = select(func.count()).where(ActivityExport.state == RUNNING, ActivityExport.due_at > func.now())
    if (session.scalar(at_work) or 0) >= at_once:
        return None
    due = (
        select(ActivityExport)
        .where(ActivityExport.state.in_((PENDING, RUNNING)), ActivityExport.due_at <= func.now())
        .order_by(ActivityExport.due_at, ActivityExport.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    while (export := session.scalar(due)) is not None:
        if export.attempts >= ATTEMPTS:
            _end(session, export, FAILED, error=export.error or SILENT)
            continue
        try:
            access = enter_as_requested(
                session,
                export.team_id,
                Permission.activity_read,
                session_id=export.session_id,
                api_key_id=export.api_key_id,
            )
        except DomainError as error:
            _end(
                session,
                export,
                FAILED,
                error=f"Who asked for it may not read the log any more. {error.detail}",
            )
            continue
        export.state, export.attempt_id, export.attempts = RUNNING, uuid7(), export.attempts + 1
        export.rows, export.percent, export.due_at = 0, 0, func.now() + LEASE
        session.flush()
        return Attempt(export.id, export.attempt_id, access, request_of(export))
    return None


def alive(session: Session, attempt: Attempt, *, rows: int, percent: int) -> bool:
    """Says that the attempt goes on, and how far it is; whether it is still the one: else it is to stop."""
    export = _locked(session, attempt)
    if export is None:
        return False
    export.rows, export.percent, export.due_at = rows, percent, func.now() + LEASE
    return True


def complete(session: Session, attempt: Attempt, *, rows: int, size: int, sha256: bytes) -> bool:
    """The file is whole and on the disk; False if the export is not this attempt's any more."""
    export = _locked(session, attempt)
    if export is None:
        return False
    export.rows, export.percent, export.size, export.sha256 = rows, 100, size, sha256
    export.expires_at = func.now() + KEPT_FOR
    _end(session, export, COMPLETED)
    return True


def failed(session: Session, attempt: Attempt, reason: str, *, for_good: bool = False) -> None:
    """The attempt went wrong: another one follows after a pause, if there is one left."""
    export = _locked(session, attempt)
    if export is None:
        return
    if for_good or export.attempts >= ATTEMPTS:
        _end(session, export, FAILED, error=reason)
        return
    export.state, export.error, export.attempt_id = PENDING, reason, None
    export.due_at = func.now() + PAUSE * export.attempts


def expire(session: Session) -> None:
    """Ends what was kept for long enough, and forgets what ended long ago."""
    over = (ActivityExport.state == COMPLETED, ActivityExport.expires_at <= func.now())
    session.execute(update_rows(ActivityExport).where(*over).values(state=EXPIRED, token_hash=None))
    old = (
        ActivityExport.state.in_((FAILED, EXPIRED)),
        ActivityExport.completed_at <= func.now() - FORGOTTEN_AFTER,
    )
    session.execute(delete_rows(ActivityExport).where(*old))


def expire_those_about(session: Session, user_id: UUID) -> None:
    """Ends every export that the person asked for, or of a log that they are in: for the erasure of what identifies them."""
    named_there = exists().where(
        ActivityLog.team_id == ActivityExport.team_id,
        or_(
            ActivityLog.user_id == user_id,
            and_(ActivityLog.resource_type == "user", ActivityLog.resource_id == user_id),
        ),
    )
    theirs = or_(ActivityExport.user_id == user_id, named_there)
    session.execute(delete_rows(ActivityExport).where(theirs, ActivityExport.state.in_(LIVE)))


def wanted(session: Session, attempt_ids: Collection[UUID]) -> set[UUID]:
    """Of these attempts, those whose files are to stay. Ask after the files were listed: a row is there before its file."""
    kept = select(ActivityExport.attempt_id).where(
        ActivityExport.attempt_id.in_(attempt_ids), ActivityExport.state.in_((RUNNING, COMPLETED))
    )
    return {attempt_id for attempt_id in session.scalars(kept) if attempt_id}


def _locked(session: Session, attempt: Attempt) -> ActivityExport | None:
    return session.scalar(
        select(ActivityExport)
        .where(
            ActivityExport.id == attempt.export_id,
            ActivityExport.attempt_id == attempt.id,
            ActivityExport.state == RUNNING,
        )
        .with_for_update()
    )


def _end(session: Session, export: ActivityExport, state: str, *, error: str | None = None) -> None:
    export.state, export.error, export.completed_at = state, error, func.now()
    if state == FAILED:
        export.token_hash = None
    session.flush()
    record(
        session,
        System(export.team_id),
        ActivityExportFinished(
            export_id=export.id,
            state=state,
            rows=export.rows,
            sha256=export.sha256.hex() if export.sha256 else None,
            error=error,
        ),
    )
