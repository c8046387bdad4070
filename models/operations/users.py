"""Accounts: registering and changing one's own."""

from sqlalchemy.orm import Session

from models.access.emails import normalize_email
from models.operations.changes import apply_changes
from models.tables import User


def register(session: Session, *, email: str, name: str, password_hash: str) -> User:
    """A new account; raises EmailTaken."""
    user = User(
        email=email.strip(), email_normalized=normalize_email(email), name=name, password_hash=password_hash
    )
    session.add(user)
    session.flush()  # the id, the time and a taken address are known only now
    return user


def rename(session: Session, user: User, *, name: str) -> None:
    """Changes the name; the caller has locked the row."""
    apply_changes(session, user, {"name": name})
