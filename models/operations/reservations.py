"""
Reservations: what an agent is about to use at the most, noted before it calls a model, and settled after.

    open → settled | released
    open → unsettled, by itself, when it expires; settled or released late all the same

The call to a model is in another system than our ledger, so no transaction holds both: a reservation that nobody settles is
what remains of a call that was made, or was not. It is shown as such and never as nothing.

While it is open or unsettled it counts as used against a hard limit: what could be passed by not settling would be none.
Settling puts what was really used in its place, whatever the limit says, as of the time when it was reserved.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models.access.actor import System
from models.access.entry import Access
from models.errors import Conflict, Invalid, NotFound
from models.events.catalogue import UsageUnsettled
from models.events.record import record
from models.operations import usage
from models.operations.usage import Caller, Unit
from models.queries import tasks, workspaces
from models.tables import UsageReservation
from models.tables.usage import RELEASED, SETTLED, Metric, TokenPart

EXPIRES_IN_S = 600
"""Unless another time is asked for."""
LONGEST_S = 86_400

# Beside what the ledger says: see set_quotas (migrations/versions/20261126_0402_limits.py), which counts both anew.
HOLD = text("""
SELECT count_quotas(ARRAY[CAST(:team_id AS uuid)], ARRAY[CAST(:metric AS text)],
  ARRAY[date_trunc('month', CAST(:created_at AS timestamptz) AT TIME ZONE 'UTC')::date], ARRAY[CAST(:quantity AS numeric)])
""")
FIND_EXPIRED = text("""
WITH due AS (
  SELECT id FROM usage_reservations WHERE state = 'open' AND expires_at <= now()
  ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
), marked AS (
  UPDATE usage_reservations r SET state = 'unsettled' FROM due WHERE r.id = due.id RETURNING r.team_id, r.quantity
)
SELECT team_id, count(*) AS reservations, sum(quantity) AS quantity FROM marked GROUP BY team_id ORDER BY team_id
""")


def reserve(
    session: Session,
    access: Access,
    *,
    external_id: str,
    metric: Metric,
    quantity: int,
    model: str | None = None,
    workspace_id: UUID | None = None,
    task_id: UUID | None = None,
    expires_in_s: int = EXPIRES_IN_S,
) -> tuple[UsageReservation, bool]:
    """
    The reservation of this `external_id`, and whether it is new: the same again is the same one, whatever became of it.

    Raises Conflict for an `external_id` that the team used for another reservation, QuotaExceeded for what a hard limit does
    not leave room for, and Invalid for a workspace or task that the actor can't see.
    """
    workspace_id = _place(session, access, workspace_id, task_id)
    wanted: dict[str, Any] = {
        "metric": metric,
        "quantity": quantity,
        "model": model,
        "workspace_id": workspace_id,
        "task_id": task_id,
    }
    lasts = timedelta(seconds=expires_in_s)
    made = session.scalar(
        insert(UsageReservation)
        .values(
            team_id=access.team_id,
            external_id=external_id,
            user_id=access.user_id,
            agent_id=access.agent_id,
            api_key_id=access.api_key_id,
            expires_at=func.now() + lasts,
            **wanted,
        )
        .on_conflict_do_nothing(index_elements=["team_id", "external_id"])
        .returning(UsageReservation)
    )
    if made is not None:
        _hold(session, made)
        return made, True
    there = session.scalars(
        select(UsageReservation).where(
            UsageReservation.team_id == access.team_id, UsageReservation.external_id == external_id
        )
    ).one()
    differs = [name for name, value in wanted.items() if getattr(there, name) != value]
    if there.expires_at - there.created_at != lasts:
        differs.append("expires_in_s")
    if differs:
        raise Conflict(f"This external_id is another reservation's, which differs in {', '.join(differs)}.")
    return there, False


def settle(
    session: Session,
    reservation: UsageReservation,
    *,
    tokens: Mapping[TokenPart, int],
    model: str | None = None,
) -> None:
    """
    Counts what was really used, by part, in place of what was reserved; the caller has locked the row. It may be more than
    was reserved and more than a hard limit leaves room for: it was used, so it is counted. The ledger has it as of whoever
    reserved, and as of then.

    The same again changes nothing. Raises Conflict for what was settled otherwise, or released.
    """
    used = {part.value: quantity for part, quantity in sorted(tokens.items()) if quantity}
    model = model or reservation.model
    if reservation.state == SETTLED and (reservation.tokens, reservation.settled_model) == (used, model):
        return
    _end(session, reservation, SETTLED, tokens=used, settled_model=model)
    caller = Caller(reservation.team_id, reservation.user_id, reservation.agent_id, reservation.api_key_id)
    units = [
        Unit(
            f"reservation:{reservation.id}:{part}",
            Metric(reservation.metric),
            quantity,
            occurred_at=reservation.created_at,
            workspace_id=reservation.workspace_id,
            model=model,
            part=TokenPart(part),
        )
        for part, quantity in used.items()
    ]
    usage.append(session, caller, units, limited=False)


def release(session: Session, reservation: UsageReservation) -> None:
    """Nothing was used; the caller has locked the row. Again, it changes nothing; Conflict for what is settled."""
    if reservation.state != RELEASED:
        _end(session, reservation, RELEASED)


def mark_unsettled(session: Session, limit: int) -> int:
    """
    Marks up to `limit` reservations of any team that expired, the longest ago first; how many it took. Safe to repeat, to
    kill and to run twice at once.
    """
    teams = session.execute(FIND_EXPIRED, {"limit": limit}).all()
    for team_id, count, quantity in teams:
        said = UsageUnsettled(team_id=team_id, count=count, quantity=int(quantity))
        record(session, System(team_id), said)
    return sum(team.reservations for team in teams)


def _place(session: Session, access: Access, workspace_id: UUID | None, task_id: UUID | None) -> UUID | None:
    """The workspace that it is for: the named one, or the task's."""
    if workspace_id and workspace_id not in workspaces.visible(session, access, {workspace_id}):
        raise Invalid({"workspace_id": ["There is no such workspace here."]})
    if task_id is None:
        return workspace_id
    try:
        task = tasks.get(session, access, task_id)
    except NotFound as error:
        raise Invalid({"task_id": [error.detail]}) from error
    if workspace_id not in {None, task.workspace_id}:
        raise Invalid({"task_id": ["This task is in another workspace."]})
    return task.workspace_id


def _hold(session: Session, reservation: UsageReservation, *, give_back: bool = False) -> None:
    """Counts it against the hard limit, if there is one, or gives back what that counted; QuotaExceeded if there is no room."""
    quotas = session.scalar(
        HOLD,
        {
            "team_id": reservation.team_id,
            "metric": reservation.metric,
            "created_at": reservation.created_at,
            "quantity": -reservation.quantity if give_back else reservation.quantity,
        },
    )
    if quotas:
        usage.keep_to(session, reservation.team_id, quotas)


def _end(session: Session, reservation: UsageReservation, state: str, **values: Any) -> None:
    """Gives back what it held; raises Conflict if it has ended before."""
    if reservation.state in {SETTLED, RELEASED}:
        raise Conflict(
            f"This reservation is {reservation.state} already; report what was used beside it as usage.",
            reservation_state=reservation.state,
        )
    reservation.state = state
    for name, value in values.items():
        setattr(reservation, name, value)
    reservation.ended_at = func.now()
    session.flush()
    _hold(session, reservation, give_back=True)
