"""Single-use tokens that prove that a person reads their address. Made when the mail is sent, known by their hash alone."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models.access.credentials import hash_secret, new_token
from models.errors import Invalid
from models.queries import users
from models.tables import MailedToken, User
from models.tables.accounts import RESET_PASSWORD, VERIFY_EMAIL

TOKEN_PREFIX = "ahm_"  # noqa: S105  what each begins with  # nosec B105
VALID_FOR = {VERIFY_EMAIL: timedelta(days=3), RESET_PASSWORD: timedelta(hours=1)}


def issue(session: Session, user_id: UUID, purpose: str) -> str:
    """A new token of the user, which is not kept and can't be shown again; the earlier ones stay good."""
    token = new_token(TOKEN_PREFIX)
    session.add(
        MailedToken(
            token_hash=hash_secret(token),
            user_id=user_id,
            purpose=purpose,
            expires_at=func.now() + VALID_FOR[purpose],
        )
    )
    return token


def user_of(session: Session, token: str, purpose: str) -> UUID | None:
    """The id of the token's user; None for a token that is unknown, used, over or meant for something else."""
    return session.scalar(
        select(MailedToken.user_id).where(
            MailedToken.token_hash == hash_secret(token),
            MailedToken.purpose == purpose,
            MailedToken.expires_at > func.now(),
        )
    )


def take(session: Session, token: str, purpose: str) -> User:
    """
    Uses the token up, and with it all others that the user has for this purpose; the user comes locked. Raises Invalid.

    The user is locked before the token, as by everyone who ends tokens, so the two can't wait for each other.
    """
    user_id = user_of(session, token, purpose)
    if user_id is None:
        raise not_good()
    user = users.get(session, user_id, for_update=True)
    if user_of(session, token, purpose) is None:  # someone else used it while we waited for the lock
        raise not_good()
    end(session, user.id, purpose)
    return user


def end(session: Session, user_id: UUID, purpose: str) -> None:
    """Ends the user's tokens for this purpose. The caller has locked the user."""
    session.execute(delete(MailedToken).where(MailedToken.user_id == user_id, MailedToken.purpose == purpose))


def expire(session: Session) -> None:
    """Deletes the tokens whose time is over; they are refused since then."""
    session.execute(delete(MailedToken).where(MailedToken.expires_at <= func.now()))


def not_good() -> Invalid:
    return Invalid({"token": ["This token is unknown, was used or is over; ask for a new mail."]})
