"""Month closes, estimates and recounts. Any number of beats may tick them: each period's work is done once (job_runs, month_closes)."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from models.database import transaction
from models.metrics import CLOSES
from models.operations import closing, estimates, job_runs, recounts
from models.operations.closing import TeamMonth
from models.operations.invoices import Issuer, issuer_of
from models.settings import settings
from models.tables.billing import MISMATCH
from workers.app import app

log = structlog.get_logger("workers.billing")

BATCH = 200
LONGEST_RUN_S = 60.0
"""A run that finds ever more makes way for other work; the next tick goes on."""


@app.task(name="billing.close")
def close() -> None:
    """Drafts the months that have ended, and finalizes those whose grace is over: all that were missed, the oldest first."""
    issuer = issuer_of(settings())
    until = time.monotonic() + LONGEST_RUN_S
    for listed, step in (
        (closing.ended, lambda of: draft_one(of, issuer)),
        (closing.reopened, redraft_one),
        (closing.due, lambda of: finalize_one(of, issuer)),
    ):
        take(listed, step, until)


def take(listed: Callable[..., list[TeamMonth]], step: Callable[[TeamMonth], bool], until: float) -> None:
    """Takes the step for all that is listed, as long as one of a batch gets somewhere and time is left."""
    progress = True
    while progress and time.monotonic() < until:
        with transaction() as session:
            batch = listed(session, limit=BATCH)
        progress = False
        for of in batch:
            if time.monotonic() >= until:
                return
            progress |= _going_on(step, of)


def draft_one(of: TeamMonth, issuer: Issuer) -> bool:
    with transaction() as session:
        return closing.draft(session, of, grace=issuer.grace)


def redraft_one(of: TeamMonth) -> bool:
    with transaction() as session:
        closing.redraft(session, of)
    return True


def finalize_one(of: TeamMonth, issuer: Issuer) -> bool:
    """Whether the close is final now, or known not to be: either way it is not due any more."""
    with transaction() as session:
        done = closing.finalize(session, of, issuer=issuer)
    if done is not None and done.state == MISMATCH:
        log.error(
            "month not finalized", team_id=str(of.team_id), month=str(of.month), problem=repr(done.problem)
        )
    if done is not None:
        CLOSES.labels(done.state).inc()
    return done is not None


@app.task(name="billing.estimate")
def estimate() -> None:
    """Estimates what the month costs each team, once an hour. An hour that was missed is not made up for: the next one says more."""
    with transaction() as session:
        now = job_runs.database_time(session)
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    period = hour.strftime("%Y-%m-%dT%H")
    with transaction() as session:
        if job_runs.is_done(session, estimates.JOB, period):
            return
    if estimate_all(hour, time.monotonic() + LONGEST_RUN_S):
        with transaction() as session:
            job_runs.claim(session, estimates.JOB, period)


def estimate_all(hour: datetime, until: float) -> bool:
    """Estimates each team in a transaction of its own; whether all of them have an estimate of the hour now."""
    while time.monotonic() < until:
        with transaction() as session:
            teams = estimates.waiting(session, hour, limit=BATCH)
        if not teams:
            return True
        for team_id in teams:
            with transaction() as session:
                estimates.estimate(session, team_id, hour)
    return False


@app.task(name="billing.recount")
def recount() -> None:
    """Recounts what was recorded on each day that has ended since the last one recounted."""
    with transaction() as session:
        days = recounts.open_days(session, job_runs.database_time(session))
    for day in days:
        with transaction() as session:
            differences = recounts.recount(session, day)
        for each in differences or ():
            log.error("usage differs", **{name: str(value) for name, value in each._asdict().items()})


def _going_on(step: Callable[[TeamMonth], bool], of: TeamMonth) -> bool:
    try:
        return step(of)
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # one team's trouble must not hold up the others
        log.exception("month not closed", team_id=str(of.team_id), month=str(of.month))
        return False
