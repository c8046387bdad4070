"""
Erasing a person (GDPR, article 17): at once who they are and every way in, and then, in parts, where their acts in the teams'
logs came from. The acts stay, as those of nobody's id, and every chain stays valid.

What a request of theirs that was just running wrote after that carries where it came from; so a last pass goes through the
logs once no such request can be running any more.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from models.access.actor import Named, System
from models.errors import Conflict, NotFound
from models.events.catalogue import InvitationDeclined, MemberErased
from models.events.record import record
from models.operations import activity_exports
from models.queries import invitations, users
from models.tables import (
    AccountEvent,
    ActivityHead,
    ApiKey,
    Erasure,
    Invitation,
    Mail,
    MailedToken,
    OutboxEvent,
    RefusedAttempt,
    SecondFactor,
    Team,
    TeamMember,
    User,
    UserSession,
)
from models.tables.invitations import ACCEPTED, EXPIRED, PENDING, REVOKED

NAME = "Erased person"
NO_PASSWORD = "erased"  # noqa: S105  no hash, so nothing verifies against it  # nosec B105
SETTLED_AFTER = timedelta(minutes=10)
"""Longer than a request's transaction can live (models/database.py ends what is idle or slow, web servers what hangs)."""
HELD_AGAIN_AFTER = timedelta(hours=1)
TEAMS_AT_ONCE = 2_000
ROWS_AT_ONCE = 5_000
FIRST = UUID(int=0)

NEXT_TEAM = text("""
WITH ahead AS MATERIALIZED (SELECT team_id FROM activity_heads WHERE team_id > :after ORDER BY team_id LIMIT :teams)
SELECT (SELECT team_id FROM ahead ORDER BY team_id DESC LIMIT 1),
       (SELECT team_id FROM ahead WHERE EXISTS (
          SELECT FROM activity_logs l
          WHERE l.team_id = ahead.team_id AND l.user_id = :user_id AND l.origin_salt IS NOT NULL
        ) ORDER BY team_id LIMIT 1)
""")
ERASE_ORIGIN = text("SELECT erase_activity_origin(:team_id, :user_id, :after, :at_most)")


@dataclass(frozen=True, slots=True)
class Locked:
    """A person about to be erased, and the teams that this changes; nobody else changes any of them meanwhile."""

    user: User
    team_ids: frozenset[UUID]


def lock(session: Session, user_id: UUID) -> Locked:
    """
    Locks the person's teams and then the person, in the order of every change of a membership. Raises NotFound for who is erased
    already, Conflict if they came into another team meanwhile, and Conflict naming the teams that they own.
    """
    team_ids = frozenset(_teams_of(session, users.get(session, user_id)))
    session.execute(
        select(Team.id).where(Team.id.in_(team_ids)).order_by(Team.id).with_for_update(key_share=True)
    )
    # For good, as the change of the address will need it: whoever just refers to the person is waited for now, not then.
    user = session.scalars(
        select(User).where(User.id == user_id).with_for_update().execution_options(populate_existing=True)
    ).one()
    if user.erased_at is not None:
        raise NotFound("user")
    if not team_ids >= set(_teams_of(session, user)):
        raise Conflict("Your teams or invitations have just changed; try again.")
    _refuse_owner(session, user)
    return Locked(user, team_ids)


def erase(session: Session, locked: Locked, *, in_person: bool) -> Erasure:
    """
    Ends the memberships, declines what waits for the person's address if it is theirs, forgets who they are and takes every
    way in; the logs follow (`step`). In person, or by an operator: the events say which.
    """
    user = locked.user
    _end_memberships(session, user, in_person=in_person)
    _forget_invitations(session, user)
    _forget_account(session, user)
    placeholder = _placeholder(user.id)
    user.name, user.email, user.email_normalized = NAME, placeholder, placeholder
    user.email_verified_at, user.password_hash, user.erased_at = None, NO_PASSWORD, func.now()
    erasure = Erasure(user_id=user.id)
    session.add(erasure)
    session.flush()
    return erasure


def step(session: Session) -> bool:
    """
    The next part of an erasure that is due; whether there was one. Any number of workers may do it at once, and die at any
    point: what is done and how far it is commit together.
    """
    erasure = session.scalar(
        select(Erasure)
        .where(Erasure.finished_at.is_(None), Erasure.due_at <= func.now())
        .order_by(Erasure.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if erasure is None:
        return False
    if erasure.pass_began_at is None:
        _begin_pass(session, erasure)
        return True
    if erasure.at_team_id is not None:
        _erase_part(session, erasure, erasure.at_team_id)
        return True
    where = {"after": erasure.after_team_id or FIRST, "user_id": erasure.user_id, "teams": TEAMS_AT_ONCE}
    looked_at, team_id = session.execute(NEXT_TEAM, where).one()
    if team_id is not None:
        erasure.at_team_id, erasure.after_seq = team_id, 0
        _erase_part(session, erasure, team_id)
    elif looked_at is not None:
        erasure.after_team_id = looked_at
    else:
        _end_pass(erasure)
    return True


def _teams_of(session: Session, user: User) -> list[UUID]:
    """Those that the person is in, and those that an invitation waits in: whose seats change."""
    seated = select(TeamMember.team_id).where(TeamMember.user_id == user.id)
    invited = select(Invitation.team_id).where(_theirs(user), Invitation.status == PENDING)
    return list(session.scalars(seated.union(invited)))


def _theirs(user: User) -> ColumnElement[bool]:
    """The invitations that are the person's: to their address, if they proved to read it, and those that they accepted."""
    to_address = Invitation.email_normalized == user.email_normalized
    return to_address if user.email_verified_at else and_(to_address, Invitation.status == ACCEPTED)


def _refuse_owner(session: Session, user: User) -> None:
    owned = session.execute(
        select(Team.id, Team.name)
        .where(Team.owner_id == user.id, or_(Team.deleted_at.is_(None), Team.held_at.is_not(None)))
        .order_by(Team.id)
    ).all()
    if owned:
        raise Conflict(
            "You own teams; hand each over or delete it first. One under a legal hold can't go until that is released.",
            teams=[{"id": str(team.id), "name": team.name} for team in owned],
        )


def _end_memberships(session: Session, user: User, *, in_person: bool) -> None:
    """All but those in teams of theirs that are deleted, whose owner they stay until the team is purged."""
    ended = session.execute(
        select(TeamMember)
        .join(Team, Team.id == TeamMember.team_id)
        .where(TeamMember.user_id == user.id, Team.owner_id != user.id)
        .order_by(TeamMember.team_id)
        .with_for_update(of=TeamMember)  # waits for a key that is just being made
    ).scalars()
    for member in ended.all():
        revoked = session.execute(
            delete(ApiKey)
            .where(ApiKey.team_id == member.team_id, ApiKey.user_id == user.id)
            .returning(ApiKey.id)
        ).all()
        session.delete(member)
        session.flush()  # in the lock's order, before the event
        by = Named(member.team_id, user.id) if in_person else System(member.team_id)
        event = MemberErased(user_id=user.id, role=member.role, api_keys_revoked=len(revoked))
        record(session, by, event)


def _forget_invitations(session: Session, user: User) -> None:
    """The address goes from every invitation; what waits is declined, and gives its seat back."""
    for invitation in session.scalars(select(Invitation).where(_theirs(user)).with_for_update()).all():
        if invitation.status == PENDING:
            waits = invitations.status_of(invitation) == PENDING
            invitation.status = REVOKED if waits else EXPIRED
            session.flush()  # in the lock's order, before the event
            if waits:
                event = InvitationDeclined(invitation_id=invitation.id, role=invitation.role)
                record(session, Named(invitation.team_id, user.id), event)
        invitation.email = invitation.email_normalized = _placeholder(invitation.id)
        session.execute(delete(Mail).where(Mail.invitation_id == invitation.id))
    session.flush()


def _forget_account(session: Session, user: User) -> None:
    """Every way in, what happened to the account, and the mails that wait. Tickets and recovery codes go with what they are of."""
    of_user = (
        delete(table).where(table.user_id == user.id)
        for table in (UserSession, MailedToken, SecondFactor, AccountEvent, Mail)
    )
    activity_exports.expire_those_about(session, user.id)
    for statement in (*of_user, delete(Mail).where(Mail.address == user.email_normalized)):
        session.execute(statement)


def _placeholder(of: UUID) -> str:
    """An address that is unique, and nobody's for ever (RFC 2606, 2)."""
    return f"erased-{of}@erased.invalid"


def _begin_pass(session: Session, erasure: Erasure) -> None:
    """With what is no log yet; it is little."""
    _forget_account(session, users.get(session, erasure.user_id))
    held = select(Team.id).where(Team.held_at.is_not(None))
    for table in (OutboxEvent, RefusedAttempt):
        session.execute(
            update(table)
            .where(table.user_id == erasure.user_id, table.team_id.not_in(held))
            .where(or_(table.ip_address.is_not(None), table.user_agent.is_not(None)))
            .values(ip_address=None, user_agent=None)
        )
    erasure.pass_began_at = func.now()
    erasure.after_team_id, erasure.at_team_id, erasure.held = None, None, False


def _erase_part(session: Session, erasure: Erasure, team_id: UUID) -> None:
    held = session.scalar(select(Team.held_at).where(Team.id == team_id).with_for_update(read=True))
    if held is not None:
        erasure.after_team_id, erasure.at_team_id, erasure.held = team_id, None, True
        return
    session.execute(select(ActivityHead.seq).where(ActivityHead.team_id == team_id).with_for_update())
    last = session.scalar(
        ERASE_ORIGIN,
        {
            "team_id": team_id,
            "user_id": erasure.user_id,
            "after": erasure.after_seq,
            "at_most": ROWS_AT_ONCE,
        },
    )
    if last is None:
        erasure.after_team_id, erasure.at_team_id = team_id, None
    else:
        erasure.after_seq = last


def _end_pass(erasure: Erasure) -> None:
    settled = erasure.requested_at + SETTLED_AFTER
    began = erasure.pass_began_at
    if began is None or began < settled:
        erasure.due_at = settled
    elif erasure.held:
        erasure.due_at = func.now() + HELD_AGAIN_AFTER
    else:
        erasure.finished_at = func.now()
    erasure.pass_began_at = None
