"""Teams: making, renaming, changing plan, deleting, restoring and purging. Handing over is a change of membership: members.py."""

from typing import Any
from uuid import UUID

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import Actor
from models.access.entry import Access, enter_new_team, reenter
from models.access.permissions import ADMIN, Permission
from models.errors import Conflict, Invalid, NotFound
from models.events.catalogue import PlanChanged, TeamCreated, TeamDeleted, TeamRestored, TeamUpdated
from models.events.record import record
from models.operations import activity, invoices, plan_periods, retention
from models.operations.changes import apply_changes
from models.operations.members import refuse_without_seats, seat
from models.plans import DEFAULT_PLAN
from models.queries import plans, users
from models.queries.teams import RESTORABLE_FOR, restorable, retention_days
from models.tables import ActivityHead, OutboxEvent, Team, UsageLedger

PURGED_AT_ONCE = 20_000
"""Rows of the log or the ledger: what one transaction erases in seconds."""


def create(session: Session, actor: Actor, *, name: str) -> Team:
    """A new team on the free plan; the actor becomes its owner and first admin."""
    book = plans.current_book(session)
    plan = book.plans[DEFAULT_PLAN.name]
    team = Team(
        id=uuid7(),
        name=name,
        owner_id=actor.user_id,
        plan=plan.name,
        max_members=plan.max_members,
    )
    session.add(team)
    session.flush()  # the rows below refer to it
    seat(session, team, users.get(session, actor.user_id), ADMIN)
    session.add(ActivityHead(team_id=team.id, seq=0))
    plan_periods.begin(session, team, book)
    session.flush()  # before the event, so that a drain finds the head it numbers from
    record(session, enter_new_team(actor, team.id, ADMIN), TeamCreated(team_id=team.id, name=team.name))
    return team


def update(session: Session, access: Access, team: Team, **values: Any) -> None:
    """
    Changes `name`, `two_factor_required` and `retention_days`, as given; the caller has locked the row. Whoever asks the members
    for a second factor has one, or Conflict; Invalid for a longer retention than the plan has.
    """
    access = reenter(session, access, Permission.teams_update)
    if values.get("two_factor_required") and not users.has_second_factor(session, access.user_id):
        raise Conflict("Set up a second factor yourself first, or you could not enter the team any more.")
    retention.refuse_above_plan(team, values.get("retention_days"))
    kept = retention_days(team)
    if changes := apply_changes(session, team, values):
        retention.keep_on(session, team, kept)
        record(session, access, TeamUpdated(team_id=team.id, name=team.name, changes=changes))


def delete(session: Session, access: Access, team: Team) -> None:
    """Soft: nobody can enter it any more; the owner can restore it until RESTORABLE_FOR is over, then it is purged."""
    access = reenter(session, access, Permission.teams_delete)
    team.deleted_at = func.now()
    plan_periods.end(session, team)
    record(session, access, TeamDeleted(team_id=team.id, name=team.name))


def restore(session: Session, actor: Actor, team_id: UUID) -> Team:
    """Brings a deleted team back as it was; for its owner alone, everyone else gets NotFound."""
    team = session.scalar(
        select(Team)
        .where(Team.id == team_id, Team.owner_id == actor.user_id, restorable())
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if team is None:
        raise NotFound("deleted team")
    team.deleted_at = None
    session.flush()  # updated_at comes back
    plan_periods.begin(session, team, plans.last_book_of(session, team.id))
    record(session, enter_new_team(actor, team.id, ADMIN), TeamRestored(team_id=team.id, name=team.name))
    return team


def purge_one(session: Session) -> UUID | None:
    """
    Erases one team whose time to be restored is over, with everything that was its own, the activity log included; its id, or
    None if there is none left. Its final invoices are archived. One under a legal hold waits until that is released. Any number
    of workers may run it at once. Of a large team it erases a part at a time, and the id is of one that is not all gone yet.
    """
    due = (
        select(Team.id)
        .where(Team.deleted_at <= func.now() - RESTORABLE_FOR, Team.held_at.is_(None))
        .order_by(Team.deleted_at)
        .limit(1)
        .with_for_update(
            skip_locked=True, key_share=True
        )  # a drain that has the head appends to the log meanwhile
    )
    team_id = session.scalar(due)
    if team_id is None:
        return None
    session.scalar(  # the drain's lock, before what it writes to goes
        select(ActivityHead.seq).where(ActivityHead.team_id == team_id).with_for_update()
    )
    if activity.purge(session, team_id, at_most=PURGED_AT_ONCE) == PURGED_AT_ONCE:
        return team_id
    some = select(UsageLedger.id).where(UsageLedger.team_id == team_id).limit(PURGED_AT_ONCE)
    erased = delete_rows(UsageLedger).where(UsageLedger.team_id == team_id, UsageLedger.id.in_(some))
    if len(session.execute(erased.returning(UsageLedger.id)).all()) == PURGED_AT_ONCE:
        return team_id
    session.execute(delete_rows(OutboxEvent).where(OutboxEvent.team_id == team_id))
    session.execute(delete_rows(ActivityHead).where(ActivityHead.team_id == team_id))
    invoices.archive(session, team_id)
    session.execute(delete_rows(Team).where(Team.id == team_id))  # the rest goes with it
    return team_id


def change_plan(session: Session, access: Access, team: Team, *, plan: str) -> None:
    """
    Changes the plan and with it seats, limits and prices, at once, to that of the newest book.

    Raises SeatLimitReached if the members don't fit into it, Invalid for a plan that the book does not have.
    """
    access = reenter(session, access, Permission.billing_update)
    if plan == team.plan:
        return
    book = plans.current_book(session)
    if plan not in book.plans:
        raise Invalid({"plan": [f"There is no such plan at present; there are {', '.join(book.plans)}."]})
    wanted = book.plans[plan]
    refuse_without_seats(session, team, wanted)
    previous, kept = team.plan, retention_days(team)
    apply_changes(session, team, {"plan": wanted.name, "max_members": wanted.max_members})
    retention.keep_on(session, team, kept)
    plan_periods.begin(session, team, book)
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
