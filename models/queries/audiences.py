"""Who may see what happens in a workspace that is not open to its whole team."""

from collections.abc import Collection, Iterable
from typing import Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.tables.workspaces import PRIVATE

# One statement, and so one snapshot: a workspace that is being deleted is in one of the two tables.
AUDIENCES = text("""
SELECT w.id, t.owner_id || ARRAY(SELECT m.user_id FROM workspace_members m WHERE m.workspace_id = w.id)
FROM workspaces w JOIN teams t ON t.id = w.team_id
WHERE w.id = ANY(CAST(:workspace_ids AS uuid[])) AND w.visibility = :private
UNION ALL
SELECT d.workspace_id, t.owner_id || d.user_ids
FROM deleted_workspaces d JOIN teams t ON t.id = d.team_id
WHERE d.workspace_id = ANY(CAST(:workspace_ids AS uuid[]))
""")


class Happened(Protocol):
    """An event, as far as it matters where it happened."""

    @property
    def workspace_id(self) -> UUID | None: ...


def audiences(session: Session, workspace_ids: Collection[UUID]) -> dict[UUID, frozenset[UUID]]:
    """
    Of those workspaces that are private, or were when they were deleted: the users who may see them now, the team's
    owner among them. What is open to its whole team is not in the answer.
    """
    if not workspace_ids:
        return {}
    rows = session.execute(AUDIENCES, {"workspace_ids": list(workspace_ids), "private": PRIVATE})
    return {workspace_id: frozenset(user_ids) for workspace_id, user_ids in rows}


def audiences_of(session: Session, events: Iterable[Happened]) -> dict[UUID, frozenset[UUID]]:
    """
    `audiences` of the workspaces in which the events happened; for callers that read (or projected) the events in this
    transaction, before: what an event's change made private is private here.
    """
    return audiences(session, {event.workspace_id for event in events if event.workspace_id})
