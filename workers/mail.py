"""Sending the mails that are due (models/operations/mails.py)."""

import time
from contextlib import suppress

import structlog
from redis.exceptions import LockError

from models.database import transaction
from models.metrics import MAILS
from models.operations import mails
from models.operations.mails import Letter
from models.settings import settings
from realtime.publisher import connect
from workers.app import app
from workers.mail_texts import compose
from workers.mailers import Mailer, Refused, mailer_for

log = structlog.get_logger("workers.mail")

LOCK_KEY = "mail:sending"
LOCKED_FOR_S = 60.0
LONGEST_RUN_S = 30.0
"""A run that finds ever more makes way for other work; the next tick goes on."""


@app.task(name="mail.send")
def send() -> None:
    """
    Sends all that is due. One run at a time: a mail server that does not answer must not hold up every worker process.

    The lock only saves processes. Were it lost, two runs would still not claim the same mail.
    """
    lock = connect(settings().redis_url).lock(LOCK_KEY, timeout=LOCKED_FOR_S + LONGEST_RUN_S)
    if not lock.acquire(blocking=False):
        return
    try:
        send_due(mailer_for(settings().mail_url))
    finally:
        with suppress(LockError):  # it took too long, and the lock is someone else's
            lock.release()


def send_due(mailer: Mailer) -> int:
    """How many mails went out."""
    started, sent = time.monotonic(), 0
    while time.monotonic() - started < LONGEST_RUN_S:
        with transaction() as session:
            claimed = mails.claim(session)
        if claimed is None:
            break
        if claimed.letter is not None:
            sent += deliver(mailer, claimed.letter)
    return sent


def deliver(mailer: Mailer, letter: Letter) -> bool:
    """Whether the mail went out. No transaction is open while it does; whatever goes wrong is noted, and tried again later."""
    try:
        mailer.send(compose(letter, sender=settings().mail_from, public_url=settings().public_url))
    except Exception as error:  # noqa: BLE001  a mail that can't be sent must not hold up the others
        # Its kind alone: the text of an SMTP error can name the address.
        log.warning(
            "mail not sent", mail_id=str(letter.mail_id), kind=letter.kind, error=type(error).__name__
        )
        MAILS.labels("refused" if isinstance(error, Refused) else "failed").inc()
        with transaction() as session:
            mails.failed(session, letter.mail_id, repr(error), for_good=isinstance(error, Refused))
        return False
    MAILS.labels("sent").inc()
    with transaction() as session:
        mails.sent(session, letter.mail_id)
    return True
