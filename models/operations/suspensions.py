"""
What an operator shuts out, and lets in again: an account, from every team at once; a team, with all who are in it. Nothing of
either is lost. Who is suspended is refused on the next request, and its sockets close within a second (models/access/entry.py).
"""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.access.actor import Origin, System
from models.errors import Conflict, NotFound
from models.events.catalogue import TeamReinstated, TeamSuspended
from models.events.record import record
from models.operations import account_events, sessions
from models.operations.account_events import AccountAction
from models.queries import teams
from models.tables import Team, User


def suspend_user(session: Session, user_id: UUID, *, reason: str) -> int:
    """
    Ends the account's sessions, how many, and refuses its keys and agents until it is reinstated. Raises NotFound for who is
    erased, Conflict for who is suspended already.
    """
    user = _locked_user(session, user_id)
    if user.suspended_at is not None:
        raise Conflict("This account is suspended already.")
    user.suspended_at = func.now()
    ended = sessions.end_all(session, user.id)
    account_events.record(
        session, user.id, AccountAction.suspended, Origin(), reason=reason, sessions_ended=ended
    )
    return ended


def reinstate_user(session: Session, user_id: UUID, *, reason: str) -> None:
    """The account signs in again, and its keys count again. Raises as `suspend_user` does."""
    user = _locked_user(session, user_id)
    if user.suspended_at is None:
        raise Conflict("This account is not suspended.")
    user.suspended_at = None
    account_events.record(session, user.id, AccountAction.reinstated, Origin(), reason=reason)


def suspend_team(session: Session, team_id: UUID, *, reason: str) -> Team:
    """
    Nobody enters the team until it is reinstated, and its webhooks wait; what it owes is charged all the same. Raises NotFound
    for one that is deleted, Conflict for one that is suspended already.
    """
    team = _locked_team(session, team_id)
    if team.suspended_at is not None:
        raise Conflict("This team is suspended already.")
    team.suspended_at = func.now()
    session.flush()  # before the event
    record(session, System(team.id), TeamSuspended(team_id=team.id, name=team.name, reason=reason))
    return team


def reinstate_team(session: Session, team_id: UUID, *, reason: str) -> Team:
    """Its members enter again, as they could before. Raises as `suspend_team` does."""
    team = _locked_team(session, team_id)
    if team.suspended_at is None:
        raise Conflict("This team is not suspended.")
    team.suspended_at = None
    session.flush()  # before the event
    record(session, System(team.id), TeamReinstated(team_id=team.id, name=team.name, reason=reason))
    return team


def _locked_user(session: Session, user_id: UUID) -> User:
    """Locked as a sign-in locks it: one that is under way has ended, or finds the account suspended."""
    user = session.scalar(
        select(User)
        .where(User.id == user_id, User.erased_at.is_(None))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if user is None:
        raise NotFound("user")
    return user


def _locked_team(session: Session, team_id: UUID) -> Team:
    team = teams.lock(session, team_id)
    if team is None:
        raise NotFound("team")
    return team
