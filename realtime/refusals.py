"""Refused attempts over sockets, for the team's log."""

import threading

from models.access.actor import Named
from models.database import transaction
from models.operations import refusals

ROUTE = "/ws/{team_id}"
# However many sockets are refused at once, they take one of the process's database connections.
_one_at_a_time = threading.Lock()


def note(by: Named, missing: str, *, method: str) -> None:
    """Blocks until it is committed; raises Unavailable without the database. The sweep wakes the drain within a second."""
    with _one_at_a_time, transaction() as session:
        refusals.note(session, by, missing, method=method, route=ROUTE)
