"""Sign-ins: opening and ending them. An ended session's row is gone, so its token is refused on its next request."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from models.access.actor import Actor, Origin
from models.access.credentials import hash_secret, new_token
from models.tables import User, UserSession


def open_session(session: Session, user: User, *, origin: Origin, days: int) -> tuple[UserSession, str]:
    """A new session of the user and its token, which is not kept and can't be shown again."""
    token = new_token()
    opened = UserSession(
        user_id=user.id,
        token_hash=hash_secret(token),
        ip_address=origin.ip_address,
        user_agent=origin.user_agent,
        expires_at=datetime.now(UTC) + timedelta(days=days),
    )
    session.add(opened)
    session.flush()  # its id is part of the answer
    return opened, token


def end(session: Session, actor: Actor, session_id: UUID) -> None:
    """Ends one of the actor's own sessions; ending one that is gone changes nothing."""
    session.execute(
        delete(UserSession).where(UserSession.id == session_id, UserSession.user_id == actor.user_id)
    )


def end_others(session: Session, actor: Actor) -> None:
    """Ends all of the actor's sessions but the one that asks."""
    session.execute(
        delete(UserSession).where(UserSession.user_id == actor.user_id, UserSession.id != actor.session_id)
    )


def expire(session: Session) -> None:
    """Deletes the sessions whose time is over; they are refused since then."""
    session.execute(delete(UserSession).where(UserSession.expires_at <= func.now()))
