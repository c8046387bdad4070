"""A team's members, and what their roles grant."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session, contains_eager

from models.access.entry import Access
from models.errors import NotFound
from models.queries.invitations import is_pending
from models.queries.paging import Page, Slice, keyset
from models.tables import Invitation, PermissionGrant, TeamMember, User


def in_team(session: Session, access: Access, page: Page, *, role: str | None = None) -> Slice[TeamMember]:
    """The members (of one role, if it is given) in the order in which they joined, each with its user loaded."""
    statement = _of_team(access)
    if role is not None:
        statement = statement.where(TeamMember.role == role)
    return keyset(session, statement, page, TeamMember.id)


def named(session: Session, access: Access, text: str, limit: int) -> Sequence[TeamMember]:
    """The first members to join whose name or address has this in it, in any case, each with its user loaded."""
    says = or_(User.name.icontains(text, autoescape=True), User.email.icontains(text, autoescape=True))
    return session.scalars(_of_team(access).where(says).order_by(TeamMember.id).limit(limit)).all()


def _of_team(access: Access) -> Select[TeamMember]:
    return (
        select(TeamMember)
        .join(TeamMember.user)
        .options(contains_eager(TeamMember.user))
        .where(TeamMember.team_id == access.team_id)
    )


def get(session: Session, access: Access, user_id: UUID) -> TeamMember:
    """One member with its user; raises NotFound. Before a change, lock the team (queries.teams.get) first."""
    statement = (
        select(TeamMember)
        .join(TeamMember.user)
        .options(contains_eager(TeamMember.user))
        .where(TeamMember.team_id == access.team_id, TeamMember.user_id == user_id)
        .execution_options(populate_existing=True)
    )
    member = session.scalar(statement)
    if member is None:
        raise NotFound("member")
    return member


def role_of(session: Session, team_id: UUID, user_id: UUID, *, active: bool = False) -> str | None:
    """The member's role; None for who is none (or, if only active members are asked for, is suspended)."""
    statement = select(TeamMember.role).where(TeamMember.team_id == team_id, TeamMember.user_id == user_id)
    if active:
        statement = statement.where(TeamMember.suspended_at.is_(None))
    return session.scalar(statement)


def has_address(session: Session, team_id: UUID, email_normalized: str) -> bool:
    """Whether a member has this address."""
    statement = (
        select(TeamMember.id)
        .join(TeamMember.user)
        .where(TeamMember.team_id == team_id, User.email_normalized == email_normalized)
    )
    return session.scalar(statement) is not None


def seats_taken(session: Session, team_id: UUID) -> int:
    """How many seats members and pending invitations take; exact only while the team's row is locked."""
    seated = select(func.count()).where(TeamMember.team_id == team_id).scalar_subquery()
    reserved = select(func.count()).where(Invitation.team_id == team_id, is_pending()).scalar_subquery()
    return session.scalar(select(seated + reserved)) or 0


def find_user(session: Session, *, user_id: UUID | None, email_normalized: str | None) -> User:
    """The user with this id or address; raises NotFound."""
    condition = User.id == user_id if user_id else User.email_normalized == email_normalized
    user = session.scalar(select(User).where(condition, User.erased_at.is_(None)))
    if user is None:
        raise NotFound("user")
    return user


def permissions_of_role(session: Session, team_id: UUID, role: str) -> frozenset[str]:
    """What the role grants in this team, as `resource:action`; empty for a role that does not exist."""
    statement = select(PermissionGrant.resource + ":" + PermissionGrant.action).where(
        PermissionGrant.role == role,
        PermissionGrant.allowed,
        or_(PermissionGrant.team_id.is_(None), PermissionGrant.team_id == team_id),
    )
    return frozenset(session.scalars(statement))
