"""The lists: as many statements for many rows as for one, and pages that hold while the rows under them change."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.access.actor import Origin
from models.access.entry import Access, enter
from models.database import transaction
from models.errors import Invalid, NotFound
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import members, sessions, tasks, teams, usage, workspaces
from models.operations.usage import UsageEvent
from models.queries import activity as activity_queries
from models.queries import members as member_queries
from models.queries import tasks as task_queries
from models.queries import teams as team_queries
from models.queries import usage as usage_queries
from models.queries import users
from models.queries import workspaces as workspace_queries
from models.queries.activity_filters import ActivityFilter
from models.queries.paging import Page, Slice, keyset
from models.tables import Workspace
from models.tables.usage import Metric
from tests.factories import Person, TeamSetting, drain, fold, make_person, make_team
from tests.models.conftest import CountStatements

EVER = {"since": date(1990, 1, 1), "until": date(2200, 1, 1)}
List = Callable[[Session, Access, TeamSetting, Page], Slice[Any]]


def actor(session: Session, team: TeamSetting) -> Any:
    return enter(session, team.owner.credential)


LISTS: dict[str, List] = {
    "teams": lambda session, _, team, page: team_queries.mine(session, actor(session, team), page),
    "sessions": lambda session, _, team, page: users.sessions(session, actor(session, team), page),
    "members": lambda session, access, _, page: member_queries.in_team(session, access, page),
    "workspaces": lambda session, access, _, page: workspace_queries.in_team(session, access, page),
    "tasks": lambda session, access, team, page: task_queries.in_workspace(
        session, access, team.workspace_id, page
    ),
    "activity": lambda session, access, _, page: activity_queries.in_team(
        session, access, ActivityFilter(), page
    ),
    "usage": lambda session, access, _, page: usage_queries.daily(session, access, **EVER, page=page),
}
STATEMENTS = {"teams": 2, "sessions": 2, "members": 1, "workspaces": 1, "tasks": 2, "activity": 4, "usage": 1}
"""The list's own (the log's: where it ends, which rows match, the rows, and the planner as it was), with entering as an actor where it needs one, and the tasks' workspace."""


def grow(app: Flask, team: TeamSetting, by: int) -> None:
    """So many rows more in each list."""
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        signed_in = enter(session, team.owner.credential)
        locked = team_queries.get(session, access, for_update=True)
        workspace = workspace_queries.get(session, access, team.workspace_id)
        owner = users.get(session, team.owner.id)
        for number in range(by):
            guest = make_person(app, f"Guest{number}")
            members.add(session, access, locked, user=users.get(session, guest.id), role="viewer")
            workspaces.create(session, access, name=f"W{number}")
            tasks.create(session, access, workspace, title=f"T{number}", assignee_id=guest.id)
            teams.create(session, signed_in, name=f"Team {number}")
            sessions.open_session(session, owner, origin=Origin(), days=1)
            day = datetime.now(UTC) - timedelta(days=number + 1)
            usage.report(session, access, [UsageEvent(f"u{number}", Metric.llm_tokens_used, 1, day)])
    drain()


def see(item: Any) -> None:
    """Everything that a schema could show of the item; a relationship that is not loaded would raise here. (A row's words are the search's alone.)"""
    for row in (item, getattr(item, "row", None), getattr(item, "team", None), getattr(item, "user", None)):
        for name in dir(row):
            if not name.startswith("_") and name not in {"registry", "metadata", "words", "mentions"}:
                getattr(row, name)


def read(team: TeamSetting, name: str, page: Page) -> Slice[Any]:
    with transaction() as session:
        return LISTS[name](session, team.owner.enter(session, team.id), team, page)


def test_a_list_of_many_costs_the_statements_of_a_list_of_one(
    app: Flask, team: TeamSetting, statements: CountStatements
) -> None:
    def cost(name: str) -> tuple[int, int]:
        with transaction() as session:
            access = team.owner.enter(session, team.id)
            with statements() as seen:
                items = LISTS[name](session, access, team, Page(limit=100)).items
                for item in items:
                    see(item)
            return len(items), len(seen)

    grow(app, team, 1)
    few = {name: cost(name) for name in LISTS}
    grow(app, team, 7)  # one of whose reports is known already
    many = {name: cost(name) for name in LISTS}
    for name in LISTS:
        assert many[name][0] >= few[name][0] + 6, name
        assert few[name][1] == many[name][1] == STATEMENTS[name], name


@pytest.mark.parametrize("name", LISTS)
def test_pages_are_the_list_cut_in_pieces(app: Flask, team: TeamSetting, name: str) -> None:
    grow(app, team, 5)
    whole = read(team, name, Page(limit=100))
    assert whole.next_key is None
    keys = [identity(item) for item in whole.items]
    for limit in (1, 2, len(keys) - 1, len(keys)):
        assert walk(team, name, limit) == keys


def identity(item: Any) -> Any:
    for of in (
        lambda: item.team.id,
        lambda: item.row.seq if hasattr(item.row, "seq") else item.row.id,
        lambda: item.date,
        lambda: item.id,
    ):
        try:
            return of()  # type: ignore[no-untyped-call]
        except AttributeError:
            continue
    raise AssertionError(item)


def walk(team: TeamSetting, name: str, limit: int, between: Callable[[], object] = lambda: None) -> list[Any]:
    """The whole list, page by page; each key goes through text, as a cursor carries it."""
    seen: list[Any] = []
    after: tuple[str, ...] | None = None
    while True:
        page = read(team, name, Page(limit, after))
        assert len(page.items) <= limit
        seen += [identity(item) for item in page.items]
        if page.next_key is None:
            return seen
        after = tuple(str(part) for part in page.next_key)
        between()


def test_the_last_page_that_is_full_has_no_next(team: TeamSetting) -> None:
    page = read(team, "members", Page(limit=4))
    assert (len(page.items), page.next_key) == (4, None)
    page = read(team, "members", Page(limit=3))
    assert page.next_key == (page.items[-1].id,)


def create_workspaces(team: TeamSetting, count: int) -> list[UUID]:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        return [workspaces.create(session, access, name=f"W{number}").id for number in range(count)]


def delete_workspace(team: TeamSetting, workspace_id: UUID) -> None:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        workspaces.delete(
            session, access, workspace_queries.get(session, access, workspace_id, for_update=True)
        )


def test_rows_that_come_and_go_shift_no_page(bare_team: TeamSetting) -> None:
    made = create_workspaces(bare_team, 12)
    doomed = iter([made[1], made[3], made[4], made[9]])  # the last of a page, among the seen, the unseen
    staying = [
        bare_team.workspace_id,
        *(one for one in made if one not in {made[1], made[3], made[4], made[9]}),
    ]

    def disturb() -> None:
        if one := next(doomed, None):
            delete_workspace(bare_team, one)
            create_workspaces(bare_team, 1)

    seen = walk(bare_team, "workspaces", 2, disturb)
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in staying] == staying
    assert len(seen) >= len(staying) + 4  # what was made meanwhile comes at the end of an ascending list


def test_a_newest_first_list_ends_though_rows_are_added(bare_team: TeamSetting) -> None:
    drain()
    before = walk(bare_team, "activity", 100)

    def add() -> None:
        create_workspaces(bare_team, 1)
        drain()

    assert walk(bare_team, "activity", 1, add) == before


@pytest.mark.parametrize("descending", [False, True])
def test_ties_in_a_leading_column_lose_and_repeat_nothing(
    bare_team: TeamSetting,
    descending: bool,
) -> None:
    for _ in range(3):
        create_workspaces(bare_team, 5)  # of one transaction and so of one time
    with transaction() as session:
        statement = select(Workspace).where(Workspace.team_id == bare_team.id)
        columns = (Workspace.created_at, Workspace.id)
        found: list[Any] = []
        after: tuple[str, ...] | None = None
        while True:
            page = keyset(session, statement, Page(2, after), *columns, descending=descending)
            found += page.items
            if page.next_key is None:
                break
            after = tuple(str(part) for part in page.next_key)
    keys = [(row.created_at, row.id) for row in found]
    assert len(keys) == 16
    assert len({created_at for created_at, _ in keys}) == 4
    assert keys == sorted(set(keys), reverse=descending)


BROKEN: Sequence[tuple[str, ...]] = [
    (),
    ("",),
    ("x",),
    ("1", "2"),
    ("99999999999999999999999",),
    ("-99999999999999999999999",),
    ("٣", "x"),
    ("1e5",),
    ("infinity",),
    ("2026-13-01",),
    ("'; DROP TABLE users; --",),
]


@pytest.mark.parametrize("name", LISTS)
def test_a_key_that_is_none_is_invalid_and_nothing_worse(team: TeamSetting, name: str) -> None:
    for after in BROKEN:
        with pytest.raises(Invalid) as refused:
            read(team, name, Page(2, after))
        assert list(refused.value.errors) == ["cursor"]


@pytest.mark.parametrize("name", ["members", "workspaces", "tasks", "activity", "usage"])
def test_a_list_holds_its_own_teams_rows_alone(app: Flask, team: TeamSetting, name: str) -> None:
    other = make_team(app)
    grow(app, other, 2)
    grow(app, team, 1)
    mine = read(team, name, Page(limit=100)).items
    for item in mine:
        assert getattr(item, "team_id", getattr(getattr(item, "row", None), "team_id", team.id)) == team.id
    with transaction() as session, pytest.raises(NotFound):
        task_queries.in_workspace(session, team.owner.enter(session, team.id), other.workspace_id, Page())


def names(team: TeamSetting, wanted: ActivityFilter) -> list[str]:
    with transaction() as session:
        found = activity_queries.in_team(session, team.owner.enter(session, team.id), wanted, Page(limit=100))
    return [view.row.details["name"] for view in found.items if view.row.action == "workspace_created"]


def test_the_logs_filters_and_what_they_do_not_let_through(team: TeamSetting) -> None:
    def happen(person: Person, name: str) -> UUID:
        with transaction() as session:
            access = person.enter(session, team.id)
            workspace_id = workspaces.create(session, access, name=name).id
        drain()
        return workspace_id

    happen(team.owner, "50% off_a")
    middle = datetime.now(UTC)
    other = happen(team.member, "Back\\slash")
    everything = ["Back\\slash", "50% off_a", "Research"]
    assert names(team, ActivityFilter()) == everything
    assert names(team, ActivityFilter(action=["workspace_created", "task_created"])) == everything
    assert names(team, ActivityFilter(action=["task_created"])) == []
    assert names(team, ActivityFilter(user_id=team.member.id)) == ["Back\\slash"]
    assert names(team, ActivityFilter(resource_type="workspace", resource_id=other)) == ["Back\\slash"]
    assert names(team, ActivityFilter(resource_type="task", resource_id=other)) == []
    assert names(team, ActivityFilter(since=middle)) == ["Back\\slash"]
    assert names(team, ActivityFilter(until=middle)) == ["50% off_a", "Research"]
    assert names(team, ActivityFilter(q="50% OFF_")) == ["50% off_a"]
    for literally in ("%off", "5_%", "\\%"):
        assert names(team, ActivityFilter(q=literally)) == []
    assert names(team, ActivityFilter(q="\\")) == ["Back\\slash"]


def test_after_a_number_comes_what_follows_it(bare_team: TeamSetting) -> None:
    with transaction() as session:
        access = bare_team.owner.enter(session, bare_team.id)
        for _ in range(5):
            record(session, access, WorkspaceCreated(workspace_id=bare_team.workspace_id, name="x"))
    drain()
    with transaction() as session:
        head = activity_queries.heads(session, [bare_team.id])[bare_team.id]
        found = activity_queries.after(session, bare_team.id, head - 3, 2)
        assert [row.seq for row in found] == [head - 2, head - 1]
        assert activity_queries.after(session, bare_team.id, head, 10) == []
        assert activity_queries.heads(session, []) == {}


def test_a_days_usage_reads_the_same_before_and_after_the_fold(app: Flask, team: TeamSetting) -> None:
    grow(app, team, 4)
    before = [(day.date, day) for day in read(team, "usage", Page(limit=100)).items]
    fold()
    assert [(day.date, day) for day in read(team, "usage", Page(limit=100)).items] == before
    assert len(before) == 5
