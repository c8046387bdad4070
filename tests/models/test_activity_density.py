"""The histogram's counts beside a plain count in Python; its steps; and what it falls back on."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import insert
from uuid_utils.compat import uuid7

from models.database import transaction
from models.queries import activity_density
from models.queries.activity_density import MOST_STEPS, STEPS, Density
from models.queries.activity_filters import ActivityFilter
from models.tables import OutboxEvent
from models.tables.workspaces import PRIVATE
from tests.factories import Person, TeamSetting, drain, fold_log, make_team

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    return make_team(app)


def happen(team: TeamSetting, times: Sequence[datetime], **values: Any) -> None:
    rows = [
        {
            "event_id": uuid7(),
            "team_id": team.id,
            "action": "task_created",
            "user_id": team.owner.id,
            "resource_type": "task",
            "resource_id": uuid7(),
            "details": {},
            "created_at": time,
            **values,
        }
        for time in times
    ]
    with transaction() as session:
        session.connection().execute(insert(OutboxEvent.__table__), rows)  # type: ignore[arg-type]
    drain()


def density(
    team: TeamSetting, since: datetime, until: datetime, by: Person | None = None, **wanted: Any
) -> Density:
    with transaction() as session:
        access = (by or team.owner).enter(session, team.id)
        return activity_density.count(session, access, ActivityFilter(**wanted), since=since, until=until)


def test_it_counts_what_lies_in_each_step_and_no_more(team: TeamSetting) -> None:
    dice = random.Random(1)
    times = sorted(NOW - timedelta(days=20 * dice.random()) for _ in range(200))
    happen(team, times)
    since, until = NOW - timedelta(days=12), NOW - timedelta(days=3)
    found = density(team, since, until)
    assert found.exact
    for bar in found.bars:
        begin, end = max(bar.since, since), min(bar.until, until)
        assert bar.count == sum(begin <= time < end for time in times)
    assert found.total == sum(since <= time < until for time in times)


@pytest.mark.parametrize("span", [*STEPS, timedelta(days=12), timedelta(seconds=1), timedelta(days=5_000)])
def test_bars_follow_each_other_and_cover_the_time(team: TeamSetting, span: timedelta) -> None:
    since = NOW - span
    found = density(team, since, NOW)
    assert 1 <= len(found.bars) <= MOST_STEPS
    assert found.bars[0].since <= since < found.bars[0].until
    assert found.bars[-1].since < NOW <= found.bars[-1].until
    assert [bar.since for bar in found.bars[1:]] == [bar.until for bar in found.bars[:-1]]


def test_the_filter_narrows_it_but_for_its_text(team: TeamSetting) -> None:
    happen(team, [NOW] * 3)
    happen(team, [NOW] * 2, action="task_failed", user_id=team.member.id)
    around = (NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    assert density(team, *around).total == 5
    assert density(team, *around, action=["task_failed"]).total == 2
    assert density(team, *around, user_id=team.owner.id).total == 3
    assert density(team, *around, outcome="denied").total == 0
    assert density(team, *around, q="nothing says so").total == 5


def test_what_one_may_not_see_is_not_counted(team: TeamSetting) -> None:
    path = f"{team.path}/workspaces"
    private = team.owner.post(path, json={"name": "Board", "visibility": PRIVATE}).json["id"]
    happen(team, [NOW] * 4, workspace_id=private)
    around = (NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    assert density(team, *around).total == 4
    assert density(team, *around, by=team.member).total == 0


def test_too_many_rows_are_told_by_day(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    yesterday = NOW - timedelta(days=1)
    happen(team, [yesterday] * 3 + [NOW] * 2)
    fold_log()
    around = (NOW - timedelta(days=2), NOW + timedelta(hours=1))
    monkeypatch.setattr(activity_density, "COUNTED", 5)
    assert density(team, *around).exact
    monkeypatch.setattr(activity_density, "COUNTED", 4)
    found = density(team, *around)
    assert not found.exact
    assert {bar.since.date(): bar.count for bar in found.bars if bar.count} == {
        yesterday.date(): 3,
        NOW.date(): 2,
    }
