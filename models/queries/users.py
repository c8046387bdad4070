"""Accounts and their sessions."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from models.access.actor import Actor
from models.database import Prepared, columns_of
from models.errors import NotFound
from models.queries.paging import Page, Slice, keyset
from models.tables import SecondFactor, User, UserSession


def get(session: Session, user_id: UUID, *, for_update: bool = False) -> User:
    statement = select(User).where(User.id == user_id)
    return session.scalars(statement.with_for_update(key_share=True) if for_update else statement).one()


def shown(session: Session, user_id: UUID) -> Any:
    """The user's columns, to look at alone."""
    (row,) = BY_ID.rows(session, user_id=user_id)
    return row


BY_ID = Prepared(select(*columns_of(User)).where(User.id == bindparam("user_id")))


def by_email(session: Session, email_normalized: str, *, for_update: bool = False) -> User | None:
    statement = select(User).where(User.email_normalized == email_normalized)
    return session.scalar(statement.with_for_update(key_share=True) if for_update else statement)


def has_second_factor(session: Session, user_id: UUID) -> bool:
    """Whether the user set up a second factor and proved to have it."""
    statement = select(SecondFactor.user_id).where(
        SecondFactor.user_id == user_id, SecondFactor.confirmed_at.is_not(None)
    )
    return session.scalar(statement) is not None


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session; `current` if it is the one that asks."""

    row: UserSession
    current: bool


def sessions(session: Session, actor: Actor, page: Page) -> Slice[SessionView]:
    """The actor's sessions that have not expired, newest first."""
    statement = select(UserSession).where(
        UserSession.user_id == actor.user_id, UserSession.expires_at > func.now()
    )
    found = keyset(session, statement, page, UserSession.id, descending=True)
    return Slice([SessionView(row, row.id == actor.session_id) for row in found.items], found.next_key)


def get_session(session: Session, actor: Actor, session_id: UUID) -> UserSession:
    """One of the actor's own sessions; raises NotFound."""
    found = session.scalar(
        select(UserSession)
        .where(UserSession.id == session_id, UserSession.user_id == actor.user_id)
        .with_for_update()
    )
    if found is None:
        raise NotFound("session")
    return found
