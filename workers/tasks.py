"""Returning the tasks of agents that fell silent."""

from models.database import transaction
from models.operations import tasks
from workers.app import app

BATCH = 500


@app.task(name="tasks.return_expired")
def return_expired() -> None:
    """Returns every task whose lease ran out. A claim needs none of it; this shows the others that the task is free."""
    while return_batch():
        pass


def return_batch() -> int:
    """How many tasks one transaction returned."""
    with transaction() as session:
        return tasks.return_expired(session, BATCH)
