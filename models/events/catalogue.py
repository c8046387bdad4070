"""
Every event, declared once: its type (the activity log's `action`), its payload and the sentence that people read.

To add one: write a dataclass below with `@event(type, resource, sentence)`, record it in the operation that makes the
change, and give it a test in tests/models/test_events.py. A type that is declared twice fails at import.

A sentence may use {actor}, {resource} (the name of what it happened to) and every field of the payload. Persons stand
in a payload by id alone (models/tables/activity.py says why); their names are joined when the log is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, dataclass_transform
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Event:
    type: ClassVar[str]
    resource_type: ClassVar[str]
    sentence: ClassVar[str]
    id_field: ClassVar[str]

    @property
    def resource_id(self) -> UUID:
        resource_id: UUID = getattr(self, self.id_field)
        return resource_id

    @property
    def resource_name(self) -> str | None:
        """The resource's name as it was; None for a person."""
        return getattr(self, "title", None) or getattr(self, "name", None)

    def payload(self) -> dict[str, Any]:
        """The fields as plain values; the log's `metadata` and a socket's `data`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


E = TypeVar("E", bound=Event)
CATALOGUE: dict[str, type[Event]] = {}


@dataclass_transform(frozen_default=True)
def event(type_: str, resource: str, sentence: str) -> Callable[[type[E]], type[E]]:
    """Registers a payload class under its type. `resource` names both the resource's type and, with `_id`, its id's field."""

    def register(declared: type[E]) -> type[E]:
        if type_ in CATALOGUE:
            raise ValueError(f"The event {type_} is declared twice.")
        payload_class = dataclass(frozen=True, slots=True)(declared)
        payload_class.type, payload_class.resource_type, payload_class.sentence = type_, resource, sentence
        payload_class.id_field = f"{resource}_id"
        CATALOGUE[type_] = payload_class
        return payload_class

    return register


@dataclass(frozen=True, slots=True)
class TeamEvent(Event):
    team_id: UUID
    name: str


@event("team_created", "team", "{actor} created the team {resource}")
class TeamCreated(TeamEvent): ...


@event("team_updated", "team", "{actor} changed the team {resource}")
class TeamUpdated(TeamEvent):
    changes: dict[str, list[Any]]


@event("team_deleted", "team", "{actor} deleted the team {resource}")
class TeamDeleted(TeamEvent): ...


@event("ownership_transferred", "team", "{actor} handed the team {resource} over to another owner")
class OwnershipTransferred(TeamEvent):
    from_user_id: UUID
    to_user_id: UUID


@event("plan_changed", "team", "{actor} changed the plan from {from_plan} to {to_plan}")
class PlanChanged(TeamEvent):
    from_plan: str
    to_plan: str
    max_members: int


@dataclass(frozen=True, slots=True)
class MemberEvent(Event):
    user_id: UUID
    role: str


@event("member_added", "user", "{actor} added {resource} as {role}")
class MemberAdded(MemberEvent): ...


@event("member_removed", "user", "{actor} removed {resource}")
class MemberRemoved(MemberEvent): ...


@event("member_left", "user", "{actor} left the team")
class MemberLeft(MemberEvent): ...


@event("member_role_changed", "user", "{actor} changed the role of {resource} from {from_role} to {role}")
class MemberRoleChanged(MemberEvent):
    from_role: str


@dataclass(frozen=True, slots=True)
class WorkspaceEvent(Event):
    workspace_id: UUID
    name: str


@event("workspace_created", "workspace", "{actor} created the workspace {resource}")
class WorkspaceCreated(WorkspaceEvent): ...


@event("workspace_updated", "workspace", "{actor} changed the workspace {resource}")
class WorkspaceUpdated(WorkspaceEvent):
    changes: dict[str, list[Any]]


@event(
    "workspace_deleted",
    "workspace",
    "{actor} deleted the workspace {resource} with its {tasks_deleted} tasks",
)
class WorkspaceDeleted(WorkspaceEvent):
    tasks_deleted: int


@dataclass(frozen=True, slots=True)
class TaskEvent(Event):
    task_id: UUID
    workspace_id: UUID
    title: str
    status: str
    assignee_id: UUID | None


@event("task_created", "task", "{actor} created the task {resource}")
class TaskCreated(TaskEvent): ...


@event("task_updated", "task", "{actor} changed the task {resource}")
class TaskUpdated(TaskEvent):
    changes: dict[str, list[Any]]


@event("task_started", "task", "{actor} started the task {resource}")
class TaskStarted(TaskEvent): ...


@event("task_completed", "task", "{actor} completed the task {resource} with {llm_tokens_used} tokens")
class TaskCompleted(TaskEvent):
    llm_tokens_used: int


@event("task_failed", "task", "{actor} reported the task {resource} as failed: {error}")
class TaskFailed(TaskEvent):
    error: str


@event("task_cancelled", "task", "{actor} cancelled the task {resource}")
class TaskCancelled(TaskEvent): ...


@event("task_deleted", "task", "{actor} deleted the task {resource}")
class TaskDeleted(TaskEvent): ...
