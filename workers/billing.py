"""Month closes, estimates and recounts. Any number of beats may tick them: each period's work is done once (job_runs, month_closes)."""

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from models.database import transaction
from models.operations import closing, estimates, job_runs, recounts
from models.operations.closing import TeamMonth
from models.operations.invoices import Issuer, issuer_of
from models.settings import settings
from models.tables.billing import MISMATCH
from workers.app import app

log = structlog.get_logger("workers.billing")

BATCH = 200
ESTIMATED_AT_ONCE = 20


@app.task(name="billing.close")
def close() -> None:
    """Drafts the months that have ended, and finalizes those whose grace is over: all that were missed, the oldest first."""
    issuer = issuer_of(settings())
    while each_once(closing.ended, lambda of: draft_one(of, issuer)):
        pass
    while each_once(closing.reopened, redraft_one):
        pass
    while each_once(closing.due, lambda of: finalize_one(of, issuer)):
        pass


def each_once(listed: Callable[..., list[TeamMonth]], step: Callable[[TeamMonth], bool]) -> bool:
    """Takes the step for what is listed now; whether any of them did something, and so more can be listed."""
    with transaction() as session:
        batch = listed(session, limit=BATCH)
    return sum(_going_on(step, of) for of in batch) > 0


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
    while estimate_batch(hour):
        pass
    with transaction() as session:
        job_runs.claim(session, estimates.JOB, period)


def estimate_batch(hour: datetime) -> int:
    """How many teams one transaction estimated."""
    with transaction() as session:
        return estimates.estimate(session, hour, limit=ESTIMATED_AT_ONCE)


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
    except Exception:  # one team's trouble must not hold up the others
        log.exception("month not closed", team_id=str(of.team_id), month=str(of.month))
        return False
