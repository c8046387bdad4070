"""
The one owner of membership writes. Each takes the team's row, which the caller has locked (queries.teams.get): under
that one lock the seat limit is exact and two changes of one team's membership never cross.

Whoever holds the lock reads its own power again (`reenter`): it was read before the lock, and may be gone. So of two
admins who demote or remove each other, the second is refused.
"""

from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models.access.entry import Access, reenter
from models.access.permissions import ADMIN, Permission
from models.access.power import refuse_above
from models.errors import Conflict, Invalid, NotFound, SeatLimitReached
from models.events.catalogue import (
    MemberAdded,
    MemberLeft,
    MemberReactivated,
    MemberRemoved,
    MemberRoleChanged,
    MemberSuspended,
    OwnershipTransferred,
)
from models.events.record import record
from models.plans import Plan
from models.queries import invitations, members, users
from models.tables import ApiKey, Team, TeamMember, User
from models.tables.invitations import ACCEPTED


def add(session: Session, access: Access, team: Team, *, user: User, role: str) -> TeamMember:
    """
    Seats the user in the team. An invitation that waits for their address has served its purpose.

    Raises Conflict for a member, SeatLimitReached, Invalid for a role that does not exist here, and PermissionDenied for a role
    that grants more than the actor has.
    """
    access = reenter(session, access, Permission.members_create)
    refuse_role_above(session, access, role)
    waiting = invitations.pending_for(session, team.id, user.email_normalized)
    if waiting is not None:
        waiting.status = ACCEPTED
        session.flush()  # its seat is free for the member
    refuse_without_seat(session, team)
    member = seat(session, team, user, role)
    record(
        session,
        access,
        MemberAdded(user_id=user.id, role=role, invitation_id=waiting.id if waiting else None),
    )
    return member


def change_role(session: Session, access: Access, team: Team, member: TeamMember, *, role: str) -> None:
    """Gives the member another role. The owner stays an admin; nobody grants, or takes from, more power than their own."""
    access = reenter(session, access, Permission.members_update)
    if role == member.role:
        return
    if member.user_id == team.owner_id:
        raise Conflict("The owner is always an admin; transfer the ownership first.")
    refuse_role_above(session, access, role)
    refuse_member_above(session, access, member)
    previous, member.role = member.role, role
    session.flush()  # in the lock's order, before the event
    record(session, access, MemberRoleChanged(user_id=member.user_id, role=role, from_role=previous))


def remove(session: Session, access: Access, team: Team, member: TeamMember) -> None:
    """
    Removes the member, or lets them leave, with the API keys that they made. Never the owner, and nobody whose role grants
    more than the actor has.
    """
    # In person: a key does what it was made for, and does not leave for its maker.
    leaving = member.user_id == access.user_id and access.session_id is not None
    needed = None if leaving else Permission.members_delete
    access = reenter(session, access, needed, leaving=access.user_id if leaving else None)
    if member.user_id == team.owner_id:
        raise Conflict("The owner can't leave or be removed; transfer the ownership first.")
    if not leaving:
        refuse_member_above(session, access, member)
    session.refresh(member, ["role"], with_for_update=True)  # waits for a key that is just being made
    revoked = session.execute(
        delete(ApiKey).where(ApiKey.team_id == team.id, ApiKey.user_id == member.user_id).returning(ApiKey.id)
    ).all()
    session.delete(member)
    session.flush()  # in the lock's order, before the event
    event = MemberLeft if leaving else MemberRemoved
    record(session, access, event(user_id=member.user_id, role=member.role, api_keys_revoked=len(revoked)))


def suspend(session: Session, access: Access, team: Team, member: TeamMember) -> None:
    """Bars the member from the team until `reactivate`; seat, role and keys stay. Never the owner, or oneself."""
    access = reenter(session, access, Permission.members_update)
    if member.user_id == team.owner_id:
        raise Conflict("The owner can't be suspended; transfer the ownership first.")
    if member.user_id == access.user_id:
        raise Conflict("You can't suspend yourself; you may leave the team.")
    refuse_member_above(session, access, member)
    if member.suspended_at is None:
        member.suspended_at = func.now()
        session.flush()  # in the lock's order, before the event
        record(session, access, MemberSuspended(user_id=member.user_id, role=member.role))


def reactivate(session: Session, access: Access, team: Team, member: TeamMember) -> None:
    """Lets a suspended member in again, in the role that they had; nobody above the actor's own power."""
    access = reenter(session, access, Permission.members_update)
    refuse_member_above(session, access, member)
    if member.suspended_at is not None:
        member.suspended_at = None
        session.flush()  # in the lock's order, before the event
        record(session, access, MemberReactivated(user_id=member.user_id, role=member.role))


def transfer_ownership(session: Session, access: Access, team: Team, *, user_id: UUID) -> None:
    """
    Makes another member the owner, and an admin if need be; the old owner stays an admin.

    Raises NotFound for a non-member, Conflict for the owner or a member who may not enter at the moment.
    """
    access = reenter(session, access, Permission.teams_transfer)
    heir = members.get(session, access, user_id)
    if heir.user_id == team.owner_id:
        raise Conflict("This member owns the team already.")
    if heir.suspended_at is not None:
        raise Conflict("This member is suspended; lift that first.")
    if team.two_factor_required and not users.has_second_factor(session, heir.user_id):
        raise Conflict(
            "This member has no second factor, which the team asks for, and could not enter as its owner."
        )
    heir.role = ADMIN
    previous, team.owner_id = team.owner_id, heir.user_id
    session.flush()  # updated_at comes back
    record(
        session,
        access,
        OwnershipTransferred(team_id=team.id, name=team.name, from_user_id=previous, to_user_id=heir.user_id),
    )


def seat(session: Session, team: Team, user: User, role: str) -> TeamMember:
    """
    The membership row; raises Conflict for who is a member, NotFound for who erased their account meanwhile. The caller has seen
    to power, seats and the event.
    """
    # Shared with other teams, but not with an erasure (models/operations/erasures.py), which must see this membership.
    erased = select(User.erased_at).where(User.id == user.id).with_for_update(read=True)
    if session.scalar(erased) is not None:
        raise NotFound("user")
    member = TeamMember(team_id=team.id, user_id=user.id, role=role, user=user)
    session.add(member)
    session.flush()  # an existing membership speaks up here
    return member


def refuse_without_seat(session: Session, team: Team) -> None:
    """Raises SeatLimitReached unless one more seat is free. Members and pending invitations take one each."""
    seats = members.seats_taken(session, team.id)
    if seats >= team.max_members:
        raise SeatLimitReached(
            f"All {team.max_members} seats of the {team.plan} plan are taken by members and pending invitations; "
            "remove one or change the plan.",
            limit=team.max_members,
            used=seats,
        )


def refuse_without_seats(session: Session, team: Team, plan: Plan) -> None:
    """Raises SeatLimitReached if those who take a seat now don't fit into the plan."""
    seats = members.seats_taken(session, team.id)
    if seats > plan.max_members:
        raise SeatLimitReached(
            f"The {plan.name} plan seats {plan.max_members}, and {seats} are taken by members and pending invitations; "
            "remove some first.",
            limit=plan.max_members,
            used=seats,
        )


def refuse_role_above(session: Session, access: Access, role: str) -> None:
    """Raises Invalid for a role that does not exist here, PermissionDenied for one that grants more than the actor has."""
    granted = members.permissions_of_role(session, access.team_id, role)
    if not granted:
        raise Invalid({"role": ["There is no such role in this team."]})
    refuse_above(access.permissions, granted, f"The role {role}")


def refuse_member_above(session: Session, access: Access, member: TeamMember) -> None:
    """Raises PermissionDenied if the member's role grants more than the actor has."""
    granted = members.permissions_of_role(session, access.team_id, member.role)
    refuse_above(access.permissions, granted, f"The role {member.role}")
