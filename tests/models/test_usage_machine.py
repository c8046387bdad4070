"""
Anybody reports, corrects, reserves, backfills and folds, in any order and at once: the ledger, what waits, the daily figures
and the breakdowns say the same after every step, and what a plain sum says.

USAGE_EXAMPLES=200 USAGE_STEPS=60 looks further.
"""

import os
import threading
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.database import engine, transaction
from models.errors import Conflict, Invalid, QuotaExceeded, Unavailable
from models.operations import backfills, corrections, reservations, usage
from models.operations.usage import UsageEvent
from models.queries import backfills as backfill_queries
from models.queries import ledger, teams, usage_proof, usage_reports
from models.queries import reservations as reservation_queries
from models.queries.ledger import LedgerFilter
from models.queries.paging import Page
from models.queries.usage_reports import Group
from models.tables.usage import Metric, TokenPart
from tests.factories import TeamSetting, fold, make_team
from tests.models.concurrency import raised, together

EXAMPLES = int(os.environ.get("USAGE_EXAMPLES", "8"))
STEPS = int(os.environ.get("USAGE_STEPS", "30"))
FIRST, LAST = date(2026, 3, 1), date(2026, 3, 4)
EVER = {"since": date(2000, 1, 1), "until": date(2200, 1, 1)}
COUNTED = [Metric.llm_tokens_used, Metric.api_calls, Metric.tasks_created, Metric.storage_bytes]

Cell = tuple[date, Metric, str | None]


class UsageMachine(RuleBasedStateMachine):
    """Beside the product a Counter of what it should say by day, metric and model."""

    app: Flask

    def __init__(self) -> None:
        super().__init__()
        self.team = make_team(self.app, roles=())
        self.expected: Counter[Cell] = Counter()
        self.rows: dict[str, tuple[Cell, int]] = {}
        self.reversed: set[str] = set()
        self.staged: dict[UUID, dict[str, tuple[Cell, int]]] = {}
        self.applied: dict[UUID, list[str]] = {}
        self.reserved: dict[UUID, date] = {}

    def cells(self, drawn: list[tuple[int, Metric, int, str | None]]) -> list[tuple[UsageEvent, Cell, int]]:
        made = []
        for day, metric, number, name in drawn:
            model = name if metric is Metric.llm_tokens_used else None
            quantity = number if metric is Metric.storage_bytes else abs(number)
            at = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(days=day)
            event = UsageEvent(uuid7().hex, metric, quantity, at, None, model)
            made.append((event, (at.date(), metric, model), quantity))
        return made

    def take(self, name: str, cell: Cell, quantity: int) -> None:
        self.rows[name] = (cell, quantity)
        self.expected[cell] += quantity

    def give_back(self, name: str) -> None:
        cell, quantity = self.rows[name]
        self.expected[cell] -= quantity
        self.reversed.add(name)

    units = st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(COUNTED),
            st.integers(1, 2**63 - 1) | st.integers(1, 9) | st.integers(-9, -1),
            st.sampled_from([None, "large", "small"]),
        ),
        min_size=1,
        max_size=4,
    )

    @rule(drawn=units, again=st.booleans(), folders=st.integers(0, 3))
    def report(self, drawn: Any, again: bool, folders: int) -> None:
        made = self.cells(drawn)
        events = [event for event, _, _ in made]

        def send() -> int:
            with transaction() as session:
                access = self.team.owner.enter(session, self.team.id)
                return usage.report(session, access, events).accepted

        outcomes = together(*[send] * (2 if again else 1), *[fold] * folders)
        by_day: Counter[date] = Counter()
        for _, (day, metric, _), quantity in made:
            if metric is Metric.storage_bytes:
                by_day[day] += quantity
        if self.lowest(dict(by_day)) < 0:
            assert raised(outcomes) == [Invalid] * (2 if again else 1)
            return
        assert raised(outcomes) == []
        assert sum(outcomes[: 2 if again else 1]) == len(events)
        for event, cell, quantity in made:
            self.take(event.external_id, cell, quantity)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), times=st.integers(1, 3), folds=st.booleans())
    def correct(self, data: Any, times: int, folds: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        cell, quantity = self.rows[name]
        possible = name not in self.reversed
        if cell[1] is Metric.storage_bytes and self.lowest({cell[0]: -quantity}) < 0:
            possible = False

        def send() -> bool:
            with transaction() as session:
                access = self.team.owner.enter(session, self.team.id)
                team = teams.get(session, access, for_update=True)
                found = ledger.in_team(session, access, LedgerFilter(), Page(limit=10_000)).items
                (row,) = [each.row for each in found if each.external_id == name]
                corrections.correct(session, access, team, row.id, reason="wrong")
            return True

        outcomes = together(*[send] * times, *([fold] if folds else []))[:times]
        refused = times - 1 if possible else times
        assert raised(outcomes) == [Conflict] * refused
        if possible:
            self.give_back(name)

    def lowest(self, change: dict[date, int]) -> int:
        """The lowest level of storage, with a change."""
        level, lowest = 0, 0
        for day in sorted({cell[0] for cell in self.expected} | set(change)):
            level += sum(
                n for (at, m, _), n in self.expected.items() if at == day and m is Metric.storage_bytes
            )
            level += change.get(day, 0)
            lowest = min(lowest, level)
        return lowest

    @rule(drawn=units, known=st.booleans())
    def stage(self, drawn: Any, known: bool) -> None:
        made = self.cells(drawn)
        events = [event for event, _, _ in made]
        if known and self.rows:
            events.append(UsageEvent(min(self.rows), Metric.api_calls, 1, datetime(2026, 3, 1, tzinfo=UTC)))
        with transaction() as session:
            access = self.team.owner.enter(session, self.team.id)
            backfill = backfills.create(session, access, name="Set", reason="late")
            backfills.stage(session, access, backfill, events)
        self.staged[backfill.id] = {event.external_id: (cell, n) for event, cell, n in made}

    @precondition(lambda self: self.staged or self.applied)
    @rule(data=st.data(), times=st.integers(1, 3), folds=st.booleans())
    def decide(self, data: Any, times: int, folds: bool) -> None:
        id_ = data.draw(st.sampled_from(sorted([*self.staged, *self.applied])))
        operation = backfills.apply if id_ in self.staged else backfills.revert
        if id_ in self.staged:
            changes = list(self.staged[id_].values())
        else:
            changes = [
                (self.rows[n][0], -self.rows[n][1]) for n in self.applied[id_] if n not in self.reversed
            ]
        by_day: Counter[date] = Counter()
        for (day, metric, _), quantity in changes:
            if metric is Metric.storage_bytes:
                by_day[day] += quantity
        possible = self.lowest(dict(by_day)) >= 0

        def send() -> None:
            with transaction() as session:
                access = self.team.owner.enter(session, self.team.id)
                teams.get(session, access, for_update=True)
                operation(session, access, backfill_queries.get(session, access, id_, for_update=True))

        outcomes = together(*[send] * times, *([fold] if folds else []))[:times]
        assert raised(outcomes) == [Conflict] * (times - 1 if possible else times)
        if not possible:
            return
        if id_ in self.staged:
            for name, (cell, quantity) in self.staged.pop(id_).items():
                self.take(name, cell, quantity)
                self.applied.setdefault(id_, []).append(name)
        else:
            for name in self.applied.pop(id_):
                if name not in self.reversed:
                    self.give_back(name)

    @rule(tokens=st.integers(0, 100), times=st.integers(1, 3))
    def reserve_and_settle(self, tokens: int, times: int) -> None:
        with transaction() as session:
            access = self.team.owner.enter(session, self.team.id)
            made, _ = reservations.reserve(
                session, access, external_id=uuid7().hex, metric=Metric.llm_tokens_used, quantity=50
            )

        def send() -> None:
            with transaction() as session:
                access = self.team.owner.enter(session, self.team.id)
                row = reservation_queries.locked(session, access, made.id)
                reservations.settle(session, row, tokens={TokenPart.output: tokens})

        assert raised(together(*[send] * times, fold)) == []
        self.expected[made.created_at.astimezone(UTC).date(), Metric.llm_tokens_used, None] += tokens

    @rule()
    def fold_and_die(self) -> None:
        def die() -> None:
            with transaction() as session:
                usage.fold(session, 3)
                pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
                with engine().connect() as other:
                    other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

        with pytest.raises(Unavailable):
            die()

    @rule(limit=st.integers(1, 4))
    def fold_some(self, limit: int) -> None:
        with transaction() as session:
            usage.fold(session, limit)

    @invariant()
    def all_say_the_same(self) -> None:
        expected: Counter[tuple[date, Metric]] = Counter()
        for (day, metric, _), quantity in self.expected.items():
            expected[day, metric] += quantity
        with transaction() as session:
            access = self.team.owner.enter(session, self.team.id)
            counts = usage_proof.counts(session, self.team.id, **EVER)
            broken_down = usage_reports.breakdown(
                session, access, **EVER, by=[Group.date, Group.model], metric=None, page=Page(limit=10_000)
            ).items
        assert all(each.valid for each in counts.values())
        ours = {
            key: each.ledger for key, each in counts.items() if key[1] in COUNTED and not of_the_scene(key)
        }
        assert {key: n for key, n in ours.items() if n} == {key: n for key, n in expected.items() if n}
        found = {
            (row["date"], Metric(row["metric"]), row["model"]): row["quantity"]
            for row in broken_down
            if not of_the_scene((row["date"], Metric(row["metric"])))
        }
        assert {cell: n for cell, n in found.items() if n} == {
            cell: n for cell, n in self.expected.items() if n
        }


def of_the_scene(key: tuple[date, Metric]) -> bool:
    """Calls by which the team was made, today."""
    return key[1] is Metric.api_calls and key[0] > LAST


def test_every_sum_says_what_was_done(app: Flask) -> None:
    machine = type("Machine", (UsageMachine,), {"app": app})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def hold(team: TeamSetting, number: int, quantity: int) -> UUID:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        made, _ = reservations.reserve(
            session, access, external_id=str(number), metric=Metric.llm_tokens_used, quantity=quantity
        )
        return made.id


def test_reserving_settling_and_reporting_at_once_keep_to_a_hard_limit(bare_team: TeamSetting) -> None:
    """Whoever asks for more than what is left is refused, at every moment; so the limit is what was used, and no more."""
    change_plan(bare_team)
    highest = 0
    done = threading.Event()

    def work(number: int) -> None:
        for turn in range(5):
            try:
                id_ = hold(bare_team, number * 100 + turn, 90)
                with transaction() as session:
                    access = bare_team.owner.enter(session, bare_team.id)
                    row = reservation_queries.locked(session, access, id_)
                    if turn == 4:
                        reservations.release(session, row)
                    else:
                        reservations.settle(session, row, tokens={TokenPart.input: 30 + turn})
                with transaction() as session:
                    access = bare_team.owner.enter(session, bare_team.id)
                    usage.report(session, access, [UsageEvent(uuid7().hex, Metric.llm_tokens_used, 7)])
            except QuotaExceeded:
                pass

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, used(bare_team))

    def change_plans() -> None:
        for _ in range(20):
            change_plan(bare_team)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        workers = [lambda n=number: work(n) for number in range(20)]
        assert raised(together(*workers, change_plans)) == []
    finally:
        done.set()
        watcher.join()
    assert highest <= 1_000
    with transaction() as session:
        counts = usage_proof.counts(session, bare_team.id, **EVER)
    counted = sum(each.ledger for (_, metric), each in counts.items() if metric is Metric.llm_tokens_used)
    assert used(bare_team) == counted <= 1_000
    assert counted > 900


def change_plan(team: TeamSetting) -> None:
    """To one with the same limit, which is counted anew."""
    with transaction() as session:
        teams.get(session, team.owner.enter(session, team.id), for_update=True)
        session.execute(
            text("SELECT set_quotas(:id, ARRAY['llm_tokens_used'], ARRAY[1000]::numeric[])"), {"id": team.id}
        )


def used(team: TeamSetting) -> int:
    """What the limit says, and it is what the ledger and the open reservations say."""
    with transaction() as session:
        row = session.execute(
            text(
                "SELECT used, (SELECT coalesce(sum(quantity), 0) FROM usage_ledger WHERE team_id = :id AND metric = q.metric) + "
                "(SELECT coalesce(sum(quantity), 0) FROM usage_reservations WHERE team_id = :id AND state = 'open') AS sum "
                "FROM usage_quotas q WHERE team_id = :id"
            ),
            {"id": team.id},
        ).one()
    assert row.used == row.sum
    return int(row.used)
