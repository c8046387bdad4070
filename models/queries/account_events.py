"""The person's own stream."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.access.actor import Actor
from models.queries.paging import Page, Slice, keyset
from models.tables import AccountEvent


def of_actor(session: Session, actor: Actor, page: Page) -> Slice[AccountEvent]:
    """What happened to the actor's account, newest first."""
    statement = select(AccountEvent).where(AccountEvent.user_id == actor.user_id)
    return keyset(session, statement, page, AccountEvent.id, descending=True)
