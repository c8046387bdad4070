"""What time makes superfluous."""

import time

from models.database import transaction
from models.operations import (
    account_events,
    erasures,
    idempotency,
    mailed_tokens,
    mails,
    refusals,
    second_factors,
    sessions,
    teams,
    tickets,
    webhooks,
)
from workers.app import app

ENCRYPTED_AT_ONCE = 500


@app.task(name="idempotency.expire")
def expire_idempotency_keys() -> None:
    with transaction() as session:
        idempotency.expire(session)


@app.task(name="sessions.expire")
def expire_sessions() -> None:
    with transaction() as session:
        sessions.expire(session)


@app.task(name="mailed_tokens.expire")
def expire_mailed_tokens() -> None:
    with transaction() as session:
        mailed_tokens.expire(session)


@app.task(name="account_events.expire")
def expire_account_events() -> None:
    with transaction() as session:
        account_events.expire(session)


@app.task(name="failed_mails.expire")
def expire_failed_mails() -> None:
    with transaction() as session:
        mails.expire(session)


@app.task(name="teams.purge")
def purge_teams() -> None:
    """Each team in a transaction of its own: what is purged stays so, whatever becomes of the next."""
    purged = True
    while purged:
        with transaction() as session:
            purged = teams.purge_one(session) is not None


@app.task(name="tickets.expire")
def expire_tickets() -> None:
    with transaction() as session:
        tickets.expire(session)


REFUSALS_AT_ONCE = 500
LONGEST_RUN_S = 60.0
"""An erasure that takes longer makes way for other work; the next tick goes on."""


@app.task(name="refusals.fold")
def fold_refusals() -> None:
    """Logs what was refused again and again, once a minute."""
    folded = REFUSALS_AT_ONCE
    while folded == REFUSALS_AT_ONCE:
        with transaction() as session:
            folded = refusals.fold(session, REFUSALS_AT_ONCE)


@app.task(name="erasures.go_on")
def go_on_erasing() -> None:
    """Each part in a transaction of its own, which says how far it is."""
    started, more = time.monotonic(), True
    while more and time.monotonic() - started < LONGEST_RUN_S:
        with transaction() as session:
            more = erasures.step(session)


@app.task(name="secrets.encrypt_again")
def encrypt_again() -> None:
    """Brings the secrets that are kept in clear, or encrypted by another key, under the first key of ENCRYPTION_KEY."""
    with transaction() as session:
        webhooks.encrypt_again(session)
    moved = 1
    while moved:
        with transaction() as session:
            moved = second_factors.encrypt_again(session, ENCRYPTED_AT_ONCE)
