"""The hourly signing: every team whose log went on, whoever else signs and wherever it dies."""

import logging
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text

from models.database import engine
from models.operations import checkpoints
from models.settings import settings
from tests.audit import make_log, tamper
from tests.factories import TeamSetting, drain, fetch, make_team
from tests.models.concurrency import raised, together
from workers import activity as jobs


class FellOver(BaseException):
    """The worker's process ends here."""


def signed(*teams: TeamSetting) -> dict[UUID, list[int]]:
    rows = fetch(
        "SELECT team_id, seq FROM checkpoints WHERE team_id = ANY(:ids) ORDER BY seq",
        ids=[team.id for team in teams],
    )
    return {team.id: [row.seq for row in rows if row.team_id == team.id] for team in teams}


def heads(*teams: TeamSetting) -> dict[UUID, list[int]]:
    rows = fetch(
        "SELECT team_id, seq FROM activity_heads WHERE team_id = ANY(:ids)", ids=[team.id for team in teams]
    )
    return {row.team_id: [row.seq] for row in rows}


@pytest.fixture
def teams(app: Flask) -> list[TeamSetting]:
    made = [make_team(app, roles=()) for _ in range(3)]
    drain()
    return made


def test_every_team_is_signed_once(teams: list[TeamSetting], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TEAMS_AT_ONCE", 2)
    outcomes = together(*[jobs.sign_checkpoints.run] * 3)
    assert raised(outcomes) == []
    assert signed(*teams) == heads(*teams)
    make_log(teams[0], 1)
    jobs.sign_checkpoints()  # within the hour
    assert len(signed(teams[0])[teams[0].id]) == 1


def test_what_died_before_its_commit_is_signed_by_the_next(
    teams: list[TeamSetting], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = checkpoints.sign

    def dying(*arguments: Any, **named: Any) -> Any:
        sign(*arguments, **named)
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "sign", dying)
        with pytest.raises(FellOver):
            jobs.sign_checkpoints()
    assert signed(*teams) == {team.id: [] for team in teams}
    for _ in range(2):
        jobs.sign_checkpoints()
        assert signed(*teams) == heads(*teams)


def test_a_long_log_is_signed_in_bounded_transactions(
    teams: list[TeamSetting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ROWS_AT_ONCE", 5)
    last = make_log(teams[0], 20)
    assert jobs.sign_all_of(teams[0].id) == len(signed(teams[0])[teams[0].id])
    assert signed(teams[0])[teams[0].id] == [*range(5, last, 5), last]


def test_a_log_that_does_not_verify_is_reported_and_the_others_signed(
    teams: list[TeamSetting], caplog: pytest.LogCaptureFixture
) -> None:
    bad = min(teams, key=lambda team: team.id)
    tamper("UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 2", id=bad.id)
    with caplog.at_level(logging.ERROR):
        jobs.sign_checkpoints()
    assert signed(*teams) == heads(*teams) | {bad.id: []}
    (line,) = [record.getMessage() for record in caplog.records if str(bad.id) in record.getMessage()]
    assert "does not verify" in line
    assert "'seq': 2" in line


def test_a_team_whose_head_is_locked_for_long_waits_for_the_next_run(
    teams: list[TeamSetting], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = checkpoints.sign

    def impatient(session: Any, *arguments: Any, **named: Any) -> Any:
        session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        return sign(session, *arguments, **named)

    monkeypatch.setattr(checkpoints, "sign", impatient)
    held = teams[0].id
    with engine().connect() as holder, holder.begin():
        holder.execute(text("SELECT FROM activity_heads WHERE team_id = :id FOR UPDATE"), {"id": held})
        jobs.sign_checkpoints()
        assert signed(*teams) == heads(*teams) | {held: []}
    jobs.sign_checkpoints()
    assert signed(*teams) == heads(*teams)


def test_without_a_key_nothing_is_signed_and_the_log_says_so(
    teams: list[TeamSetting], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIGNING_KEY", "")
    settings.cache_clear()
    try:
        jobs.sign_checkpoints()
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert signed(*teams) == {team.id: [] for team in teams}
    assert any("SIGNING_KEY is not set" in record.getMessage() for record in caplog.records)


def test_a_run_that_takes_long_makes_way(teams: list[TeamSetting], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LONGEST_RUN_S", -1.0)
    jobs.sign_checkpoints()
    assert signed(*teams) == {team.id: [] for team in teams}
