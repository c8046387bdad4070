"""`record`: the one way an event comes to be."""

from sqlalchemy import insert
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import Named, System
from models.access.entry import Access
from models.events.catalogue import Event
from models.tables import OutboxEvent
from models.tracing import tracing

# Straight to the table: an outbox row is never looked at as an object, and the ORM's way costs as much as the insert.
APPEND = insert(OutboxEvent.__table__)  # type: ignore[arg-type]  # a mapped class's table is a Table
EVENTS_RECORDED = "events_recorded"


def record(session: Session, access: Access | Named | System, event: Event) -> None:
    """
    Writes the event to the outbox, in the change's own transaction: both commit, or neither.

    Call it after the change's row is locked or made, so that the outbox's order is the order of the changes to that row.
    """
    traced = {"traceparent": tracing.traceparent()} if tracing.on else {}
    session.connection().execute(
        APPEND,
        {
            **traced,
            "event_id": uuid7(),
            "team_id": access.team_id,
            "action": event.type,
            "user_id": access.user_id,
            "agent_id": access.agent_id,
            "api_key_id": access.api_key_id,
            "workspace_id": getattr(event, "workspace_id", None),
            "resource_type": event.resource_type,
            "resource_id": event.resource_id,
            "resource_name": event.resource_name,
            "details": event.payload(),
            "schema_version": event.schema_version,
            "outcome": event.outcome,
            "ip_address": access.origin.ip_address,
            "user_agent": access.origin.user_agent,
            "request_id": access.origin.request_id,
        },
    )
    session.info[EVENTS_RECORDED] = True
