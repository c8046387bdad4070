"""
Tasks and their states:

    pending → processing → completed | failed
    pending | processing → cancelled
    processing → pending | failed, by itself, when a lease ran out

Every verb takes the task's row as the caller has locked it, so of two agents that start one task, one gets a Conflict.

Work begins in one of two ways. `start` names its task and has no time limit. `claim` takes the next task under a lease: who
reports on it names the lease, and once it ran out, by the database's clock, the report is refused and the task is
everybody's again. So a slow agent never overwrites what a later attempt did.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, func, select
from sqlalchemy import update as update_rows
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import System
from models.access.entry import Access
from models.errors import Conflict
from models.events.catalogue import (
    TaskCancelled,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskEvent,
    TaskFailed,
    TaskReturned,
    TaskStarted,
    TaskUpdated,
)
from models.events.record import record
from models.operations import usage
from models.operations.changes import apply_changes
from models.queries import tasks
from models.tables import Task, Workspace
from models.tables.usage import Metric, TokenPart

LEADS_TO: Mapping[str, frozenset[str]] = {
    "pending": frozenset({"processing", "cancelled"}),
    "processing": frozenset({"completed", "failed", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
LEASE_S = 60
"""Unless another length is asked for."""
LONGEST_LEASE_S = 3600
MAXIMUM_ATTEMPTS = 10
"""A task that so many claimers have let go is what kills them; it fails instead of going round for ever."""
NO_LEASE: Mapping[str, None] = {"lease_id": None, "lease_expires_at": None}
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
    usage.count(
        session, access, {Metric.tasks_created: 1}, key=f"task:{task.id}:created", workspace_id=workspace.id
    )
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
    """Begins work on a pending task, without a lease."""
    _begin(session, access, task)


def claim(
    session: Session,
    access: Access,
    workspace: Workspace,
    *,
    lease_s: int = LEASE_S,
    types: Collection[str] | None = None,
) -> Task | None:
    """
    The oldest pending task of the workspace that is nobody's or the caller's, of one of these types, in processing under a new
    lease of `lease_s` seconds; None when there is none that nobody else is just taking.

    The oldest one whose lease ran out is made pending first, and it alone: so a claim needs no beat, and of many at once each
    holds no more rows than it takes and passes over those of the others.
    """
    while expired := tasks.next_expired(session, access, workspace, types=types):
        _return(session, expired)
        if expired.status == "pending":
            break
    task = tasks.next_pending(session, access, workspace, types=types)
    if task is not None:
        _begin(session, access, task, lease_id=uuid4(), lease_expires_at=_from_now(lease_s))
    return task


def heartbeat(
    session: Session, access: Access, task: Task, *, lease_id: UUID, lease_s: int = LEASE_S
) -> None:
    """
    The lease lasts `lease_s` seconds from now on; raises Conflict for a lease that is lost.

    No event, and `updated_at` stays: nothing of the task changes but how long its agent is believed to live. At a beat every few
    seconds the log would hold little else.
    """
    _check_lease(session, task, lease_id)
    session.execute(
        update_rows(Task)
        .where(Task.team_id == access.team_id, Task.id == task.id)
        .values(lease_expires_at=_from_now(lease_s), updated_at=Task.updated_at)
        .execution_options(synchronize_session=False)
    )
    session.refresh(task, ["lease_expires_at"])


def complete(
    session: Session,
    access: Access,
    task: Task,
    *,
    lease_id: UUID | None = None,
    result: Any = None,
    llm_tokens_used: int = 0,
    tokens: Mapping[TokenPart, int] | None = None,
    model: str | None = None,
) -> None:
    """
    Completes the task and counts it and its tokens, in this transaction and so exactly once: `llm_tokens_used` as they are, or
    `tokens` by their part, whose sum they then are.

    Raises Conflict for a state that does not lead there, and for a task under a lease that `lease_id` is not, or that is lost.
    """
    _check_lease(session, task, lease_id)
    if tokens:
        llm_tokens_used = sum(tokens.values())
    _end(session, task, "completed", result=result, llm_tokens_used=llm_tokens_used)
    if result is not None:
        session.refresh(task, ["result"])  # as jsonb has it: 1e2 is 100 from now on
    untold = {} if tokens else {Metric.llm_tokens_used: llm_tokens_used}
    usage.count(
        session,
        access,
        {Metric.tasks_completed: 1, **untold},
        key=f"task:{task.id}:completed",
        workspace_id=task.workspace_id,
        tokens=tokens,
        model=model,
    )
    record(session, access, TaskCompleted(**_said_of(task), llm_tokens_used=llm_tokens_used))


def fail(session: Session, access: Access, task: Task, *, error: str, lease_id: UUID | None = None) -> None:
    """Ends the task with what went wrong; raises Conflict as `complete` does."""
    _check_lease(session, task, lease_id)
    _end(session, task, "failed", error=error)
    record(session, access, TaskFailed(**_said_of(task), error=error))


def cancel(session: Session, access: Access, task: Task) -> None:
    """Ends the task, whoever works on it: their lease is lost."""
    _end(session, task, "cancelled")
    record(session, access, TaskCancelled(**_said_of(task)))


def return_expired(session: Session, limit: int) -> int:
    """
    Returns up to `limit` tasks of any team whose lease ran out, the longest ago first; how many it took. Safe to repeat, to
    kill and to run twice at once.
    """
    expired = session.scalars(
        select(Task)
        .where(tasks.LEASE_RAN_OUT)
        .order_by(Task.lease_expires_at)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    for task in expired:
        _return(session, task)
    return len(expired)


def _return(session: Session, task: Task) -> None:
    """
    Ends an attempt whose lease ran out: the task is pending again or, after too many of them, has failed. The attempts stay
    counted; a task that was begun by `start` never comes here, so all of them ended so.
    """
    system = System(task.team_id)
    if task.attempts >= MAXIMUM_ATTEMPTS:
        error = f"The lease ran out {task.attempts} times; nobody completed it."
        _end(session, task, "failed", error=error)
        record(session, system, TaskFailed(**_said_of(task), error=error))
    else:
        _set(session, task, status="pending", started_at=None, **NO_LEASE)
        record(session, system, TaskReturned(**_said_of(task), attempt=task.attempts))


def _begin(session: Session, access: Access, task: Task, **lease: Any) -> None:
    """Another attempt, by the agent that the actor is, if it is one."""
    _move(
        session,
        task,
        "processing",
        started_at=func.now(),
        attempts=task.attempts + 1,
        agent_id=access.agent_id,
        **lease,
    )
    record(session, access, TaskStarted(**_said_of(task), attempt=task.attempts))


def _end(session: Session, task: Task, status: str, **values: Any) -> None:
    _move(session, task, status, finished_at=func.now(), **NO_LEASE, **values)


def _check_lease(session: Session, task: Task, lease_id: UUID | None) -> None:
    """
    Raises Conflict unless `lease_id` is the task's lease and has not run out, or there is none on either side.

    A lease that ran out is lost though nobody has taken the task yet: otherwise whether a late report counts would hang on when
    beat ticks.
    """
    if task.lease_id is None and lease_id is None:
        return
    if lease_id is None:
        raise Conflict("This task is under a lease; report on it with its lease_id.", task_status=task.status)
    if task.lease_id != lease_id or _ran_out(session, task):
        raise Conflict(
            "This lease is lost or never was: it ran out, or the task was ended, or begun without a lease. Claim another task.",
            task_status=task.status,
        )


def _ran_out(session: Session, task: Task) -> bool:
    """By the time when the row was locked already; `now()` is when the transaction began, before it waited for that."""
    now = session.scalars(select(func.clock_timestamp())).one()
    return task.lease_expires_at is None or task.lease_expires_at <= now


def _from_now(seconds: int) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=seconds)


def _move(session: Session, task: Task, status: str, **values: Any) -> None:
    """Into the next state, with what comes with it; raises Conflict if the present state does not lead there."""
    if status not in LEADS_TO[task.status]:
        open_ways = ", ".join(sorted(LEADS_TO[task.status])) or "nothing further"
        raise Conflict(
            f"A task that is {task.status} can't become {status}; it leads to {open_ways}.",
            task_status=task.status,
        )
    _set(session, task, status=status, **values)


def _set(session: Session, task: Task, **values: Any) -> None:
    for name, value in values.items():
        setattr(task, name, value)
    session.flush()  # the times come back


def _said_of(task: Task) -> dict[str, Any]:
    """What every event of a task says of it: the fields of TaskEvent."""
    return {name: getattr(task, "id" if name == "task_id" else name) for name in SAID_OF_A_TASK}
