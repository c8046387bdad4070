"""Corrections: a row that takes another one back, whole and once. What the ledger has, it keeps."""

from datetime import UTC
from uuid import UUID

from sqlalchemy.orm import Session

from models.access.entry import Access, reenter
from models.access.permissions import Permission
from models.errors import Conflict
from models.events.catalogue import UsageCorrected
from models.events.record import record
from models.operations import usage
from models.operations.usage import Caller, Unit
from models.queries import ledger
from models.queries.ledger import LedgerView
from models.tables import Team
from models.tables.usage import Metric, TokenPart

LARGEST = 2**63 - 1


def correct(session: Session, access: Access, team: Team, ledger_id: UUID, *, reason: str) -> LedgerView:
    """
    The row that takes `ledger_id` back: the same day, person, key, workspace and model, with the opposite quantity. The
    caller has locked the team. To put something else in its place, report that under a new `external_id`.

    Raises NotFound for a row that is not the team's, and Conflict for one that takes another back, was taken back before, or
    holds up the storage of a later day.
    """
    access = reenter(session, access, Permission.billing_update)
    row = ledger.get(session, access, ledger_id).row
    if row.reverses is not None:
        raise Conflict(
            "This row takes another one back; it can't be taken back itself. Report the usage anew."
        )
    if -row.quantity > LARGEST:
        raise Conflict("This change of the storage is too large to be taken back at once.")
    if row.metric == Metric.storage_bytes:
        day = row.occurred_at.astimezone(UTC).date()
        if (lowest := usage.lowest_level(session, team.id, {day: -row.quantity})) < 0:
            raise Conflict(f"Without it the storage level would fall to {lowest}; it can't be below zero.")
    unit = Unit(
        f"reversal:{row.id}",
        Metric(row.metric),
        -row.quantity,
        occurred_at=row.occurred_at,
        workspace_id=row.workspace_id,
        model=row.model,
        part=TokenPart(row.part) if row.part else None,
        reverses=row.id,
        reason=reason,
        set_id=row.set_id,
    )
    caller = Caller(row.team_id, row.user_id, row.agent_id, row.api_key_id)
    if not usage.append(session, caller, [unit], limited=False):
        raise Conflict("This row was taken back already.")
    correction = ledger.taking_back(session, access, row.id)
    said = UsageCorrected(
        usage_ledger_id=row.id,
        correction_id=correction.row.id,
        metric=row.metric,
        quantity=row.quantity,
        reason=reason,
        workspace_id=row.workspace_id,
    )
    record(session, access, said)
    return correction
