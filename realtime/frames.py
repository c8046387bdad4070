"""An event of the log, encoded for the sockets: once for those who may see it, and once for all others."""

from typing import NamedTuple
from uuid import UUID

from realtime import messages
from realtime.transport import text_frame


class EventFrame(NamedTuple):
    seq: int
    frame: bytes
    redacted: bytes = b""
    """For who is not in the audience."""
    audience: frozenset[UUID] | None = None
    """None: everyone in the team."""

    @classmethod
    def of(cls, payload: bytes, seq: int, audience: frozenset[UUID] | None) -> "EventFrame":
        if audience is None:
            return cls(seq, text_frame(payload))
        return cls(seq, text_frame(payload), text_frame(messages.redacted(seq)), audience)

    def seen_by(self, user_id: UUID) -> bytes:
        """The frame that this user is shown."""
        return self.frame if self.audience is None or user_id in self.audience else self.redacted
