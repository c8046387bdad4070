"""
Tasks and their states:

    pending → processing → completed | failed
    pending | processing → cancelled

Every verb takes the task's row as the caller has locked it, so of two agents that start one task, one gets a Conflict.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.entry import Access
from models.errors import Conflict
from models.events.catalogue import (
    TaskCancelled,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskEvent,
    TaskFailed,
    TaskStarted,
    TaskUpdated,
)
from models.events.record import record
from models.operations import usage
from models.operations.changes import apply_changes
from models.tables import Task, Workspace
from models.tables.usage import Metric

LEADS_TO: Mapping[str, frozenset[str]] = {
    "pending": frozenset({"processing", "cancelled"}),
    "processing": frozenset({"completed", "failed", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
SAID_OF_A_TASK = [field.name for field in fields(TaskEvent)]


def create(
    session: Session,
    access: Access,
    workspace: Workspace,
    *,
    title: str,
    prompt: str | None = None,
    type: str = "general",  # noqa: A002  the interface's word
    assignee_id: UUID | None = None,
) -> Task:
    """A pending task, counted as created; raises Invalid for an assignee who is no member."""
    task = Task(
        id=uuid7(),
        team_id=access.team_id,
        workspace_id=workspace.id,
        title=title,
        prompt=prompt,
        type=type,
        assignee_id=assignee_id,
        created_by=access.user_id,
    )
    session.add(task)
    session.flush()  # an assignee who is no member speaks up here
    usage.count(session, access, {Metric.tasks_created: 1}, key=f"task:{task.id}:created")
    record(session, access, TaskCreated(**_said_of(task)))
    return task


def update(session: Session, access: Access, task: Task, **values: Any) -> None:
    """Changes title, prompt, type and assignee, as given, in any state."""
    if changes := apply_changes(session, task, values):
        record(session, access, TaskUpdated(**_said_of(task), changes=changes))


def delete(session: Session, access: Access, task: Task) -> None:
    """Deletes the task in any state; what it used stays counted."""
    said = _said_of(task)
    session.delete(task)
    session.flush()  # in the lock's order, before the event
    record(session, access, TaskDeleted(**said))


def start(session: Session, access: Access, task: Task) -> None:
    _move(session, task, "processing", started_at=func.now())
    record(session, access, TaskStarted(**_said_of(task)))


def complete(
    session: Session, access: Access, task: Task, *, result: Any = None, llm_tokens_used: int = 0
) -> None:
    """Completes the task and counts it and its tokens, in this transaction and so exactly once."""
    _move(session, task, "completed", finished_at=func.now(), result=result, llm_tokens_used=llm_tokens_used)
    if result is not None:
        session.refresh(task, ["result"])  # as jsonb has it: 1e2 is 100 from now on
    usage.count(
        session,
        access,
        {Metric.tasks_completed: 1, Metric.llm_tokens_used: llm_tokens_used},
        key=f"task:{task.id}:completed",
    )
    record(session, access, TaskCompleted(**_said_of(task), llm_tokens_used=llm_tokens_used))


def fail(session: Session, access: Access, task: Task, *, error: str) -> None:
    _move(session, task, "failed", finished_at=func.now(), error=error)
    record(session, access, TaskFailed(**_said_of(task), error=error))


def cancel(session: Session, access: Access, task: Task) -> None:
    _move(session, task, "cancelled", finished_at=func.now())
    record(session, access, TaskCancelled(**_said_of(task)))


def _move(session: Session, task: Task, status: str, **values: Any) -> None:
    """Into the next state, with what comes with it; raises Conflict if the present state does not lead there."""
    if status not in LEADS_TO[task.status]:
        open_ways = ", ".join(sorted(LEADS_TO[task.status])) or "nothing further"
        raise Conflict(
            f"A task that is {task.status} can't become {status}; it leads to {open_ways}.",
            task_status=task.status,
        )
    for name, value in {"status": status, **values}.items():
        setattr(task, name, value)
    session.flush()  # the times come back


def _said_of(task: Task) -> dict[str, Any]:
    """What every event of a task says of it: the fields of TaskEvent."""
    return {name: getattr(task, "id" if name == "task_id" else name) for name in SAID_OF_A_TASK}
