"""Whoever acts, and from where."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: what the activity row says of it besides the actor."""

    ip_address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """A user whose credential was verified in this transaction."""

    user_id: UUID
    session_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class Named:
    """Somebody of a team as an event names them; unlike an Access it opens nothing."""

    team_id: UUID
    user_id: UUID
    agent_id: UUID | None = None
    api_key_id: UUID | None = None
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class System:
    """The product itself at work in one team, where nobody asked: a lease that ran out, a period that ended."""

    team_id: UUID
    user_id: None = None
    agent_id: None = None
    api_key_id: None = None
    origin: Origin = Origin()
