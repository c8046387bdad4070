"""Claims under contention: each task is taken once and none is lost, whoever cancels, falls silent or dies meanwhile."""

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.entry import enter_team
from models.database import engine, transaction
from models.errors import Conflict, DomainError, NotFound, Unavailable
from models.operations import tasks
from models.operations.tasks import MAXIMUM_ATTEMPTS
from models.queries import tasks as queries
from models.queries import workspaces
from models.tables import Task
from tests.factories import Person, TeamSetting, make_team
from tests.models.concurrency import raised, together


def make_tasks(team: TeamSetting, count: int, **values: Any) -> list[UUID]:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        workspace = workspaces.get(session, access, team.workspace_id)
        return [tasks.create(session, access, workspace, title="Write", **values).id for _ in range(count)]


def claim(team: TeamSetting, by: Person | None = None, **options: Any) -> Task | None:
    with transaction() as session:
        return claim_in(session, team, by, **options)


def claim_in(session: Session, team: TeamSetting, by: Person | None = None, **options: Any) -> Task | None:
    access = enter_team(session, (by or team.member).credential, team.id, workspace_id=team.workspace_id)
    workspace = workspaces.get(session, access, team.workspace_id)
    return tasks.claim(session, access, workspace, **options)


def claimed(team: TeamSetting, by: Person | None = None, **options: Any) -> Task:
    task = claim(team, by, **options)
    assert task is not None
    return task


def act(team: TeamSetting, task_id: UUID, verb: Callable[..., None], **options: Any) -> str:
    """Does something to the task as an agent would, in a transaction of its own; the name of what it did."""
    with transaction() as session:
        access = team.member.enter(session, team.id)
        verb(session, access, queries.get(session, access, task_id, for_update=True), **options)
    return verb.__name__


def return_expired(limit: int = 1_000) -> int:
    with transaction() as session:
        return tasks.return_expired(session, limit)


def let_run_out(team: TeamSetting, age: str = "0 s") -> None:
    """The team's leases ran out so long ago; a negative age: they will."""
    with transaction() as session:
        session.execute(
            text(
                "UPDATE tasks SET lease_expires_at = now() - CAST(:age AS interval) "
                "WHERE team_id = :id AND lease_id IS NOT NULL"
            ),
            {"id": team.id, "age": age},
        )


def now(task_id: UUID) -> Any:
    """The task's row as it is."""
    with transaction() as session:
        return session.execute(text("SELECT * FROM tasks WHERE id = :id"), {"id": task_id}).one()


def events(team: TeamSetting, task_id: UUID | None = None) -> list[Any]:
    """What happened to the task, or to all of the team's, in order, save its making."""
    with transaction() as session:
        found = session.execute(
            text(
                """
                SELECT * FROM (
                  SELECT 1 AS part, id AS n, action, user_id, details, resource_id FROM outbox WHERE team_id = :id
                  UNION ALL
                  SELECT 0, seq, action, user_id, metadata, resource_id FROM activity_logs WHERE team_id = :id
                ) AS e WHERE action LIKE 'task\\_%' AND action <> 'task_created' ORDER BY part, n"""
            ),
            {"id": team.id},
        ).all()
    return [row for row in found if task_id in {None, row.resource_id}]


def test_twenty_claimers_share_fifty_tasks(team: TeamSetting) -> None:
    made = make_tasks(team, 50)

    def work() -> list[UUID]:
        mine = []
        while task := claim(team):
            mine.append(task.id)
        return mine

    outcomes = together(*[work] * 20)
    assert raised(outcomes) == []
    assert sorted(task_id for mine in outcomes for task_id in mine) == sorted(made)
    assert Counter((row.resource_id, row.action, row.details["attempt"]) for row in events(team)) == {
        (task_id, "task_started", 1): 1 for task_id in made
    }
    rows = [now(task_id) for task_id in made]
    assert {(row.status, row.attempts) for row in rows} == {("processing", 1)}
    assert len({row.lease_id for row in rows}) == 50


@pytest.mark.parametrize("round_", range(5))
def test_as_many_claimers_as_tasks_get_one_each(team: TeamSetting, round_: int) -> None:
    made = make_tasks(team, 20)
    outcomes = together(*[lambda: claimed(team).id] * 20)
    assert sorted(outcomes) == made
    assert claim(team) is None


@pytest.mark.parametrize("round_", range(5))
def test_as_many_claimers_as_leases_that_ran_out_get_one_each(team: TeamSetting, round_: int) -> None:
    made = make_tasks(team, 20)
    before = {claimed(team).lease_id for _ in made}
    let_run_out(team)
    outcomes = together(*[lambda: claimed(team)] * 20)
    assert sorted(task.id for task in outcomes) == made
    assert not before & {task.lease_id for task in outcomes}
    for task_id in made:
        assert [(row.action, row.details["attempt"]) for row in events(team, task_id)] == [
            ("task_started", 1),
            ("task_returned", 1),
            ("task_started", 2),
        ]


def test_the_oldest_comes_first_whatever_its_past(team: TeamSetting) -> None:
    first, second, third = make_tasks(team, 3)
    assert [claimed(team).id, claimed(team).id] == [first, second]
    let_run_out(team)
    assert claimed(team).id == first
    # One claim returns no more than it takes; the other is found by the next.
    assert (now(second).status, now(third).status) == ("processing", "pending")
    assert [claimed(team).id, claimed(team).id] == [second, third]
    assert claim(team) is None


def test_a_younger_one_that_ran_out_waits_behind_an_older_one(team: TeamSetting) -> None:
    (older,) = make_tasks(team, 1, type="code")
    (younger,) = make_tasks(team, 1, type="text")
    assert claimed(team, types=["text"]).id == younger
    let_run_out(team)
    assert claimed(team).id == older
    assert (now(younger).status, now(younger).attempts) == ("pending", 1)
    assert [row.action for row in events(team, younger)] == ["task_started", "task_returned"]


def test_a_task_is_for_its_assignee_or_for_anybody(team: TeamSetting) -> None:
    (others,) = make_tasks(team, 1, assignee_id=team.viewer.id)
    (mine,) = make_tasks(team, 1, assignee_id=team.member.id)
    (anyones,) = make_tasks(team, 1)
    assert [claimed(team).id, claimed(team).id] == [mine, anyones]
    assert claim(team) is None
    let_run_out(team)
    assert claimed(team, team.admin).id == anyones
    assert claim(team, team.admin) is None
    assert now(mine).status == "processing"  # it was not the admin's to return
    assert now(others).attempts == 0


def test_types_choose(team: TeamSetting) -> None:
    (code,) = make_tasks(team, 1, type="code")
    (text_,) = make_tasks(team, 1, type="text")
    assert claim(team, types=["picture"]) is None
    assert claimed(team, types=["picture", "text"]).id == text_
    let_run_out(team)
    assert claim(team, types=["picture"]) is None
    assert now(text_).status == "processing"
    assert claimed(team, types=["code", "text"]).id == code
    assert claimed(team, types=["code", "text"]).id == text_


def test_a_claim_stays_within_its_workspace(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, owner=team.owner, roles=())
    make_tasks(other, 2)
    assert claimed(other, team.owner).team_id == other.id
    let_run_out(other)
    assert claim(team, team.owner) is None
    assert [row.action for row in events(other)] == ["task_started"]


def kill_connection(session: Session) -> None:
    pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with engine().connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def raise_inside(_: Session) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("again", [False, True], ids=["first", "after a lease that ran out"])
@pytest.mark.parametrize(
    ("then", "error"),
    [(raise_inside, KeyboardInterrupt), (kill_connection, Unavailable)],
    ids=["raise", "kill"],
)
def test_a_claimer_that_dies_leaves_the_task_as_it_was(
    team: TeamSetting, then: Callable[[Session], None], error: type[BaseException], again: bool
) -> None:
    (task_id,) = make_tasks(team, 1)
    if again:
        claimed(team)
        let_run_out(team)
    before, happened = now(task_id), events(team)

    def die() -> None:
        with transaction() as session:
            assert claim_in(session, team) is not None
            then(session)

    with pytest.raises(error):
        die()
    assert (now(task_id), events(team)) == (before, happened)
    assert claimed(team).id == task_id
    assert now(task_id).attempts == (2 if again else 1)


def test_what_another_holds_is_passed_over_and_not_waited_for(team: TeamSetting) -> None:
    first, second = make_tasks(team, 2)
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        queries.get(session, access, first, for_update=True)
        assert claimed(team).id == second
        assert claim(team) is None
    assert claimed(team).id == first


@pytest.mark.parametrize("round_", range(20))
def test_claim_cancel_report_and_expiry_at_once(team: TeamSetting, round_: int) -> None:
    (task_id,) = make_tasks(team, 1)
    lost = claimed(team).lease_id
    let_run_out(team)
    outcomes = together(
        lambda: claim(team),
        lambda: claim(team),
        lambda: act(team, task_id, tasks.cancel),
        lambda: act(team, task_id, tasks.complete, lease_id=lost),
        lambda: act(team, task_id, tasks.fail, lease_id=lost, error="late"),
        lambda: act(team, task_id, tasks.heartbeat, lease_id=lost),
        return_expired,
    )
    *claims, cancelled, completed, failed, beaten, returned = outcomes
    # Cancelling is never in vain: pending or processing, it leads there. The lost lease is, whatever came first.
    assert cancelled == "cancel"
    assert raised([completed, failed, beaten]) == [Conflict] * 3
    assert raised([*claims, returned]) == []
    assert sum(task is not None for task in claims) <= 1
    row = now(task_id)
    assert (row.status, row.lease_id, row.lease_expires_at) == ("cancelled", None, None)
    actions = [event.action for event in events(team, task_id)]
    assert actions in (
        ["task_started", "task_cancelled"],
        ["task_started", "task_returned", "task_cancelled"],
        ["task_started", "task_returned", "task_started", "task_cancelled"],
    )
    assert row.attempts == actions.count("task_started")
    assert any(claims) is (actions.count("task_started") == 2)


@pytest.mark.parametrize("round_", range(20))
def test_one_end_of_a_live_lease_wins(team: TeamSetting, round_: int) -> None:
    (task_id,) = make_tasks(team, 1)
    lease_id = claimed(team).lease_id
    outcomes = together(
        lambda: act(team, task_id, tasks.complete, lease_id=lease_id, llm_tokens_used=5),
        lambda: act(team, task_id, tasks.complete, lease_id=lease_id, llm_tokens_used=7),
        lambda: act(team, task_id, tasks.fail, lease_id=lease_id, error="no luck"),
        lambda: act(team, task_id, tasks.cancel),
        lambda: act(team, task_id, tasks.complete, lease_id=uuid4()),
        lambda: claim(team),
        return_expired,
    )
    ends = [outcome for outcome in outcomes[:4] if isinstance(outcome, str)]
    assert len(ends) == 1
    assert raised(outcomes) == [Conflict] * 4
    assert outcomes[5] is None
    status = {"complete": "completed", "fail": "failed", "cancel": "cancelled"}[ends[0]]
    row = now(task_id)
    assert (row.status, row.attempts, row.lease_id) == (status, 1, None)
    assert [event.action for event in events(team, task_id)] == ["task_started", f"task_{status}"]
    with transaction() as session:
        counted = session.execute(
            text("SELECT count(*) FROM usage_ledger WHERE team_id = :id AND metric = 'tasks_completed'"),
            {"id": team.id},
        ).scalar_one()
    assert counted == (status == "completed")


def test_the_lease_is_judged_after_the_wait_for_the_row(team: TeamSetting) -> None:
    """By `now()` it would not have run out: the transaction began before."""
    (task_id,) = make_tasks(team, 1)
    lease_id = claimed(team).lease_id
    with transaction() as session:
        access = team.member.enter(session, team.id)
        session.execute(text("SELECT now()"))
        let_run_out(team)  # in a transaction that begins, and commits, later
        task = queries.get(session, access, task_id, for_update=True)
        with pytest.raises(Conflict):
            tasks.complete(session, access, task, lease_id=lease_id)
    assert now(task_id).status == "processing"


VERBS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "complete": (tasks.complete, {"result": 1}),
    "fail": (tasks.fail, {"error": "no luck"}),
    "heartbeat": (tasks.heartbeat, {}),
}


@pytest.mark.parametrize(("age", "holds"), [("-5 s", True), ("0 s", False), ("1 hour", False)])
@pytest.mark.parametrize("verb", VERBS)
def test_a_lease_holds_until_it_ran_out(team: TeamSetting, verb: str, age: str, holds: bool) -> None:
    (task_id,) = make_tasks(team, 1)
    lease_id = claimed(team).lease_id
    let_run_out(team, age)
    before, happened = now(task_id), len(events(team))
    operation, options = VERBS[verb]
    (outcome,) = together(lambda: act(team, task_id, operation, lease_id=lease_id, **options))
    if holds:
        assert outcome == verb
        assert now(task_id) != before
        assert len(events(team)) == happened + (verb != "heartbeat")
    else:
        assert isinstance(outcome, Conflict)
        assert (now(task_id), len(events(team))) == (before, happened)
    # Whether others may have it is the other side of the same moment.
    assert (claim(team) is not None) is not holds


@pytest.mark.parametrize("verb", VERBS)
def test_a_lease_that_another_took_over_is_lost(team: TeamSetting, verb: str) -> None:
    (task_id,) = make_tasks(team, 1)
    lost = claimed(team).lease_id
    let_run_out(team)
    taken = claimed(team, team.admin)
    before = now(task_id)
    operation, options = VERBS[verb]
    with pytest.raises(Conflict):
        act(team, task_id, operation, lease_id=lost, **options)
    assert now(task_id) == before
    assert act(team, task_id, operation, lease_id=taken.lease_id, **options) == verb


@pytest.mark.parametrize("verb", ["complete", "fail"])
def test_who_started_without_a_lease_needs_none_and_has_none(team: TeamSetting, verb: str) -> None:
    started, claimed_ = make_tasks(team, 2)
    act(team, started, tasks.start)
    lease_id = claimed(team).lease_id
    operation, options = VERBS[verb]
    for task_id, given in ((started, lease_id), (started, uuid4()), (claimed_, None), (claimed_, uuid4())):
        with pytest.raises(Conflict):
            act(team, task_id, operation, lease_id=given, **options)
        assert now(task_id).status == "processing"
    assert act(team, started, operation, **options) == verb
    assert act(team, claimed_, operation, lease_id=lease_id, **options) == verb


@pytest.mark.parametrize(
    ("attempts", "status"), [(MAXIMUM_ATTEMPTS - 1, "pending"), (MAXIMUM_ATTEMPTS, "failed")]
)
@pytest.mark.parametrize("by", ["claim", "worker"])
def test_the_last_attempt_that_runs_out_fails_the_task(
    team: TeamSetting, by: str, attempts: int, status: str
) -> None:
    (task_id,) = make_tasks(team, 1)
    for attempt in range(1, attempts + 1):
        assert claimed(team).attempts == attempt
        let_run_out(team)
    (other,) = make_tasks(team, 1)
    if by == "worker":
        return_expired()
    else:
        assert claimed(team).id == (task_id if status == "pending" else other)
    row = now(task_id)
    happened = events(team, task_id)
    if status == "failed":
        error = "The lease ran out 10 times; nobody completed it."
        assert (row.status, row.error, row.attempts, row.lease_id) == (
            "failed",
            error,
            MAXIMUM_ATTEMPTS,
            None,
        )
        assert (happened[-1].action, happened[-1].user_id) == ("task_failed", None)
        assert happened[-1].details["error"] == error
    else:
        returned = happened[-1] if by == "worker" else happened[-2]
        assert (returned.action, returned.user_id) == ("task_returned", None)
        assert (returned.details["attempt"], returned.details["status"]) == (attempts, "pending")
    assert Counter(event.action for event in happened)["task_returned"] == MAXIMUM_ATTEMPTS - 1


def test_the_return_takes_no_more_than_its_limit_and_the_longest_silent_first(team: TeamSetting) -> None:
    return_expired()
    first, second, third = make_tasks(team, 3)
    for age in ("1 hour", "3 hours", "2 hours"):
        task = claimed(team)
        with transaction() as session:
            session.execute(
                text("UPDATE tasks SET lease_expires_at = now() - CAST(:age AS interval) WHERE id = :id"),
                {"id": task.id, "age": age},
            )
        # Out of the claims' reach until it is returned.
        with transaction() as session:
            session.execute(
                text("UPDATE tasks SET assignee_id = :viewer WHERE id = :id"),
                {"id": task.id, "viewer": team.viewer.id},
            )
    assert return_expired(2) == 2
    assert [now(task_id).status for task_id in (first, second, third)] == ["processing", "pending", "pending"]
    assert return_expired(2) == 1
    assert return_expired(2) == 0
    row = now(first)
    assert (row.status, row.attempts, row.lease_id, row.started_at) == ("pending", 1, None, None)


@pytest.mark.parametrize("round_", range(5))
def test_any_number_of_workers_return_each_task_once(team: TeamSetting, round_: int) -> None:
    made = make_tasks(team, 10)
    for _ in made:
        claimed(team)
    let_run_out(team)

    def sweep() -> None:
        while return_expired(3):
            pass

    assert raised(together(*[sweep] * 6)) == []
    assert return_expired() == 0
    assert Counter((row.resource_id, row.action) for row in events(team)) == {
        (task_id, action): 1 for task_id in made for action in ("task_started", "task_returned")
    }


def test_a_change_keeps_the_lease_and_a_delete_ends_it(team: TeamSetting) -> None:
    (task_id,) = make_tasks(team, 1)
    claimed(team)
    before = now(task_id)
    act(team, task_id, tasks.update, title="Read", type="code", assignee_id=team.viewer.id)
    row = now(task_id)
    assert (row.title, row.status) == ("Read", "processing")
    assert (row.lease_id, row.lease_expires_at) == (before.lease_id, before.lease_expires_at)
    act(team, task_id, tasks.heartbeat, lease_id=row.lease_id)
    act(team, task_id, tasks.delete)
    with pytest.raises(NotFound):
        act(team, task_id, tasks.complete, lease_id=row.lease_id)


@pytest.mark.parametrize("round_", range(10))
def test_a_delete_against_a_claim_leaves_nothing_half_done(team: TeamSetting, round_: int) -> None:
    (task_id,) = make_tasks(team, 1)
    got, deleted = together(lambda: claim(team), lambda: act(team, task_id, tasks.delete))
    assert deleted == "delete"
    assert got is None or got.id == task_id
    actions = [event.action for event in events(team, task_id)]
    assert actions == (["task_started"] if got else []) + ["task_deleted"]


def test_a_refused_report_is_a_domain_error_that_says_the_state(team: TeamSetting) -> None:
    (task_id,) = make_tasks(team, 1)
    lease = claimed(team)
    for given, what_helps in ((None, "report on it with its lease_id"), (uuid4(), "Claim another task")):
        with pytest.raises(DomainError) as refused:
            act(team, task_id, tasks.complete, lease_id=given)
        assert refused.value.members == {"task_status": "processing"}
        assert what_helps in refused.value.detail
        assert str(lease.lease_id) not in refused.value.detail
