"""
Invitations: a seat kept for an address until it is accepted, revoked or expired.

All but looking is done under the team's lock, like every change of a membership (models/operations/members.py). An
invitation looks up no account: the answer is the same whether or not the address has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session

from models.access.actor import Actor
from models.access.credentials import hash_secret, new_token
from models.access.emails import normalize_email
from models.access.entry import Access, enter_as_invited, reenter
from models.access.permissions import Permission
from models.errors import Conflict, DomainError, NotFound, PermissionDenied
from models.events.catalogue import (
    InvitationAccepted,
    InvitationCreated,
    InvitationDeclined,
    InvitationResent,
    InvitationRevoked,
)
from models.events.record import record
from models.operations import mails
from models.operations import users as accounts
from models.operations.members import refuse_role_above, refuse_without_seat, seat
from models.queries import invitations, members, teams, users
from models.tables import Invitation, Team, User
from models.tables.invitations import ACCEPTED, EXPIRED, PENDING, REVOKED

VALID_FOR = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation and its token, which is not kept and can't be shown again."""

    invitation: Invitation
    token: str


@dataclass(frozen=True, slots=True)
class Wanted:
    email: str
    role: str


def create(session: Session, access: Access, team: Team, *, email: str, role: str) -> Invited:
    """
    Invites the address to the team.

    Raises Conflict for a member's address or one with a pending invitation, SeatLimitReached, Invalid for a role that
    does not exist here, and PermissionDenied for a role that grants more than the actor has.
    """
    access = reenter(session, access, Permission.members_create)
    return _create(session, access, team, Wanted(email, role))


def create_each(
    session: Session, access: Access, team: Team, wanted: Sequence[Wanted]
) -> list[Invited | DomainError]:
    """Invites as many as possible, in the given order; for each what came of it, and what was refused changed nothing."""
    access = reenter(session, access, Permission.members_create)
    outcomes: list[Invited | DomainError] = []
    for each in wanted:
        try:
            with session.begin_nested():
                outcomes.append(_create(session, access, team, each))
        except DomainError as error:
            outcomes.append(error)
    return outcomes


def _create(session: Session, access: Access, team: Team, wanted: Wanted) -> Invited:
    refuse_role_above(session, access, wanted.role)
    address = normalize_email(wanted.email)
    _refuse_known(session, team, address)
    refuse_without_seat(session, team)
    token = new_token(mails.INVITATION_PREFIX)
    invitation = Invitation(
        team_id=team.id,
        email=wanted.email.strip(),
        email_normalized=address,
        role=wanted.role,
        invited_by=access.user_id,
        token_hash=hash_secret(token),
        expires_at=func.now() + VALID_FOR,
    )
    session.add(invitation)
    session.flush()  # the event names its id
    mails.enqueue_invitation(session, invitation)
    record(session, access, InvitationCreated(invitation_id=invitation.id, role=invitation.role))
    return Invited(invitation, token)


def resend(session: Session, access: Access, team: Team, invitation: Invitation) -> Invited:
    """
    Sends it again with a new token, which ends the old ones, and for another seven days; also one that expired. From now on
    the actor answers for it. Raises like `create`, and Conflict for one that was accepted or revoked.
    """
    access = reenter(session, access, Permission.members_create)
    refuse_role_above(session, access, invitation.role)
    if invitation.status not in (PENDING, EXPIRED):
        raise _not_pending(invitation)
    # One that expired has lost its seat and its place. Which did, the database's clock says; one that waits gets its own again.
    invitation.status = EXPIRED
    session.flush()
    _refuse_known(session, team, invitation.email_normalized)
    refuse_without_seat(session, team)
    token = new_token(mails.INVITATION_PREFIX)
    invitation.status = PENDING
    invitation.invited_by = access.user_id
    invitation.token_hash, invitation.mailed_token_hash = hash_secret(token), None
    invitation.expires_at = func.now() + VALID_FOR
    session.flush()  # in the lock's order, before the event
    mails.enqueue_invitation(session, invitation)
    record(session, access, InvitationResent(invitation_id=invitation.id, role=invitation.role))
    return Invited(invitation, token)


def revoke(session: Session, access: Access, team: Team, invitation: Invitation) -> None:
    """Ends it; its seat is free and its tokens are dead. Conflict for one that was accepted or revoked."""
    access = reenter(session, access, Permission.members_create)
    refuse_role_above(session, access, invitation.role)
    if invitation.status not in (PENDING, EXPIRED):
        raise _not_pending(invitation)
    invitation.status = REVOKED
    session.flush()  # in the lock's order, before the event
    record(session, access, InvitationRevoked(invitation_id=invitation.id, role=invitation.role))


def accept(session: Session, actor: Actor, *, token: str) -> Team:
    """
    Makes the actor a member by the invitation's token; only under the invited address.

    Raises NotFound for a token that is unknown or was replaced, PermissionDenied under another address, Conflict for an invitation
    that is not pending, for a member, and if whoever invited may not give this role any more.
    """
    secret_hash = hash_secret(token)
    found = invitations.by_token(session, secret_hash)
    team = _locked_team(session, found)
    # Again under the lock: a resend may have ended the token meanwhile.
    invitation = invitations.by_token(session, secret_hash, for_update=True)
    user = users.get(session, actor.user_id, for_update=True)
    if user.email_normalized != invitation.email_normalized:
        raise PermissionDenied(
            "invited_address",
            "This invitation is for another address; sign in under the one that it was sent to.",
        )
    _accept(session, actor, team, invitation, user)
    if invitation.mailed_token_hash == secret_hash:  # who has the mailed token reads this address
        accounts.mark_verified(session, user, origin=actor.origin)
    return team


def accept_waiting(session: Session, actor: Actor, invitation_id: UUID) -> Team:
    """Makes the actor a member by an invitation that waits for their verified address, without its token."""
    team, invitation, user = _waiting(session, actor, invitation_id)
    _accept(session, actor, team, invitation, user)
    return team


def decline(session: Session, actor: Actor, invitation_id: UUID) -> None:
    """Ends an invitation that waits for the actor's verified address."""
    team, invitation, _ = _waiting(session, actor, invitation_id)
    _refuse_unless_pending(invitation)
    invitation.status = REVOKED
    session.flush()  # in the lock's order, before the event
    access = enter_as_invited(actor, team.id, invitation.role)
    record(session, access, InvitationDeclined(invitation_id=invitation.id, role=invitation.role))


def _accept(session: Session, actor: Actor, team: Team, invitation: Invitation, user: User) -> None:
    _refuse_unless_pending(invitation)
    if members.role_of(session, team.id, user.id) is not None:
        raise Conflict("You are a member of this team already; the invitation changes nothing.")
    _refuse_beyond_inviter(session, team, invitation)
    invitation.status = ACCEPTED
    session.flush()  # gives its seat back, for the member to take
    refuse_without_seat(session, team)
    seat(session, team, user, invitation.role)
    record(
        session,
        enter_as_invited(actor, team.id, invitation.role),
        InvitationAccepted(invitation_id=invitation.id, role=invitation.role, user_id=user.id),
    )


def _waiting(session: Session, actor: Actor, invitation_id: UUID) -> tuple[Team, Invitation, User]:
    found = invitations.get_mine(session, actor, invitation_id)
    team = _locked_team(session, found)
    invitation = invitations.get_mine(session, actor, invitation_id, for_update=True)
    user = users.get(session, actor.user_id, for_update=True)
    if user.email_verified_at is None:
        raise PermissionDenied(
            "verified_email", "Verify your address first, or use the token that was sent to it."
        )
    return team, invitation, user


def _locked_team(session: Session, invitation: Invitation) -> Team:
    team = teams.lock(session, invitation.team_id)
    if team is None:
        raise NotFound("invitation")
    return team


def _refuse_known(session: Session, team: Team, address: str) -> None:
    """Raises Conflict for a member's address, or one with a pending invitation; one whose time is over makes room."""
    if members.has_address(session, team.id, address):
        raise Conflict("Whoever has this address is a member of the team already.")
    waiting = invitations.pending_for(session, team.id, address)
    if waiting is None:
        return
    if invitations.status_of(waiting) == PENDING:
        raise Conflict("An invitation waits for this address already; resend it.", id=str(waiting.id))
    waiting.status = EXPIRED
    session.flush()


def _refuse_beyond_inviter(session: Session, team: Team, invitation: Invitation) -> None:
    """An invitation is worth what whoever sent it may give now, not what they might when they sent it."""
    inviter = members.role_of(session, team.id, invitation.invited_by, active=True)
    power = members.permissions_of_role(session, team.id, inviter) if inviter else frozenset()
    if team.two_factor_required and not users.has_second_factor(session, invitation.invited_by):
        power = frozenset()
    granted = members.permissions_of_role(session, team.id, invitation.role)
    if not granted or Permission.members_create not in power or not granted <= power:
        raise Conflict("Whoever invited you may not give this role any more; ask for a new invitation.")


def _refuse_unless_pending(invitation: Invitation) -> None:
    if invitations.status_of(invitation) != PENDING:
        raise _not_pending(invitation)


def _not_pending(invitation: Invitation) -> Conflict:
    status = invitations.status_of(invitation)
    return Conflict(f"This invitation is {status}; ask for a new one.", invitation_status=status)
