"""Sign-ins: opening and ending them. An ended session's row is gone, so its token is refused on its next request."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from models.access.actor import Actor, Origin
from models.access.credentials import hash_secret, new_token
from models.errors import Unauthenticated
from models.operations import account_events
from models.operations.account_events import AccountAction
from models.tables import User, UserSession


def open_session(session: Session, user: User, *, origin: Origin, days: int) -> tuple[UserSession, str]:
    """
    A new session of the user and its token, which is not kept and can't be shown again. Nothing else makes a session.

    The caller has locked or just made the user, so that no change of the password passes a sign-in by the old one. Raises
    Unauthenticated for an account that is suspended.
    """
    if user.suspended_at is not None:
        raise Unauthenticated("This account is suspended; whoever runs this installation can lift that.")
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
    account_events.record(session, user.id, AccountAction.signed_in, origin, session_id=str(opened.id))
    return opened, token


def end(session: Session, actor: Actor, session_id: UUID) -> None:
    """Ends one of the actor's own sessions; ending one that is gone changes nothing."""
    ended = session.execute(
        delete(UserSession)
        .where(UserSession.id == session_id, UserSession.user_id == actor.user_id)
        .returning(UserSession.id)
    ).all()
    if ended:
        own = session_id == actor.session_id
        action = AccountAction.signed_out if own else AccountAction.session_ended
        account_events.record(session, actor.user_id, action, actor.origin, session_id=str(session_id))


def end_others(session: Session, actor: Actor) -> None:
    """Ends all of the actor's sessions but the one that asks."""
    if ended := end_all(session, actor.user_id, save=actor.session_id):
        account_events.record(
            session, actor.user_id, AccountAction.sessions_ended, actor.origin, sessions_ended=ended
        )


def end_all(session: Session, user_id: UUID, *, save: UUID | None = None) -> int:
    """Ends all sessions of the user but the one to save; how many. Part of a change that is recorded by its caller."""
    statement = delete(UserSession).where(UserSession.user_id == user_id)
    if save is not None:
        statement = statement.where(UserSession.id != save)
    return len(session.execute(statement.returning(UserSession.id)).all())


def expire(session: Session) -> None:
    """Deletes the sessions whose time is over; they are refused since then."""
    session.execute(delete(UserSession).where(UserSession.expires_at <= func.now()))
