"""
Backfill sets: past usage that is staged, looked at, counted whole, and taken back whole if it was wrong.

    open → applied → reverted

Nothing of an open set counts anywhere. What was applied stays in the ledger for ever: reverting adds the rows that take it
back, and its external ids stay known, so the right figures come under new ones.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from models.access.entry import Access, reenter
from models.access.permissions import Permission
from models.errors import Conflict, Invalid
from models.events.catalogue import UsageBackfillApplied, UsageBackfillCreated, UsageBackfillReverted
from models.events.record import record
from models.operations import usage
from models.operations.usage import Reported, UsageEvent
from models.queries import backfills
from models.queries.ledger import EXTERNAL
from models.tables import UsageBackfill, UsageBackfillEvent
from models.tables.usage import APPLIED, OPEN, REVERTED

MAXIMUM_EVENTS = 20_000
"""In one set: what is counted in two or three seconds, while whoever else wants the team's lock waits for it."""

STAGE = text("""
INSERT INTO usage_backfill_events (backfill_id, team_id, external_id, metric, quantity, occurred_at, workspace_id, model, part,
                                   user_id, agent_id, api_key_id)
SELECT :backfill_id, :team_id, e.*, :user_id, :agent_id, :api_key_id
FROM unnest(CAST(:external_ids AS text[]), CAST(:metrics AS text[]), CAST(:quantities AS bigint[]),
            CAST(:occurred_ats AS timestamptz[]), CAST(:workspace_ids AS uuid[]), CAST(:models AS text[]),
            CAST(:parts AS text[])) AS e
ON CONFLICT (backfill_id, external_id) DO NOTHING
RETURNING 1
""")
APPLY = usage.appending(f"""
SELECT team_id, '{EXTERNAL}' || external_id, metric, quantity, occurred_at, user_id, agent_id, api_key_id, workspace_id, model,
       part, NULL::uuid, NULL, backfill_id
FROM usage_backfill_events WHERE team_id = :team_id AND backfill_id = :backfill_id
""")  # noqa: S608  made of constants alone
REVERT = usage.appending("""
SELECT team_id, 'reversal:' || id, metric, -quantity, occurred_at, user_id, agent_id, api_key_id, workspace_id, model,
       part, id, CAST(:reason AS text), set_id
FROM usage_ledger WHERE team_id = :team_id AND set_id = :backfill_id AND reverses IS NULL
""")


def create(session: Session, access: Access, *, name: str, reason: str) -> UsageBackfill:
    """An open set with nothing in it."""
    backfill = UsageBackfill(team_id=access.team_id, name=name, reason=reason, created_by=access.user_id)
    session.add(backfill)
    session.flush()
    record(
        session,
        access,
        UsageBackfillCreated(usage_backfill_id=backfill.id, name=backfill.name, reason=reason),
    )
    return backfill


def stage(
    session: Session, access: Access, backfill: UsageBackfill, events: Sequence[UsageEvent]
) -> Reported:
    """
    Takes a batch into the open set, whole or not at all; what the set has already is a duplicate. The caller has locked it.

    Raises Conflict for a set that is not open, and Invalid as `usage.report` does, but for storage, which is looked at when
    the set is applied; also for more than MAXIMUM_EVENTS.
    """
    _expect(backfill, OPEN)
    usage.check(session, access, events)
    now = datetime.now(UTC)
    columns: dict[str, list[Any]] = {
        "external_ids": [event.external_id for event in events],
        "metrics": [event.metric for event in events],
        "quantities": [event.quantity for event in events],
        "occurred_ats": [event.occurred_at or now for event in events],
        "workspace_ids": [event.workspace_id for event in events],
        "models": [event.model for event in events],
        "parts": [event.part for event in events],
    }
    by = {name: getattr(access, name) for name in ("team_id", "user_id", "agent_id", "api_key_id")}
    taken = session.execute(STAGE, {"backfill_id": backfill.id, **by, **columns}).all()
    staged = select(func.count()).where(UsageBackfillEvent.backfill_id == backfill.id)
    if (session.scalar(staged) or 0) > MAXIMUM_EVENTS:
        raise Invalid(
            {"events": {"_schema": [f"A set holds at most {MAXIMUM_EVENTS:,} events; make another."]}}
        )
    return Reported(accepted=len(taken), duplicates=len(events) - len(taken))


def apply(session: Session, access: Access, backfill: UsageBackfill) -> None:
    """
    Counts the set, whole and once; an external id that the ledger knows is a duplicate. What was used is counted whatever a
    hard limit says. The caller has locked the team, then the set.

    Raises Conflict for a set that is not open, and for storage that would fall below zero on any day.
    """
    access = reenter(session, access, Permission.billing_update)
    _expect(backfill, OPEN)
    _check_storage(session, backfill, 1)
    events = backfills.view(session, backfill).events
    accepted, quotas = session.execute(APPLY, _of(backfill)).one()
    usage.keep_to(session, backfill.team_id, quotas or [], limited=False)
    backfill.state, backfill.applied_at = APPLIED, func.now()
    session.flush()
    record(
        session,
        access,
        UsageBackfillApplied(
            usage_backfill_id=backfill.id,
            name=backfill.name,
            accepted=accepted,
            duplicates=events - accepted,
        ),
    )


def revert(session: Session, access: Access, backfill: UsageBackfill) -> None:
    """
    Takes back all that the set has counted, once, but for what was corrected before. The caller has locked the team, then the
    set. Raises Conflict for a set that is not applied, and for storage that would fall below zero on any day.
    """
    access = reenter(session, access, Permission.billing_update)
    _expect(backfill, APPLIED)
    _check_storage(session, backfill, -1)
    reason = f"The backfill {backfill.name} was reverted."
    taken_back, _ = session.execute(REVERT, {**_of(backfill), "reason": reason}).one()
    backfill.state, backfill.reverted_at = REVERTED, func.now()
    session.flush()
    record(
        session,
        access,
        UsageBackfillReverted(usage_backfill_id=backfill.id, name=backfill.name, reversed=taken_back),
    )


def _expect(backfill: UsageBackfill, state: str) -> None:
    if backfill.state != state:
        raise Conflict(
            f"This set is {backfill.state}; that can be done with one that is {state}.",
            backfill_state=backfill.state,
        )


def _check_storage(session: Session, backfill: UsageBackfill, sign: int) -> None:
    changes = {day: sign * quantity for day, quantity in backfills.storage_changes(session, backfill).items()}
    if changes and (lowest := usage.lowest_level(session, backfill.team_id, changes)) < 0:
        raise Conflict(f"The storage level would fall to {lowest}; it can't be below zero.")


def _of(backfill: UsageBackfill) -> dict[str, Any]:
    return {"team_id": backfill.team_id, "backfill_id": backfill.id}
