"""Teams: making, renaming, handing over, changing plan and deleting."""

from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import Actor
from models.access.entry import Access, enter_new_team
from models.access.permissions import ADMIN
from models.errors import Conflict, SeatLimitReached
from models.events.catalogue import OwnershipTransferred, PlanChanged, TeamCreated, TeamDeleted, TeamUpdated
from models.events.record import record
from models.operations.changes import apply_changes
from models.plans import DEFAULT_PLAN, PLANS
from models.queries import members
from models.tables import ActivityHead, Team, TeamMember


def create(session: Session, actor: Actor, *, name: str) -> Team:
    """A new team on the free plan; the actor becomes its owner and first admin."""
    team = Team(
        id=uuid7(),
        name=name,
        owner_id=actor.user_id,
        plan=DEFAULT_PLAN.name,
        max_members=DEFAULT_PLAN.max_members,
    )
    session.add(team)
    session.flush()  # the rows below refer to it
    session.add(TeamMember(team_id=team.id, user_id=actor.user_id, role=ADMIN))
    session.add(ActivityHead(team_id=team.id, seq=0))
    session.flush()  # before the event, so that a drain finds the head it numbers from
    record(session, enter_new_team(actor, team.id, ADMIN), TeamCreated(team_id=team.id, name=team.name))
    return team


def update(session: Session, access: Access, team: Team, *, name: str) -> None:
    """Renames the team, whose row the caller has locked."""
    if changes := apply_changes(session, team, {"name": name}):
        record(session, access, TeamUpdated(team_id=team.id, name=team.name, changes=changes))


def delete(session: Session, access: Access, team: Team) -> None:
    """Soft: nobody can enter it any more; its log, usage and rows stay until the retention period ends."""
    team.deleted_at = func.now()
    record(session, access, TeamDeleted(team_id=team.id, name=team.name))


def transfer_ownership(session: Session, access: Access, team: Team, *, user_id: UUID) -> None:
    """Makes another member the owner, and an admin if need be; the old owner stays an admin. NotFound for a non-member."""
    heir = members.get(session, access, user_id)
    if heir.user_id == team.owner_id:
        raise Conflict("This member owns the team already.")
    heir.role = ADMIN
    previous, team.owner_id = team.owner_id, heir.user_id
    session.flush()  # updated_at comes back
    record(
        session,
        access,
        OwnershipTransferred(team_id=team.id, name=team.name, from_user_id=previous, to_user_id=heir.user_id),
    )


def change_plan(session: Session, access: Access, team: Team, *, plan: str) -> None:
    """Changes the plan and with it the seats, at once; SeatLimitReached if the members don't fit into the new one."""
    wanted = PLANS[plan]
    if wanted.name == team.plan:
        return
    seats = members.count(session, access)
    if seats > wanted.max_members:
        raise SeatLimitReached(
            f"The {wanted.name} plan seats {wanted.max_members}, and the team has {seats} members; remove some first.",
            limit=wanted.max_members,
            used=seats,
        )
    previous = team.plan
    apply_changes(session, team, {"plan": wanted.name, "max_members": wanted.max_members})
    record(
        session,
        access,
        PlanChanged(
            team_id=team.id,
            name=team.name,
            from_plan=previous,
            to_plan=wanted.name,
            max_members=wanted.max_members,
        ),
    )
