"""Who a team's invoices are made out to."""

from typing import Any

from sqlalchemy.orm import Session

from models.access.entry import Access, reenter
from models.access.permissions import Permission
from models.events.catalogue import BillingDetailsUpdated
from models.events.record import record
from models.operations.changes import apply_changes
from models.tables import BillingDetails, Team


def put(session: Session, access: Access, team: Team, values: dict[str, Any]) -> BillingDetails:
    """The details as given, for invoices that are finalized from now on; the caller has locked the team."""
    access = reenter(session, access, Permission.billing_update)
    details = session.get(BillingDetails, team.id)
    if details is None:
        details = BillingDetails(team_id=team.id, **values)
        session.add(details)
        session.flush()  # before the event
        changed = [name for name, value in values.items() if value]
    else:
        changed = list(apply_changes(session, details, values))
    if changed:
        record(session, access, BillingDetailsUpdated(team_id=team.id, name=team.name, fields=changed))
    return details
