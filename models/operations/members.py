"""
The one owner of membership writes. Each takes the team's row, which the caller has locked (queries.teams.get): under
that one lock the seat limit is exact and two changes of one team's membership never cross.
"""

from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import Conflict, Invalid, PermissionDenied, SeatLimitReached
from models.events.catalogue import MemberAdded, MemberLeft, MemberRemoved, MemberRoleChanged
from models.events.record import record
from models.queries import members
from models.tables import Team, TeamMember, User


def add(session: Session, access: Access, team: Team, *, user: User, role: str) -> TeamMember:
    """
    Seats the user in the team.

    Raises Conflict for a member, SeatLimitReached, Invalid for a role that does not exist here, and PermissionDenied for a role
    that grants more than the actor has.
    """
    _check_power(access, role, _permissions_of_existing(session, access, role))
    seats = members.count(session, access)
    if seats >= team.max_members:
        raise SeatLimitReached(
            f"All {team.max_members} seats of the {team.plan} plan are taken; remove a member or change the plan.",
            limit=team.max_members,
            used=seats,
        )
    member = TeamMember(team_id=team.id, user_id=user.id, role=role, user=user)
    session.add(member)
    session.flush()  # an existing membership speaks up here, before the event
    record(session, access, MemberAdded(user_id=user.id, role=role))
    return member


def change_role(session: Session, access: Access, team: Team, member: TeamMember, *, role: str) -> None:
    """Gives the member another role. The owner stays an admin; nobody grants, or takes from, more power than their own."""
    if role == member.role:
        return
    if member.user_id == team.owner_id:
        raise Conflict("The owner is always an admin; transfer the ownership first.")
    granted = _permissions_of_existing(session, access, role)
    _check_power(access, member.role, members.permissions_of_role(session, access, member.role))
    _check_power(access, role, granted)
    previous, member.role = member.role, role
    session.flush()  # in the lock's order, before the event
    record(session, access, MemberRoleChanged(user_id=member.user_id, role=role, from_role=previous))


def remove(session: Session, access: Access, team: Team, member: TeamMember) -> None:
    """Removes the member, or lets them leave. Never the owner, and nobody whose role grants more than the actor has."""
    if member.user_id == team.owner_id:
        raise Conflict("The owner can't leave or be removed; transfer the ownership first.")
    leaving = member.user_id == access.user_id
    if not leaving:
        _check_power(access, member.role, members.permissions_of_role(session, access, member.role))
    session.delete(member)
    session.flush()  # in the lock's order, before the event
    event = MemberLeft if leaving else MemberRemoved
    record(session, access, event(user_id=member.user_id, role=member.role))


def _permissions_of_existing(session: Session, access: Access, role: str) -> frozenset[str]:
    granted = members.permissions_of_role(session, access, role)
    if not granted:
        raise Invalid({"role": ["There is no such role in this team."]})
    return granted


def _check_power(access: Access, role: str, granted: frozenset[str]) -> None:
    """Nobody acts above their own power: what the role grants must be a subset of what the actor may do (sets, not ranks)."""
    if above := sorted(granted - access.permissions):
        raise PermissionDenied(
            above[0], f"The role {role} grants {', '.join(above)}, which you do not have yourself."
        )
