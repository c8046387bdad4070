"""What time makes superfluous."""

from models.database import transaction
from models.operations import idempotency, sessions
from workers.app import app


@app.task(name="idempotency.expire")
def expire_idempotency_keys() -> None:
    with transaction() as session:
        idempotency.expire(session)


@app.task(name="sessions.expire")
def expire_sessions() -> None:
    with transaction() as session:
        sessions.expire(session)
