"""The search beside a plain filter in Python over the same rows, through every window and both ways; and the plans it gets."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.entry import Access
from models.database import engine, transaction
from models.errors import Invalid
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import activity_counts
from models.queries import activity, activity_search
from models.queries.activity_filters import SEPARATOR, ActivityFilter
from models.queries.activity_search import Extent
from models.queries.paging import Page, TwoWaySlice
from models.tables import OutboxEvent
from tests.factories import Person, TeamSetting, drain, fold_log, join, make_agent, make_team

CHARACTERS = "aAbB1 %_\\äÄßİςΣ日本é\u0301-.'\"\n🙂"
MONTHS = 5
ROWS = 150


@dataclass(frozen=True)
class Row:
    seq: int
    created_at: datetime
    user_id: UUID
    workspace_id: UUID
    action: str
    texts: tuple[str, ...]
    """All that it says, each lower-cased by the database."""
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    team: TeamSetting
    rows: list[Row]
    """Newest first."""
    patterns: list[str]


def _values(details: Any) -> Iterator[Any]:
    if isinstance(details, dict):
        details = list(details.values())
    if isinstance(details, list):
        for each in details:
            yield from _values(each)
    else:
        yield details


def is_id(value: Any) -> bool:
    try:
        return str(UUID(str(value))) == str(value).lower()
    except ValueError:
        return False


def lowered(session: Session, texts: list[str]) -> list[str]:
    """As the database does: Python's own rules differ for a few letters."""
    statement = text(
        "SELECT lower(t) FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS u (t, n) ORDER BY n"
    )
    return list(session.scalars(statement, {"texts": texts}))


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def fill(team: TeamSetting, people: list[Person]) -> None:
    """Rows over some months whose times are not quite in the order of their numbers, with all kinds of text."""
    dice = random.Random(7)
    begin = datetime.now(UTC).replace(day=3) - timedelta(days=30 * MONTHS)
    rows = []
    for number in range(ROWS):
        said = "".join(dice.choices(CHARACTERS, k=dice.randint(1, 9)))
        at = begin + timedelta(days=30 * MONTHS * number / ROWS, hours=dice.choice([0, 0, -60, 50]))
        rows.append(
            {
                "event_id": uuid7(),
                "team_id": team.id,
                "action": dice.choice(["task_created", "task_failed", "old_action"]),
                "user_id": dice.choice(people).id,
                "workspace_id": dice.choice([team.workspace_id, None]),
                "resource_type": "user" if number % 10 == 0 else "task",
                "resource_id": people[0].id if number % 10 == 0 else uuid7(),
                "resource_name": None if number % 10 == 0 else said[::-1] + "x",
                "details": {
                    "task_id": uuid7(),
                    "changes": {
                        "title": [said, None, {"a": [True, number, 1.5]}],
                        "assignee_id": [None, people[1].id],
                    },
                    "error": said * dice.choice([0, 1, 30]),
                },
                "created_at": at,
            }
        )
    with transaction() as session:
        session.connection().execute(insert(OutboxEvent.__table__), rows)  # type: ignore[arg-type]
    drain()


@pytest.fixture(scope="module")
def corpus(app: Flask) -> Corpus:
    team = make_team(app)
    people = [team.owner, team.member, join(team, "viewer", "Zoë%_ÄÖ")]
    make_agent(team, name="Weiß\\Hut")
    fill(team, people)
    with transaction() as session:
        logged = session.execute(
            text("""
            SELECT l.*, array_remove(ARRAY[a.name, s.name, g.name], NULL) AS names FROM activity_logs l
            LEFT JOIN users a ON a.id = l.user_id
            LEFT JOIN users s ON s.id = l.resource_id AND l.resource_type = 'user'
            LEFT JOIN agents g ON g.id = l.agent_id WHERE l.team_id = :id ORDER BY l.seq DESC
            """),
            {"id": team.id},
        ).all()
        rows = []
        for row in logged:
            values = [value for value in _values(row.metadata) if value is not None]
            said = [row.action, row.resource_name, *row.names, *(v for v in values if not is_id(v))]
            texts = lowered(session, [as_text(value) for value in said if value is not None])
            ids = tuple(str(value) for value in values if is_id(value))
            rows.append(
                Row(row.seq, row.created_at, row.user_id, row.workspace_id, row.action, tuple(texts), ids)
            )
    patterns = [text for row in rows for text in row.texts if text.strip()]
    return Corpus(team, rows, patterns)


def naive(corpus: Corpus, wanted: ActivityFilter, session: Session) -> list[int]:
    (pattern,) = lowered(session, [wanted.q or ""])

    def matches(row: Row) -> bool:
        return (
            (not wanted.action or row.action in wanted.action)
            and wanted.user_id in (None, row.user_id)
            and wanted.workspace_id in (None, row.workspace_id)
            and (wanted.since is None or row.created_at >= wanted.since)
            and (wanted.until is None or row.created_at < wanted.until)
            and (any(pattern in text for text in row.texts) or pattern in row.ids)
        )

    return [row.seq for row in corpus.rows if matches(row)]


Read = Callable[[ActivityFilter, Page, datetime | None], TwoWaySlice[Any]]


def reader(session: Session, access: Access) -> Read:
    return lambda wanted, page, at: activity.in_team(session, access, wanted, page, at=at)


def seqs(page: TwoWaySlice[Any]) -> list[int]:
    return [view.row.seq for view in page.items]


def after(key: Any, limit: int, *, backwards: bool = False) -> Page:
    return Page(limit, tuple(map(str, key)), backwards)


def forth(
    read: Read, wanted: ActivityFilter, limit: int, at: datetime | None = None
) -> tuple[list[int], Any]:
    """All pages from the newest on (or from a time), and the last one's key back."""
    found: list[int] = []
    page = read(wanted, Page(limit), at)
    for _ in range(1_000):
        assert len(page.items) <= limit
        found += seqs(page)
        if page.next_key is None:
            return found, page.previous_key
        page = read(wanted, after(page.next_key, limit), None)
    raise AssertionError("it does not end")


def back(read: Read, wanted: ActivityFilter, limit: int, key: Any) -> list[int]:
    found: list[int] = []
    for _ in range(1_000):
        page = read(wanted, after(key, limit, backwards=True), None)
        found = seqs(page) + found
        if page.previous_key is None:
            return found
        key = page.previous_key
    raise AssertionError("it does not end")


@pytest.fixture(params=["not counted", "half counted", "counted"])
def counted(request: pytest.FixtureRequest, corpus: Corpus) -> str:
    """How far the fold came: what a search knows of the log's days."""
    with transaction() as session:
        for table in ("folds", "counts", "days", "people"):
            session.execute(text(f"DELETE FROM activity_{table} WHERE team_id = :id"), {"id": corpus.team.id})
    if request.param == "counted":
        fold_log()
    if request.param == "half counted":
        with transaction() as session:
            activity_counts.fold(session, limit=ROWS // 2, teams=10_000)
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["in small windows", "as it is"])
def _windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        for name, value in (
            ("FIRST_SPAN", 9),
            ("WIDER", 2),
            ("NEWEST", 7),
            ("WALKED", 20),
            ("MONTHS", (1, 1)),
        ):
            monkeypatch.setattr(activity_search, name, value)


def wanted_of(corpus: Corpus) -> st.SearchStrategy[ActivityFilter]:
    piece = st.sampled_from(corpus.patterns).flatmap(
        lambda said: st.tuples(st.integers(0, len(said) - 1), st.integers(1, 6)).map(
            lambda cut: said[cut[0] : cut[0] + cut[1]]
        )
    )
    q = st.one_of(
        st.none(),
        piece,
        piece.map(str.upper),
        st.text(CHARACTERS, min_size=1, max_size=4),
        st.sampled_from(
            [*corpus.rows[3].ids, corpus.rows[9].ids[0].upper(), corpus.rows[9].ids[0][:20], "zoë%_", "owner"]
        ),
    )
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    times = st.sampled_from([*(row.created_at for row in corpus.rows), *ends])
    return st.builds(
        ActivityFilter,
        action=st.sampled_from([(), ("task_failed",), ("old_action", "task_created"), ("none",)]),
        user_id=st.sampled_from([None, None, corpus.team.owner.id, corpus.team.admin.id]),
        workspace_id=st.sampled_from([None, None, corpus.team.workspace_id]),
        since=st.none() | times,
        until=st.none() | times,
        q=q,
    )


@pytest.mark.usefixtures("counted", "_windows")
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_finds_what_a_filter_in_python_finds(corpus: Corpus, data: st.DataObject) -> None:
    wanted = data.draw(wanted_of(corpus))
    limit = data.draw(st.integers(4, 60))
    with transaction() as session:
        read = reader(session, corpus.team.owner.enter(session, corpus.team.id))
        expected = naive(corpus, wanted, session)
        assert forth(read, wanted, limit)[0] == expected
        assert back(read, wanted, limit, (0,)) == expected
        at = data.draw(st.sampled_from([row.created_at for row in corpus.rows]))
        times = {row.seq: row.created_at for row in corpus.rows}
        begins = max((seq for seq in expected if times[seq] <= at), default=0)
        found, _ = forth(read, wanted, limit, at)
        assert found == [seq for seq in expected if seq <= begins]
        jumped = read(wanted, Page(limit), at)
        assert jumped.previous_key is not None
        newer = back(read, wanted, limit, jumped.previous_key)
        assert newer == [seq for seq in expected if seq not in found]


def test_a_pattern_never_spans_two_values(corpus: Corpus) -> None:
    with transaction() as session:
        read = reader(session, corpus.team.owner.enter(session, corpus.team.id))
        for q in (SEPARATOR, f"task_created{SEPARATOR}", "task_created "):
            assert forth(read, ActivityFilter(q=q), 50)[0] == []


def test_names_are_found_as_they_are_today(app: Flask) -> None:
    team = make_team(app)
    drain()
    for folded in (False, True):
        name = f"Quinby {folded}"
        assert team.member.patch("/me", json={"name": name}).status_code == 200
        if folded:
            fold_log()
        with transaction() as session:
            read = reader(session, team.owner.enter(session, team.id))
            assert len(forth(read, ActivityFilter(q=name.upper()), 10)[0]) == 1  # who was added
            assert forth(read, ActivityFilter(q="quinby x"), 10)[0] == []


def happen(team: TeamSetting, count: int) -> None:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        for _ in range(count):
            record(session, access, WorkspaceCreated(workspace_id=team.workspace_id, name="Research"))
    drain()


def test_pages_hold_both_ways_while_rows_arrive(app: Flask) -> None:
    team = make_team(app, roles=())
    happen(team, 20)

    def read(page: Page) -> TwoWaySlice[Any]:
        with transaction() as session:
            return activity.in_team(session, team.owner.enter(session, team.id), ActivityFilter(), page)

    newest = read(Page(1)).items[0].row.seq
    assert read(Page(5)).previous_key is None
    pages = [read(Page(5))]
    while (key := pages[-1].next_key) is not None:
        happen(team, 2)
        pages.append(read(after(key, 5)))
    assert [seq for page in pages for seq in seqs(page)] == list(range(newest, 0, -1))
    returned = [read(after(pages[-1].previous_key, 5, backwards=True))]
    while (key := returned[-1].previous_key) is not None:
        happen(team, 1)
        returned.append(read(after(key, 5, backwards=True)))
    last = read(Page(1)).items[0].row.seq
    on_the_last_page = len(pages[-1].items)
    assert [seq for page in reversed(returned) for seq in seqs(page)] == list(
        range(last, on_the_last_page, -1)
    )
    assert seqs(read(after(returned[0].next_key, 5))) == seqs(pages[-1])
    happen(team, 1)
    assert seqs(read(after((last,), 5, backwards=True))) == [last + 1]
    assert seqs(read(after((2**63 - 1,), 5, backwards=True))) == []
    assert seqs(read(after((2**63 - 1,), 1))) == [last + 1]
    with pytest.raises(Invalid):
        read(after((2**63,), 5, backwards=True))


def test_a_search_that_takes_too_long_ends_and_leads_on(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_search, "PATIENCE_S", 0.0)
    monkeypatch.setattr(activity_search, "FIRST_SPAN", 9)
    wanted = ActivityFilter(action=["task_failed"])
    with transaction() as session:
        read = reader(session, corpus.team.owner.enter(session, corpus.team.id))
        page = read(replace(wanted, action=["none"]), Page(10), None)
        assert (page.items, page.next_key) == ([], (corpus.rows[8].seq,))
        assert forth(read, wanted, 10)[0] == naive(corpus, wanted, session)


def test_an_empty_log_has_an_empty_page(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, roles=())
    with transaction() as session:
        access = other.owner.enter(session, other.id)
        session.execute(text("DELETE FROM activity_heads WHERE team_id = :id"), {"id": other.id})
        page = activity.in_team(session, access, ActivityFilter(q="abc"), Page())
        assert (page.items, page.next_key, page.previous_key) == ([], None, None)
        session.rollback()


def test_the_planner_is_left_as_it_was(corpus: Corpus) -> None:
    with transaction() as session:
        access = corpus.team.owner.enter(session, corpus.team.id)
        names = list(activity_search.PLANNER)
        before = [session.scalar(text(f"SHOW {name}")) for name in names]
        activity.in_team(session, access, ActivityFilter(q="abc"), Page())
        assert [session.scalar(text(f"SHOW {name}")) for name in names] == before


def test_an_extent_is_divided_without_a_loss() -> None:
    for size in (1, 3, 9, 10, 11):
        for forwards in (True, False):
            near, far = Extent(1, 10).divided(size, forwards=forwards)
            both = [near, far] if forwards else [far, near]
            assert [n for each in both for n in range(each.first, each.last + 1)] == list(range(1, 11))
            assert near.last - near.first + 1 == min(size, 10)


# What a member may not see


@pytest.fixture
def hiding(app: Flask) -> tuple[TeamSetting, UUID]:
    """A team whose member does not see one of its workspaces."""
    team = make_team(app)
    made = team.owner.post(
        f"{team.path}/workspaces", json={"name": "Vault of zebras", "visibility": "private"}
    )
    room = UUID(made.json["id"])
    for _ in range(3):
        path = f"{team.path}/workspaces/{room}/tasks"
        assert team.owner.post(path, json={"title": "Feed the zebras"}).status_code == 201
    drain()
    return team, room


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.usefixtures("_windows")
def test_what_is_hidden_is_found_by_no_search(hiding: tuple[TeamSetting, UUID], folded: bool) -> None:
    team, room = hiding
    if folded:
        fold_log()
    searches = [
        ActivityFilter(q="zebra"),
        ActivityFilter(q="ze"),
        ActivityFilter(workspace_id=room),
        ActivityFilter(resource_type="workspace", resource_id=room),
        ActivityFilter(q=str(room)),
        ActivityFilter(action=["task_created"]),
    ]
    with transaction() as session:
        for person, expected in ((team.owner, [4, 4, 4, 1, 4, 3]), (team.member, [0] * 6)):
            read = reader(session, person.enter(session, team.id))
            assert [len(forth(read, wanted, 2)[0]) for wanted in searches] == expected
            everything = forth(read, ActivityFilter(), 2)[0]
            assert back(read, ActivityFilter(), 2, (0,)) == everything
            assert forth(read, ActivityFilter(), 2, datetime.now(UTC))[0] == everything
            seen = [view.row.workspace_id for view in read(ActivityFilter(), Page(100), None).items]
            assert (room in seen) == (person is team.owner)


# The plans


PLANS = {
    "ix_activity_logs_user_action": ActivityFilter(user_id=uuid7(), action=["task_failed"]),
    "ix_activity_logs_user": ActivityFilter(user_id=uuid7()),
    "ix_activity_logs_action": ActivityFilter(action=["rare"]),
    "ix_activity_logs_resource_id": ActivityFilter(resource_type="task", resource_id=uuid7()),
    "ix_activity_logs_resource_type": ActivityFilter(resource_type="rare"),
    "ix_activity_logs_workspace": ActivityFilter(workspace_id=uuid7()),
    "ix_activity_logs_workspace_action": ActivityFilter(workspace_id=uuid7(), action=["task_failed"]),
    "ix_activity_logs_agent": ActivityFilter(agent_id=uuid7()),
    "ix_activity_logs_api_key": ActivityFilter(api_key_id=uuid7()),
    "ix_activity_logs_ip_address": ActivityFilter(ip_address="10.9.9.9"),
    "ix_activity_logs_refused": ActivityFilter(outcome="denied"),
    "ix_activity_logs_words": ActivityFilter(q="zebra"),
    "pk_activity_logs": ActivityFilter(),
}
THIS_MONTH = f"{datetime.now(UTC):activity_logs_y%Ym%m}"
SEVERAL = ActivityFilter(action=["rare", "task_failed", "rarer"])
MANY = """
INSERT INTO activity_logs (team_id, seq, created_at, id, user_id, action, resource_type, resource_id, workspace_id, agent_id,
  api_key_id, metadata, ip_address, outcome, hash, words)
SELECT :team_id, n + 1000, now(), gen_random_uuid(), u.id, (ARRAY['task_created', 'task_failed', 'task_started'])[1 + n % 3],
       'task', gen_random_uuid(), CASE WHEN n % 2 = 0 THEN gen_random_uuid() END,
       CASE WHEN n % 5 = 0 THEN gen_random_uuid() END, CASE WHEN n % 5 = 1 THEN gen_random_uuid() END, '{}',
       ('10.0.' || n % 50 || '.' || n % 200)::inet, 'success', '', md5(n::text)
FROM generate_series(1, 6000) n
JOIN (SELECT id, row_number() OVER () AS r, count(*) OVER () AS c FROM (SELECT id FROM users LIMIT 10) AS few) u ON u.r = 1 + n % u.c
"""


@pytest.fixture(scope="module")
def many(app: Flask) -> Iterator[tuple[Session, Access]]:
    """A team with thousands of rows, and statistics of them, in a transaction that never commits."""
    team = make_team(app, roles=())
    drain()
    with Session(engine()) as session:
        access = team.owner.enter(session, team.id)
        session.execute(text(MANY), {"team_id": team.id})
        session.execute(text("UPDATE activity_heads SET seq = 7000 WHERE team_id = :id"), {"id": team.id})
        # Of (nearly) all rows: a sample of what other tests left makes now one index look cheaper, now another.
        session.execute(text("SET LOCAL default_statistics_target = 1000"))
        session.execute(text("ANALYZE activity_logs"))
        yield session, access
        session.rollback()


def plans_of(session: Session, access: Access, wanted: ActivityFilter, page: Page) -> list[str]:
    """How PostgreSQL goes about each statement that looks for the matching rows."""
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM activity_logs" in statement and "LIMIT" in statement:
            own = connection.connection.driver_connection.cursor()
            own.execute("EXPLAIN " + statement, parameters)
            plans.append("\n".join(line for (line,) in own.fetchall()))

    event.listen(engine(), "before_cursor_execute", explain)
    try:
        activity.in_team(session, access, wanted, page)
    finally:
        event.remove(engine(), "before_cursor_execute", explain)
    assert plans
    return plans


def in_this_month(session: Session, index: str) -> str:
    """What the index is called in this month's partition."""
    (name,) = session.scalars(
        text(
            "SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid JOIN pg_index i ON i.indexrelid = c.oid"
            " WHERE h.inhparent = CAST(:index AS regclass) AND i.indrelid = CAST(:month AS regclass)"
        ),
        {"index": index, "month": THIS_MONTH},
    )
    return str(name)


@pytest.mark.parametrize("deep", [False, True], ids=["first page", "deep page"])
@pytest.mark.parametrize("index", PLANS)
def test_each_filter_has_its_index(
    many: tuple[Session, Access], index: str, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_search, "NEWEST", 1)
    page = Page(50, ("4000",)) if deep else Page(50)
    by_words = index == "ix_activity_logs_words"
    wanted = PLANS[index]
    if wanted.user_id:  # of a stranger there is one row, at a guess, whichever index is asked
        acts = many[0].scalar(text("SELECT user_id FROM activity_logs ORDER BY seq DESC LIMIT 1"))
        wanted = replace(wanted, user_id=acts)
    plans = plans_of(*many, wanted, page)
    for plan in plans[1:] if by_words else plans:  # the first of which is of the newest rows
        assert f" {in_this_month(many[0], index)} " in plan, plan
        assert f"Seq Scan on {THIS_MONTH}" not in plan, plan
        if not by_words:
            assert not re.search(r"^ *(-> +)?(Incremental )?Sort  \(", plan, re.MULTILINE), plan


def test_several_actions_have_the_index_of_each(many: tuple[Session, Access]) -> None:
    (plan,) = plans_of(*many, SEVERAL, Page(50))
    assert f" {in_this_month(many[0], 'ix_activity_logs_action')} " in plan, plan
    assert "(action)::text = each.action" in plan
