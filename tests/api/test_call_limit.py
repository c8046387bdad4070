"""A hard limit of API calls: decided with the request, exact whoever calls at once. In a database of its own, for its price book."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from models.access.entry import enter_team
from models.database import transaction
from models.operations import price_books
from tests.books import changed, hard, load
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    execute,
    fetch,
    fold,
    make_key,
    make_person,
    make_team,
)
from tests.models.concurrency import raised, together

UNLIMITED, LIMITED, NEWEST = 2, 3, 4
LIMIT = 10


@pytest.fixture(scope="module", autouse=True)
def _books(own_database: None) -> None:
    """In LIMITED the pro plan has ten calls a month and one task; a team can go to enterprise from there."""
    load(changed(UNLIMITED))
    load(changed(LIMITED, pro={"api_calls": hard(LIMIT), "tasks_created": hard(1)}))
    load(changed(NEWEST))


@pytest.fixture
def limited(app: Flask) -> TeamSetting:
    """A team with none of its calls used: what it took to make it was last month's."""
    return limit(make_team(app))


def limit(setting: TeamSetting) -> TeamSetting:
    with transaction() as session:
        assert price_books.move(session, setting.id, LIMITED)
    fold()
    execute("DELETE FROM usage_stats WHERE team_id = :id", id=setting.id)
    execute("UPDATE usage_quotas SET used = 0 WHERE team_id = :id AND metric = 'api_calls'", id=setting.id)
    setting.calls_before = calls_in_ledger(setting)  # type: ignore[attr-defined]  # for the tests below
    return setting


def calls_in_ledger(setting: TeamSetting) -> int:
    ((total,),) = fetch(
        "SELECT coalesce(sum(quantity), 0) FROM usage_ledger WHERE team_id = :id AND metric = 'api_calls'",
        id=setting.id,
    )
    return int(total)


def counted(setting: TeamSetting) -> int:
    """By the ledger; the quota says the same, or this fails."""
    ((used,),) = fetch(
        "SELECT used FROM usage_quotas WHERE team_id = :id AND metric = 'api_calls'", id=setting.id
    )
    calls: int = calls_in_ledger(setting) - setting.calls_before  # type: ignore[attr-defined]
    assert used == calls
    return calls


def call(person: Person, method: str, path: str, **kwargs: Any) -> Answer:
    """As `Person.call`, for threads: with a client of its own."""
    headers = {"Authorization": f"Bearer {person.token}", **kwargs.pop("headers", {})}
    return person.app.test_client().open(f"/api/v1{path}", method=method, headers=headers, **kwargs)


def spend(setting: TeamSetting, number: int) -> None:
    for _ in range(number):
        assert setting.viewer.get(setting.path).status_code == 200


def test_the_call_after_the_last_is_refused_and_not_counted(limited: TeamSetting) -> None:
    spend(limited, LIMIT - 1)
    assert counted(limited) == LIMIT - 1
    spend(limited, 1)
    for _ in range(3):
        refused = limited.viewer.get(limited.path)
        assert (refused.status_code, refused.json["code"], refused.json["metric"]) == (
            402,
            "quota_exceeded",
            "api_calls",
        )
        assert (refused.json["used"], refused.json["limit"]) == (LIMIT, LIMIT)
        assert refused.json["resets_at"].endswith("-01T00:00:00Z")
    assert counted(limited) == LIMIT


def test_of_20_at_once_exactly_10_are_answered(limited: TeamSetting) -> None:
    answers = together(*[lambda: call(limited.viewer, "GET", limited.path)] * 20)
    assert sorted(answer.status_code for answer in answers) == [200] * LIMIT + [402] * LIMIT
    assert counted(limited) == LIMIT


def test_of_20_changes_at_once_exactly_10_happen(limited: TeamSetting) -> None:
    """Those who lose the race for the last call have done their work by then, and it is undone."""
    path = f"{limited.path}/workspaces"
    answers = together(
        *[
            lambda number=number: call(limited.owner, "POST", path, json={"name": f"W{number}"})
            for number in range(20)
        ]
    )
    assert sorted(answer.status_code for answer in answers) == [201] * LIMIT + [402] * LIMIT
    ((made,),) = fetch(
        "SELECT count(*) FROM workspaces WHERE team_id = :id AND name LIKE 'W%'", id=limited.id
    )
    ((told,),) = fetch(
        "SELECT count(*) FROM outbox WHERE team_id = :id AND action = 'workspace_created' AND resource_name LIKE 'W%'",
        id=limited.id,
    )
    assert (made, told, counted(limited)) == (LIMIT, LIMIT, LIMIT)


def test_errors_are_counted_and_refused_like_any_other(limited: TeamSetting) -> None:
    bad: list[Callable[[], Answer]] = [
        lambda: call(limited.viewer, "GET", f"{limited.path}/tasks/{uuid7()}"),  # 404
        lambda: call(limited.viewer, "POST", f"{limited.path}/workspaces", json={"name": "A"}),  # 403
        lambda: call(limited.owner, "POST", f"{limited.path}/workspaces", json={}),  # 422
        lambda: call(limited.owner, "GET", f"{limited.path}/nothing-here"),  # unrouted
        lambda: call(limited.owner, "DELETE", f"{limited.path}/plan"),  # 405
    ]
    assert [each().status_code for each in bad] == [404, 403, 422, 404, 405]
    assert counted(limited) == 5
    answers = together(*(bad * 4))
    refused = [answer for answer in answers if answer.status_code == 402]
    assert (raised(answers), len(refused), counted(limited)) == ([], 20 - 5, LIMIT)
    assert {answer.json["metric"] for answer in refused} == {"api_calls"}


def test_a_stranger_and_a_bad_credential_use_nothing_and_learn_nothing(
    limited: TeamSetting, app: Flask
) -> None:
    stranger = make_person(app)
    for expected in (404, 404):
        assert stranger.get(limited.path).status_code == expected
        spend(limited, LIMIT // 2)
    assert stranger.get(limited.path).status_code == 404
    assert app.test_client().get(f"/api/v1{limited.path}").status_code == 401
    assert counted(limited) == LIMIT


def test_a_refusal_for_another_limit_is_an_answer_that_counts(limited: TeamSetting) -> None:
    path = f"{limited.path}/workspaces/{limited.workspace_id}/tasks"
    codes = [limited.owner.post(path, json={"title": "A"}).status_code for _ in range(3)]
    assert (codes, counted(limited)) == ([201, 402, 402], 3)


def test_a_repeat_of_a_kept_answer_is_a_call(limited: TeamSetting) -> None:
    headers = {"Idempotency-Key": "once"}
    for _ in range(3):
        made = limited.owner.post(f"{limited.path}/workspaces", json={"name": "A"}, headers=headers)
        assert made.status_code == 201
    assert counted(limited) == 3


def test_a_request_that_breaks_is_not_counted(limited: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr("models.queries.teams.get", fall)
        patched.setitem(limited.owner.app.config, "PROPAGATE_EXCEPTIONS", False)
        assert limited.owner.get(limited.path).status_code == 500
    assert counted(limited) == 0


def test_keys_and_agents_are_limited_with_their_team(limited: TeamSetting) -> None:
    key = make_key(limited, limited.admin, "teams:read")
    spend(limited, LIMIT - 1)
    assert key.get(limited.path).status_code == 402
    assert counted(limited) == LIMIT


def test_what_shows_and_lifts_the_limit_is_answered_and_counted(limited: TeamSetting) -> None:
    spend(limited, LIMIT)
    preview = f"{limited.path}/plan/preview?plan=enterprise"
    assert limited.owner.get("/plans").status_code == 200  # no team's
    assert limited.owner.get(preview).status_code == 200
    assert limited.viewer.get(preview).status_code == 402  # it may not, and that is no answer either
    assert calls_in_ledger(limited) - limited.calls_before == LIMIT + 1  # type: ignore[attr-defined]
    assert limited.owner.put(f"{limited.path}/plan", json={"plan": "enterprise"}).status_code == 200
    assert limited.viewer.get(limited.path).status_code == 200
    assert calls_in_ledger(limited) - limited.calls_before == LIMIT + 3  # type: ignore[attr-defined]


def test_at_the_months_turn_calls_are_answered_again(limited: TeamSetting) -> None:
    spend(limited, LIMIT)
    assert limited.viewer.get(limited.path).status_code == 402
    execute(
        "UPDATE usage_quotas SET period = (period - interval '1 month')::date WHERE team_id = :id",
        id=limited.id,
    )
    answers = together(*[lambda: call(limited.viewer, "GET", limited.path)] * 15)
    assert sorted(answer.status_code for answer in answers) == [200] * LIMIT + [402] * 5


def test_other_teams_are_not_touched(limited: TeamSetting, app: Flask) -> None:
    other = make_team(app, roles=())
    spend(limited, LIMIT)
    assert limited.viewer.get(limited.path).status_code == 402
    assert other.owner.get(other.path).status_code == 200
    assert flag(other) is None
    assert flag(limited) is True


def flag(setting: TeamSetting) -> bool | None:
    with transaction() as session:
        return enter_team(session, setting.owner.credential, UUID(str(setting.id))).calls_used_up
