"""Loading price books and moving teams to them. In a database of its own: the newest book is everybody's."""

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.database import transaction
from models.errors import Conflict, Invalid, NotFound, SeatLimitReached
from models.operations import price_books, teams
from models.queries import plans
from models.queries import teams as team_queries
from tests.books import changed, hard, load
from tests.factories import TeamSetting, fetch, join, make_team
from tests.models.concurrency import raised, together

pytestmark = pytest.mark.usefixtures("own_database")


def newest() -> int:
    with transaction() as session:
        return plans.current_book(session).version


def load_next(**terms: Any) -> int:
    """A book newer than all, with these changes."""
    version = newest() + 1
    assert load(changed(version, **terms))
    return version


def choose(setting: TeamSetting, plan: str) -> None:
    with transaction() as session:
        access = setting.owner.enter(session, setting.id)
        team = team_queries.get(session, access, for_update=True)
        teams.change_plan(session, access, team, plan=plan)


def move(setting: TeamSetting, version: int) -> bool:
    with transaction() as session:
        return price_books.move(session, setting.id, version)


def periods(setting: TeamSetting) -> list[tuple[str, int]]:
    rows = fetch(
        "SELECT plan, price_book FROM plan_periods WHERE team_id = :id ORDER BY starts_at, ends_at",
        id=setting.id,
    )
    return [tuple(row) for row in rows]


def seats(setting: TeamSetting) -> int:
    ((found,),) = fetch("SELECT max_members FROM teams WHERE id = :id", id=setting.id)
    return int(found)


def test_a_book_is_loaded_once_and_its_number_is_taken() -> None:
    version = newest() + 1
    assert load(changed(version)) is True
    assert load(changed(version)) is False
    with pytest.raises(Conflict, match=f"Version {version} is loaded and says something else"):
        load(changed(version, pro={"base": "5000"}))
    with transaction() as session:
        assert plans.book(session, version).plans["pro"].base == 4900


def test_older_numbers_and_other_currencies_are_refused() -> None:
    version = newest()
    load(changed(version + 5))
    with pytest.raises(Conflict, match="a newer one has a higher number"):
        load(changed(version + 4))
    with pytest.raises(Conflict, match="two currencies"):
        load({**changed(version + 6), "currency": "EUR"})
    with pytest.raises(Invalid):
        load({**changed(version + 6), "plans": []})
    assert newest() == version + 5


def test_of_two_that_load_one_number_one_is_right() -> None:
    version = newest() + 1
    bodies = [changed(version, pro={"base": str(base)}) for base in (1, 2, 1, 2, 1, 2)]
    outcomes = together(*[lambda body=body: load(body) for body in bodies])
    assert raised(outcomes) == [Conflict] * 3
    assert sorted(each for each in outcomes if isinstance(each, bool)) == [False, False, True]


def test_teams_stay_on_the_book_that_their_plan_began_under(app: Flask) -> None:
    setting = make_team(app, roles=())
    before = newest()
    version = load_next(free={"seats": 7}, pro={"seats": 60}, enterprise={"seats": 70})
    assert periods(setting) == [("free", before), ("pro", before)]
    assert seats(setting) == 50
    choose(setting, "pro")  # which it has: nothing happens
    assert (periods(setting), seats(setting)) == ([("free", before), ("pro", before)], 50)
    choose(setting, "enterprise")
    assert (periods(setting)[-1], seats(setting)) == (("enterprise", version), 70)
    made = make_team(app, roles=())
    assert (periods(made), seats(made)) == ([("free", version), ("pro", version)], 60)
    choose(made, "free")
    assert seats(made) == 7


def test_a_plan_that_the_newest_book_lacks_can_not_be_chosen(app: Flask) -> None:
    setting = make_team(app, roles=())
    body = changed(newest() + 1)
    body["plans"] = [plan for plan in body["plans"] if plan["name"] != "enterprise"]
    load(body)
    with pytest.raises(Invalid):
        choose(setting, "enterprise")
    shown = setting.owner.get("/plans").json["items"]
    assert [plan["name"] for plan in shown] == ["free", "pro"]
    assert setting.owner.put(f"{setting.path}/plan", json={"plan": "enterprise"}).status_code == 422
    assert setting.owner.get(f"{setting.path}/plan/preview?plan=enterprise").status_code == 422
    load_next()
    choose(setting, "enterprise")
    body["version"] = newest() + 1
    load(body)
    with pytest.raises(Conflict, match="has no plan enterprise"):
        move(setting, body["version"])


def test_a_team_is_moved_once_with_seats_limits_and_a_period_of_its_own(app: Flask) -> None:
    setting = make_team(app, roles=())
    before = newest()
    version = load_next(pro={"seats": 2, "tasks_created": hard(3)})
    outcomes = together(*[lambda: move(setting, version)] * 4)
    assert raised(outcomes) == []
    assert sorted(outcomes) == [False, False, False, True]
    assert periods(setting)[1:] == [("pro", before), ("pro", version)]
    assert seats(setting) == 2
    quotas = fetch("SELECT metric, maximum FROM usage_quotas WHERE team_id = :id", id=setting.id)
    assert [tuple(row) for row in quotas] == [("tasks_created", 3)]
    join(setting, "viewer")
    assert move(setting, before) is True
    assert fetch("SELECT FROM usage_quotas WHERE team_id = :id", id=setting.id) == []
    join(setting, "viewer")
    with pytest.raises(SeatLimitReached):
        move(setting, version)
    assert (periods(setting)[-1], seats(setting)) == (("pro", before), 50)
    with pytest.raises(NotFound), transaction() as session:
        price_books.move(session, uuid7(), version)
    with pytest.raises(NotFound):
        move(setting, 10_000)


def write(directory: Path, body: Any) -> str:
    file = directory / "book.json"
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    return str(file)


def run(app: Flask, *args: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(args=["price-book", *args])
    return result.exit_code, result.output


def test_the_commands(app: Flask, tmp_path: Path) -> None:
    version = newest() + 1
    body = changed(version, pro={"seats": 1})
    assert run(app, "check", write(tmp_path, body)) == (0, f"version {version}, USD: free, pro, enterprise\n")
    assert newest() == version - 1
    assert run(app, "load", write(tmp_path, body)) == (0, f"version {version} is loaded\n")
    assert run(app, "load", write(tmp_path, body)) == (0, "it is loaded already\n")
    body["plans"][0]["seats"] = 1
    code, said = run(app, "load", write(tmp_path, body))
    assert (code, "give this one a new number" in said) == (1, True)
    code, said = run(app, "check", write(tmp_path, {**body, "currency": "usd"}))
    assert (code, "$.currency: 'usd' does not match" in said) == (1, True)
    for nonsense in ("{", "[]", '{"version": 1}'):
        assert run(app, "check", write(tmp_path, nonsense))[0] == 1

    one, two, full = make_team(app, roles=()), make_team(app, roles=()), make_team(app, roles=())
    for setting in (one, two, full):
        assert move(setting, 1)
    join(full, "viewer")
    assert run(app, "move", str(version), "--team", str(one.id)) == (
        0,
        f"moved 1 teams to version {version}\n",
    )
    assert (periods(one)[-1], periods(two)[-1]) == (("pro", version), ("pro", 1))
    code, said = run(app, "move", str(version))
    assert code == 1  # full has no room
    assert f"{full.id}: The pro plan seats 1, and 2 are taken" in said
    assert (periods(two)[-1], periods(full)[-1]) == (("pro", version), ("pro", 1))
    code, said = run(app, "move", "10000")
    assert (code, "There is no such price book here." in said) == (1, True)
    code, said = run(app, "list")
    lines = {line.split("\t")[0]: line for line in said.splitlines()}
    assert (code, str(version) in lines, "1" in lines) == (0, True, True)
    with transaction() as session:
        counts = {book.version: book.teams for book in plans.loaded(session)}
    on_it = fetch(
        "SELECT price_book, count(*) FROM plan_periods WHERE ends_at IS NULL GROUP BY price_book",
    )
    assert {book: count for book, count in counts.items() if count} == {row[0]: row[1] for row in on_it}


def test_all_teams_are_moved_though_they_are_many(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.commands.price_books.TEAMS_AT_ONCE", 2)
    settings = [make_team(app, roles=()) for _ in range(5)]
    version = load_next(pro={"base": "1"})
    run(app, "move", str(version))
    assert [periods(setting)[-1] for setting in settings] == [("pro", version)] * 5
    events = fetch(
        "SELECT count(*) FROM outbox WHERE action = 'price_book_changed' AND team_id = ANY(:ids)",
        ids=[setting.id for setting in settings],
    )
    assert events == [(5,)]
    assert run(app, "move", str(version))[1].endswith(f"moved 0 teams to version {version}\n")
