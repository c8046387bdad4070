"""Writing exports of the log to files, and removing those that nobody wants any more (models/operations/activity_exports.py)."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError

from models.database import snapshot, transaction
from models.errors import Unavailable
from models.metrics import EXPORTS
from models.operations import activity_exports
from models.operations.activity_exports import Attempt, path_of
from models.queries.activity_exports import Export
from models.queries.export_formats import Encoder
from models.settings import settings
from workers.app import app

log = structlog.get_logger("workers.exports")

SOFT_LIMIT_S, LIMIT_S = 3_600, 3_660
"""Some 80 million rows on a machine of two cores; the snapshot that it reads keeps vacuum waiting all the while."""
SAYS_SO_EVERY_S = 3.0
TOO_LONG = "It took longer than an hour; narrow it by a time or another filter."


class Lost(Exception):
    """The export was cancelled, or another attempt took it over."""


# Acknowledged as it begins, as it may outlast the broker's visibility timeout: if the worker dies, its lease brings another.
@app.task(name="exports.write", acks_late=False, soft_time_limit=SOFT_LIMIT_S, time_limit=LIMIT_S)
def write() -> None:
    """Writes one export that is due, if there is one."""
    with transaction() as session:
        attempt = activity_exports.claim(session, at_once=settings().exports_at_once)
    if attempt is not None:
        run(attempt)


def run(attempt: Attempt) -> None:
    """One attempt; whatever goes wrong is noted, and tried again if it may pass."""
    file = path_of(attempt.id)
    try:
        _write(attempt, file)
        EXPORTS.labels("completed").inc()
    except Lost:
        EXPORTS.labels("lost").inc()
        file.unlink(missing_ok=True)
    except SoftTimeLimitExceeded:
        _give_up(attempt, file, TOO_LONG, for_good=True)
    except OSError as error:
        _give_up(attempt, file, f"The file can't be written: {error.strerror or error}.")
    except (Unavailable, DBAPIError) as error:
        log.warning("export interrupted", export_id=str(attempt.export_id), error=repr(error))
        _give_up(attempt, file, "The database was away, or too slow for it.")


def _write(attempt: Attempt, file: Path) -> None:
    """The whole file, on the disk before its row says so."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with (
        snapshot() as session,
        os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out,
    ):
        export = Export(session, attempt.access, attempt.request)
        said_so = _say_so(attempt, export)
        encoder = Encoder(attempt.request, gzip=True, previous_hash=export.previous_hash)
        for rows in export:
            data = encoder.encode(rows)
            digest.update(data)
            out.write(data)
            if time.monotonic() - said_so > SAYS_SO_EVERY_S:
                said_so = _say_so(attempt, export)
        data = encoder.end()
        digest.update(data)
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    size = file.stat().st_size
    with transaction() as session:
        if not activity_exports.complete(
            session, attempt, rows=export.rows, size=size, sha256=digest.digest()
        ):
            raise Lost


def _say_so(attempt: Attempt, export: Export) -> float:
    """Tells the others that this goes on; when it did."""
    with transaction() as session:
        if not activity_exports.alive(session, attempt, rows=export.rows, percent=export.percent):
            raise Lost
    return time.monotonic()


def _give_up(attempt: Attempt, file: Path, reason: str, *, for_good: bool = False) -> None:
    EXPORTS.labels("failed").inc()
    with suppress(OSError):  # the disk itself may be what is wrong; the sweep comes back to it
        file.unlink(missing_ok=True)
    with transaction() as session:
        activity_exports.failed(session, attempt, reason, for_good=for_good)


@app.task(name="exports.sweep")
def sweep() -> None:
    """Removes every file that no row wants: of exports that expired or were deleted, of teams that are gone, of dead workers."""
    with transaction() as session:
        activity_exports.expire(session)
    there = _attempts_with_a_file()
    with transaction() as session:
        kept = activity_exports.wanted(session, there)
    for attempt_id in there - kept:
        path_of(attempt_id).unlink(missing_ok=True)


def _attempts_with_a_file() -> set[UUID]:
    found = set()
    for file in settings().export_directory.glob("*.gz"):
        with suppress(ValueError):  # something else's file
            found.add(UUID(file.stem))
    return found
