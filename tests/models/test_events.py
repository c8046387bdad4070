"""Every event of the catalogue, recorded by the operation that it belongs to; and none where nothing changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import Access, enter, enter_team
from models.database import transaction
from models.errors import Conflict, DomainError, Invalid
from models.events import catalogue
from models.events.catalogue import CATALOGUE, Event
from models.events.record import EVENTS_RECORDED
from models.operations import members, tasks, teams, workspaces
from models.queries import activity as log
from models.queries import members as member_queries
from models.queries import tasks as task_queries
from models.queries import teams as team_queries
from models.queries import users
from models.queries import workspaces as workspace_queries
from models.queries.activity import ActivityFilter
from models.queries.paging import Page
from models.tables import Task, Team, TeamMember, Workspace
from tests.factories import Person, TeamSetting, drain, make_person

ORIGIN = Origin("192.0.2.1", "a test", "the-request")


@dataclass
class Scene:
    """A team in which something is about to happen, as the person who does it sees it."""

    setting: TeamSetting
    actor: Person
    task_id: UUID
    newcomer: Person
    session: Session
    access: Access

    @property
    def team(self) -> Team:
        return team_queries.get(self.session, self.access, for_update=True)

    @property
    def workspace(self) -> Workspace:
        return workspace_queries.get(self.session, self.access, self.setting.workspace_id, for_update=True)

    @property
    def task(self) -> Task:
        return task_queries.get(self.session, self.access, self.task_id, for_update=True)

    def member(self, role: str) -> TeamMember:
        return member_queries.get(self.session, self.access, self.setting.people[role].id)

    @property
    def args(self) -> tuple[Session, Access]:
        return self.session, self.access

    def started(self) -> Task:
        """The task in processing, with the event of that out of the way."""
        self.session.execute(
            text("UPDATE tasks SET status = 'processing', started_at = now() WHERE id = :id"),
            {"id": self.task_id},
        )
        return self.task

    def said_of_the_task(self, status: str, **more: Any) -> dict[str, Any]:
        return {
            "task_id": str(self.task_id),
            "workspace_id": str(self.setting.workspace_id),
            "title": "Write",
            "status": status,
            "assignee_id": None,
            **more,
        }

    @property
    def said_of_the_team(self) -> dict[str, Any]:
        return {"team_id": str(self.setting.id), "name": "Design"}

    @property
    def said_of_the_workspace(self) -> dict[str, Any]:
        return {"workspace_id": str(self.setting.workspace_id), "name": "Research"}


@dataclass
class Case:
    type: str
    act: Callable[[Scene], Any]
    payload: Callable[[Scene], dict[str, Any]]
    sentence: str
    by: str = "owner"


def transfer(scene: Scene) -> None:
    teams.transfer_ownership(*scene.args, scene.team, user_id=scene.setting.member.id)


def add(scene: Scene) -> None:
    newcomer = users.get(scene.session, scene.newcomer.id)
    members.add(*scene.args, scene.team, user=newcomer, role="viewer")


CASES = [
    Case(
        "team_updated",
        lambda scene: teams.update(*scene.args, scene.team, name="Art"),
        lambda scene: {**scene.said_of_the_team, "name": "Art", "changes": {"name": ["Design", "Art"]}},
        "Owner changed the team Art",
    ),
    Case(
        "team_deleted",
        lambda scene: teams.delete(*scene.args, scene.team),
        lambda scene: scene.said_of_the_team,
        "Owner deleted the team Design",
    ),
    Case(
        "ownership_transferred",
        transfer,
        lambda scene: {
            **scene.said_of_the_team,
            "from_user_id": str(scene.setting.owner.id),
            "to_user_id": str(scene.setting.member.id),
        },
        "Owner handed the team Design over to another owner",
    ),
    Case(
        "plan_changed",
        lambda scene: teams.change_plan(*scene.args, scene.team, plan="enterprise"),
        lambda scene: {
            **scene.said_of_the_team,
            "from_plan": "pro",
            "to_plan": "enterprise",
            "max_members": 100_000,
        },
        "Owner changed the plan from pro to enterprise",
    ),
    Case(
        "member_added",
        add,
        lambda scene: {"user_id": str(scene.newcomer.id), "role": "viewer"},
        "Owner added Newcomer as viewer",
    ),
    Case(
        "member_removed",
        lambda scene: members.remove(*scene.args, scene.team, scene.member("viewer")),
        lambda scene: {"user_id": str(scene.setting.viewer.id), "role": "viewer"},
        "Owner removed Viewer",
    ),
    Case(
        "member_left",
        lambda scene: members.remove(*scene.args, scene.team, scene.member("viewer")),
        lambda scene: {"user_id": str(scene.setting.viewer.id), "role": "viewer"},
        "Viewer left the team",
        by="viewer",
    ),
    Case(
        "member_role_changed",
        lambda scene: members.change_role(*scene.args, scene.team, scene.member("viewer"), role="member"),
        lambda scene: {"user_id": str(scene.setting.viewer.id), "role": "member", "from_role": "viewer"},
        "Owner changed the role of Viewer from viewer to member",
    ),
    Case(
        "workspace_created",
        lambda scene: workspaces.create(*scene.args, name="Lab").id,
        lambda _: {"name": "Lab"},
        "Owner created the workspace Lab",
    ),
    Case(
        "workspace_updated",
        lambda scene: workspaces.update(*scene.args, scene.workspace, name="Lab", description=None),
        lambda scene: {
            **scene.said_of_the_workspace,
            "name": "Lab",
            "changes": {"name": ["Research", "Lab"]},
        },
        "Owner changed the workspace Lab",
    ),
    Case(
        "workspace_deleted",
        lambda scene: workspaces.delete(*scene.args, scene.workspace),
        lambda scene: {**scene.said_of_the_workspace, "tasks_deleted": 1},
        "Owner deleted the workspace Research with its 1 tasks",
    ),
    Case(
        "task_created",
        lambda scene: (
            tasks.create(*scene.args, scene.workspace, title="Read", assignee_id=scene.setting.member.id).id
        ),
        lambda scene: {
            "workspace_id": str(scene.setting.workspace_id),
            "title": "Read",
            "status": "pending",
            "assignee_id": str(scene.setting.member.id),
        },
        "Owner created the task Read",
    ),
    Case(
        "task_updated",
        lambda scene: tasks.update(*scene.args, scene.task, type="code"),
        lambda scene: scene.said_of_the_task("pending", changes={"type": ["general", "code"]}),
        "Owner changed the task Write",
    ),
    Case(
        "task_started",
        lambda scene: tasks.start(*scene.args, scene.task),
        lambda scene: scene.said_of_the_task("processing"),
        "Member started the task Write",
        by="member",
    ),
    Case(
        "task_completed",
        lambda scene: tasks.complete(*scene.args, scene.started(), result={"a": 1}, llm_tokens_used=42),
        lambda scene: scene.said_of_the_task("completed", llm_tokens_used=42),
        "Owner completed the task Write with 42 tokens",
    ),
    Case(
        "task_failed",
        lambda scene: tasks.fail(*scene.args, scene.started(), error="no {braces} meant"),
        lambda scene: scene.said_of_the_task("failed", error="no {braces} meant"),
        "Owner reported the task Write as failed: no {braces} meant",
    ),
    Case(
        "task_cancelled",
        lambda scene: tasks.cancel(*scene.args, scene.task),
        lambda scene: scene.said_of_the_task("cancelled"),
        "Owner cancelled the task Write",
    ),
    Case(
        "task_deleted",
        lambda scene: tasks.delete(*scene.args, scene.task),
        lambda scene: scene.said_of_the_task("pending"),
        "Owner deleted the task Write",
    ),
]
ELSEWHERE = {"team_created"}  # there is no team yet to set a scene in


@pytest.fixture
def scene_by(app: Flask, team: TeamSetting) -> Callable[[Session, str], Scene]:
    task_id = UUID(team.task(title="Write")["id"])
    newcomer = make_person(app, "Newcomer")
    drain()

    def set_scene(session: Session, by: str) -> Scene:
        actor = team.owner if by == "owner" else team.people[by]
        access = enter_team(session, Credential(actor.token, ORIGIN), team.id)
        return Scene(team, actor, task_id, newcomer, session, access)

    return set_scene


def outbox(team_id: UUID) -> list[Any]:
    with transaction() as session:
        return list(
            session.execute(text("SELECT * FROM outbox WHERE team_id = :id ORDER BY id"), {"id": team_id})
        )


def newest(access: Access) -> log.ActivityView:
    with transaction() as session:
        return log.in_team(session, access, ActivityFilter(), Page(limit=1)).items[0]


def test_the_table_below_holds_every_event() -> None:
    assert sorted(CATALOGUE) == sorted([*ELSEWHERE, *(case.type for case in CASES)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
def test_a_change_records_its_event(case: Case, scene_by: Callable[[Session, str], Scene]) -> None:
    with transaction() as session:
        scene = scene_by(session, case.by)
        made = case.act(scene)
        assert session.info[EVENTS_RECORDED]
    expected = case.payload(scene)
    if isinstance(made, UUID):
        expected[CATALOGUE[case.type].resource_type + "_id"] = str(made)

    (row,) = outbox(scene.setting.id)
    declared = CATALOGUE[case.type]
    assert (row.action, row.user_id, row.details) == (case.type, scene.actor.id, expected)
    assert (row.resource_type, str(row.resource_id)) == (
        declared.resource_type,
        expected[f"{declared.resource_type}_id"],
    )
    assert Origin(str(row.ip_address), row.user_agent, row.request_id) == ORIGIN

    assert drain() == 1
    shown = newest(scene.access)
    assert (shown.row.action, shown.row.details, shown.summary) == (case.type, expected, case.sentence)
    assert (shown.row.id, shown.row.created_at) == (row.event_id, row.created_at)


def test_a_team_begins_with_the_event_of_its_making(app: Flask) -> None:
    person = make_person(app, "Ada")
    drain()
    with transaction() as session:
        team_id = teams.create(session, enter(session, Credential(person.token, ORIGIN)), name="Alone").id
    (row,) = outbox(team_id)
    assert (row.action, row.user_id) == ("team_created", person.id)
    assert row.details == {"team_id": str(team_id), "name": "Alone"}
    assert drain() == 1
    with transaction() as session:
        access = person.enter(session, team_id)
    shown = newest(access)
    assert (shown.row.seq, shown.summary) == (1, "Ada created the team Alone")


UNCHANGED: dict[str, Callable[[Scene], Any]] = {
    "team": lambda scene: teams.update(*scene.args, scene.team, name="Design"),
    "plan": lambda scene: teams.change_plan(*scene.args, scene.team, plan="pro"),
    "role": lambda scene: members.change_role(*scene.args, scene.team, scene.member("viewer"), role="viewer"),
    "workspace": lambda scene: workspaces.update(
        *scene.args, scene.workspace, name="Research", description=None
    ),
    "task": lambda scene: tasks.update(*scene.args, scene.task, title="Write", assignee_id=None),
    "nothing": lambda scene: tasks.update(*scene.args, scene.task),
}


@pytest.mark.parametrize("act", UNCHANGED.values(), ids=UNCHANGED)
def test_no_event_when_nothing_changed(
    act: Callable[[Scene], Any], scene_by: Callable[[Session, str], Scene]
) -> None:
    with transaction() as session:
        scene = scene_by(session, "owner")
        act(scene)
        assert EVENTS_RECORDED not in session.info
    assert outbox(scene.setting.id) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
def test_no_event_for_a_change_that_rolled_back(
    case: Case, scene_by: Callable[[Session, str], Scene]
) -> None:
    def change_and_fall() -> None:
        with transaction() as session:
            case.act(scene_by(session, case.by))
            raise RuntimeError("the process fell over")

    with pytest.raises(RuntimeError):
        change_and_fall()
    with transaction() as session:
        scene = scene_by(session, "owner")
        assert (scene.team.name, scene.team.plan, scene.task.status) == ("Design", "pro", "pending")
        assert len(member_queries.in_team(session, scene.access, Page()).items) == 4
    assert outbox(scene.setting.id) == []


REFUSED: dict[str, tuple[Callable[[Scene], Any], type[DomainError]]] = {
    "complete before start": (lambda scene: tasks.complete(*scene.args, scene.task), Conflict),
    "an assignee from elsewhere": (
        lambda scene: tasks.update(*scene.args, scene.task, assignee_id=scene.newcomer.id),
        Invalid,
    ),
    "a role that is none": (
        lambda scene: members.change_role(*scene.args, scene.team, scene.member("viewer"), role="king"),
        Invalid,
    ),
    "to its owner": (
        lambda scene: teams.transfer_ownership(*scene.args, scene.team, user_id=scene.actor.id),
        Conflict,
    ),
}


@pytest.mark.parametrize(("act", "error"), REFUSED.values(), ids=REFUSED)
def test_no_event_for_a_change_that_is_refused(
    act: Callable[[Scene], Any], error: type[DomainError], scene_by: Callable[[Session, str], Scene]
) -> None:
    def try_it() -> None:
        with transaction() as session:
            act(scene_by(session, "owner"))

    with pytest.raises(error):
        try_it()
    with transaction() as session:
        assert outbox(scene_by(session, "owner").setting.id) == []


def test_a_type_that_is_declared_twice_fails_at_import() -> None:
    with pytest.raises(ValueError, match="team_created is declared twice"):

        @catalogue.event("team_created", "team", "{actor} made {resource}")
        class Again(Event):
            team_id: UUID

    assert CATALOGUE["team_created"] is catalogue.TeamCreated


def test_a_sentence_uses_no_field_that_its_event_lacks() -> None:
    for declared in CATALOGUE.values():
        known = {"actor", "resource", *declared.__dataclass_fields__}
        declared.sentence.format(**dict.fromkeys(known, "x"))
        assert declared.id_field in known


def test_a_row_that_this_release_can_not_read_still_has_a_sentence() -> None:
    assert log.summarize("agent_cloned", {}, actor="Ada", resource=None) == "agent_cloned"
    assert log.summarize("task_completed", {}, actor="Ada", resource="Write") == "Ada: task_completed Write"
    assert log.summarize("task_started", {}, actor=None, resource=None) == "The system started the task task"
