"""Invitations, as the team sees them and as the invited does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from models.access.actor import Actor
from models.access.entry import Access
from models.errors import NotFound
from models.queries.paging import Page, Slice, keyset
from models.tables import Invitation, Team, User
from models.tables.invitations import EXPIRED, PENDING


def is_pending() -> ColumnElement[bool]:
    """Whether an invitation keeps its seat: stored as pending, and its time is not over."""
    return and_(Invitation.status == PENDING, Invitation.expires_at > func.now())


def status_of(invitation: Invitation) -> str:
    """pending, accepted, revoked or expired, as of now."""
    over = invitation.status == PENDING and invitation.expires_at <= datetime.now(UTC)
    return EXPIRED if over else invitation.status


def in_team(session: Session, access: Access, page: Page, *, status: Sequence[str] = ()) -> Slice[Invitation]:
    """The team's invitations, newest first; of these states, if any are given."""
    statement = select(Invitation).where(Invitation.team_id == access.team_id)
    if status:
        overdue = and_(Invitation.status == PENDING, Invitation.expires_at <= func.now())
        stored = Invitation.status.in_([each for each in status if each != PENDING])
        states = [stored, is_pending()] if PENDING in status else [stored]
        statement = statement.where(or_(*states, overdue) if EXPIRED in status else or_(*states))
    return keyset(session, statement, page, Invitation.id, descending=True)


def get(session: Session, access: Access, invitation_id: UUID, *, for_update: bool = False) -> Invitation:
    """One invitation of the team; raises NotFound. Before a change, lock the team (queries.teams.get) first."""
    statement = select(Invitation).where(Invitation.team_id == access.team_id, Invitation.id == invitation_id)
    if for_update:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = session.scalar(statement)
    if found is None:
        raise NotFound("invitation")
    return found


def pending_for(session: Session, team_id: UUID, email_normalized: str) -> Invitation | None:
    """What is stored as pending for this address, its time over or not; there is one at the most."""
    return session.scalar(
        select(Invitation)
        .where(
            Invitation.team_id == team_id,
            Invitation.email_normalized == email_normalized,
            Invitation.status == PENDING,
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def by_token(session: Session, token_hash: bytes, *, for_update: bool = False) -> Invitation:
    """The invitation that this token is of, in whatever state; raises NotFound."""
    statement = select(Invitation).where(
        or_(Invitation.token_hash == token_hash, Invitation.mailed_token_hash == token_hash)
    )
    if for_update:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = session.scalar(statement)
    if found is None:
        raise NotFound("invitation")
    return found


def team_of(session: Session, token_hash: bytes) -> tuple[Invitation, Team]:
    """A pending invitation by its token, and its team; raises NotFound for any other."""
    invitation = by_token(session, token_hash)
    team = session.scalar(select(Team).where(Team.id == invitation.team_id, Team.deleted_at.is_(None)))
    if team is None or status_of(invitation) != PENDING:
        raise NotFound("invitation")
    return invitation, team


@dataclass(frozen=True, slots=True)
class InvitationView:
    """An invitation as the invited sees it."""

    invitation: Invitation
    team: Team
    inviter: User
    acceptable: bool
    """Without its token: the address is verified."""


def mine(session: Session, actor: Actor, page: Page) -> Slice[InvitationView]:
    """The pending invitations of the actor's address, newest first."""
    user = session.get_one(User, actor.user_id)
    statement = (
        select(Invitation, Team, User)
        .join(Team, (Team.id == Invitation.team_id) & Team.deleted_at.is_(None))
        .join(User, User.id == Invitation.invited_by)
        .where(Invitation.email_normalized == user.email_normalized, is_pending())
    )
    found = keyset(session, statement, page, Invitation.id, descending=True)
    verified = user.email_verified_at is not None
    return Slice(
        [InvitationView(invitation, team, inviter, verified) for invitation, team, inviter in found.items],
        found.next_key,
    )


def get_mine(session: Session, actor: Actor, invitation_id: UUID, *, for_update: bool = False) -> Invitation:
    """An invitation of the actor's address, in whatever state; raises NotFound."""
    user = session.get_one(User, actor.user_id)
    statement = select(Invitation).where(
        Invitation.id == invitation_id, Invitation.email_normalized == user.email_normalized
    )
    if for_update:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = session.scalar(statement)
    if found is None:
        raise NotFound("invitation")
    return found
