"""A read of the log is noted once per reader and hour: on both sides of the hour, and whoever reads at the same time."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from flask import Flask
from sqlalchemy import event

from models.access.entry import Access, enter_team
from models.database import engine, transaction
from models.operations import activity_reads
from models.operations.activity_reads import Noted, note_read
from tests.factories import Person, TeamSetting, execute, fetch, make_agent, make_key, make_team
from tests.models.concurrency import raised, together
from workers import activity as job

HOUR = datetime(2026, 11, 26, 10, tzinfo=UTC)


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    return make_team(app)


@pytest.fixture(autouse=True)
def _as_a_new_process() -> Iterator[None]:
    activity_reads.noted.forget()
    yield
    activity_reads.noted.forget()


def read(person: Person, team: TeamSetting) -> Access:
    with transaction() as session:
        access = enter_team(session, person.credential, team.id)
        note_read(session, access)
    return access


def noted(team: TeamSetting) -> list[tuple[UUID, UUID | None, UUID | None]]:
    """Who, in the order in which it was."""
    return [
        (row.user_id, row.agent_id, row.api_key_id)
        for row in fetch(
            "SELECT user_id, agent_id, api_key_id FROM outbox WHERE team_id = :id AND action = 'activity_read' ORDER BY id",
            id=team.id,
        )
    ]


@pytest.mark.parametrize("forgetful", [False, True], ids=["one process", "a new process each time"])
def test_once_an_hour_on_both_sides(team: TeamSetting, forgetful: bool) -> None:
    times = ["00:00", "00:01", "59:59.999999"]
    for hour in (HOUR, HOUR + timedelta(hours=1), HOUR + timedelta(hours=5)):
        for at in times:
            minutes, seconds = at.split(":")
            if forgetful:
                activity_reads.noted.forget()
            with time_machine.travel(
                hour + timedelta(minutes=int(minutes), seconds=float(seconds)), tick=False
            ):
                read(team.viewer, team)
        (row,) = fetch("SELECT hour FROM activity_reads WHERE team_id = :id", id=team.id)
        assert row.hour == hour
    assert noted(team) == [(team.viewer.id, None, None)] * 3


def test_a_process_whose_clock_is_behind_notes_nothing_again(team: TeamSetting) -> None:
    for at in (HOUR, HOUR - timedelta(seconds=1), HOUR):
        activity_reads.noted.forget()
        with time_machine.travel(at, tick=False):
            read(team.viewer, team)
    assert len(noted(team)) == 1


def test_each_reader_for_itself(team: TeamSetting) -> None:
    agent = make_agent(team)
    of_agent = [make_key(team, team.owner, "activity:read", agent_id=agent["id"]) for _ in range(2)]
    key = make_key(team, team.owner, "activity:read")
    for reader in (team.owner, team.viewer, *of_agent, key, team.owner, key):
        read(reader, team)
    assert noted(team) == [
        (team.owner.id, None, None),
        (team.viewer.id, None, None),
        (team.owner.id, UUID(agent["id"]), UUID(of_agent[0].key_id)),
        (team.owner.id, None, UUID(key.key_id)),
    ]


def test_each_team_for_itself(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, owner=team.owner)
    for setting in (team, other, team, other):
        read(team.owner, setting)
    assert len(noted(team)) == len(noted(other)) == 1


def test_once_however_many_read_at_the_same_time(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_reads, "noted", Nothing())

    def reader() -> None:
        for _ in range(5):
            read(team.viewer, team)

    assert raised(together(*[reader] * 8)) == []
    assert len(noted(team)) == 1


class Nothing(Noted):
    """As if each read were another process's."""

    def holds(self, *_: Any) -> bool:
        return False


def test_a_read_that_failed_is_not_noted_and_the_next_one_is(team: TeamSetting) -> None:
    def fail() -> None:
        with transaction() as session:
            note_read(session, enter_team(session, team.viewer.credential, team.id))
            raise RuntimeError("no page was shown")

    with pytest.raises(RuntimeError):
        fail()
    assert noted(team) == []
    read(team.viewer, team)
    assert len(noted(team)) == 1


@pytest.fixture
def statements() -> Iterator[Callable[[], list[str]]]:
    """What SQLAlchemy sent since it was asked last."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    def taken() -> list[str]:
        taken, sent[:] = sent[:], []
        return taken

    event.listen(engine(), "before_cursor_execute", note)
    yield taken
    event.remove(engine(), "before_cursor_execute", note)


def test_what_was_noted_costs_no_statement(team: TeamSetting, statements: Callable[[], list[str]]) -> None:
    read(team.viewer, team)
    assert [statement.split()[2] for statement in statements() if "INSERT" in statement] == [
        "activity_reads",
        "outbox",
    ]
    read(team.viewer, team)
    assert [statement for statement in statements() if "activity_reads" in statement] == []
    activity_reads.noted.forget()  # as another process, which asks once
    read(team.viewer, team)
    assert len([statement for statement in statements() if "INSERT" in statement]) == 1


def test_a_process_remembers_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_reads, "REMEMBERED", 2)
    known = Noted()
    first, second, third = ((UUID(int=0), UUID(int=number)) for number in range(3))
    known.add(HOUR, first)
    known.add(HOUR, second)
    assert known.holds(HOUR, first)
    assert known.holds(HOUR, second)
    known.add(HOUR, third)
    assert (known.holds(HOUR, first), known.holds(HOUR, third)) == (False, True)
    later = HOUR + timedelta(hours=1)
    assert not known.holds(later, third)
    known.add(later, first)
    assert not known.holds(HOUR, first)


def test_the_list_notes_its_reader_once(team: TeamSetting) -> None:
    for _ in range(3):
        assert team.viewer.get(f"{team.path}/activity").status_code == 200
    assert team.viewer.get(f"{team.path}/activity?cursor=x").status_code == 422
    assert team.viewer.get(f"{team.path}/tasks/{UUID(int=0)}").status_code == 404
    assert noted(team) == [(team.viewer.id, None, None)]


def test_a_page_that_is_refused_is_not_noted(team: TeamSetting) -> None:
    assert team.viewer.get(f"{team.path}/activity?cursor=x").status_code == 422
    assert team.viewer.get(f"{team.path}/activity?limit=0").status_code == 422
    assert noted(team) == []


def test_hours_long_past_are_forgotten(team: TeamSetting) -> None:
    read(team.viewer, team)
    read(team.member, team)
    for person, ago in ((team.viewer, "24 hours 1 minute"), (team.member, "23 hours 59 minutes")):
        execute(
            "UPDATE activity_reads SET hour = now() - CAST(:ago AS interval) WHERE reader_id = :id",
            ago=ago,
            id=person.id,
        )
    job.expire_reads()
    left = fetch("SELECT reader_id FROM activity_reads WHERE team_id = :id", id=team.id)
    assert [row.reader_id for row in left] == [team.member.id]
