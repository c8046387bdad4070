"""
Noting who reads the log: `activity_read` once per reader (the agent, else the API key, else the person) and hour of the clock.

The row of `activity_reads` decides, so it is exact however many processes note at once. What one process has seen
committed it remembers, so that all further reads of the hour cost it no statement.
"""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.events.catalogue import ActivityRead
from models.events.record import record

REMEMBERED = 50_000
"""Readers that a process remembers at the most; then it begins anew."""
NOTE = text("""
INSERT INTO activity_reads AS r (team_id, reader_id, hour) VALUES (:team_id, :reader_id, :hour)
ON CONFLICT (team_id, reader_id) DO UPDATE SET hour = excluded.hour WHERE r.hour < excluded.hour
RETURNING true
""")
EXPIRE = text("DELETE FROM activity_reads WHERE hour < now() - interval '1 day'")

Reader = tuple[UUID, UUID]
"""The ids of a team and of a reader of it."""


class Noted:
    """The readers of whom a row of the present hour is known to be committed."""

    def __init__(self) -> None:
        self._hour: datetime | None = None
        self._readers: set[Reader] = set()

    def add(self, hour: datetime, reader: Reader) -> None:
        if hour != self._hour or len(self._readers) >= REMEMBERED:
            self._hour, self._readers = hour, set()
        self._readers.add(reader)

    def holds(self, hour: datetime, reader: Reader) -> bool:
        return hour == self._hour and reader in self._readers

    def forget(self) -> None:
        self._readers = set()


noted = Noted()


def note_read(session: Session, access: Access) -> None:
    """
    Records that the actor read the team's log, if that was not recorded in this hour already. It does so as the transaction
    commits, and not at all if it does not: readers who come at the same time wait for each other's commit alone.
    """
    reader = (access.team_id, access.agent_id or access.api_key_id or access.user_id)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    if noted.holds(hour, reader):
        return

    def note(session: Session) -> None:
        if session.in_nested_transaction():
            return
        parameters = {"team_id": access.team_id, "reader_id": reader[1], "hour": hour}
        if session.connection().scalar(NOTE, parameters):
            record(session, access, ActivityRead(team_id=access.team_id))

    def remember(_: Session) -> None:
        noted.add(hour, reader)

    event.listen(session, "before_commit", note, once=True)
    event.listen(session, "after_commit", remember, once=True)


def expire(session: Session) -> None:
    """Deletes what was noted of hours long past."""
    session.execute(EXPIRE)
