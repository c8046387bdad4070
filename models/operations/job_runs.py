"""Periodic jobs: each period's work is done once, however many beats tick and however many ticks were missed."""

from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from models.tables import JobRun

CLAIM = text(
    "INSERT INTO job_runs (job, period) VALUES (:job, :period) ON CONFLICT DO NOTHING RETURNING period"
)


def claim(session: Session, job: str, period: str) -> bool:
    """
    Whether this transaction is the one to do the job's work of the period. Whoever comes meanwhile waits for it to end, and
    finds it done; if it rolls back, or its process dies, nobody has claimed it.
    """
    return session.execute(CLAIM, {"job": job, "period": period}).scalar() is not None


def last_period(session: Session, job: str) -> str | None:
    """The latest period that the job was done for; None before the first. Periods sort as text, as ISO 8601 does."""
    return session.scalar(select(func.max(JobRun.period)).where(JobRun.job == job))


def is_done(session: Session, job: str, period: str) -> bool:
    return session.get(JobRun, (job, period)) is not None


def database_time(session: Session) -> datetime:
    """Now, by the one clock that all beats share."""
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    return now
