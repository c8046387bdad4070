"""Rate limits: both sides, whose they are, and that they hold while Redis is away."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from flask import Flask
from limits.storage import RedisStorage
from uuid_utils.compat import uuid7

from api import create_app
from api.limits import limiter
from models.settings import Settings, settings
from tests.factories import Answer, Person, make_person, make_team

ADDRESSES = itertools.count(1)
AppWith = Callable[..., Flask]
AWAY = "redis://127.0.0.1:1/0"


def address() -> str:
    """That no other test signs in from."""
    return f"2001:db8::{uuid7().hex[-8:-4]}:{next(ADDRESSES):x}"


def sign_in(app: Flask, from_: str, path: str = "login") -> Answer:
    return app.test_client().post(f"/api/v1/auth/{path}", json={}, environ_overrides={"REMOTE_ADDR": from_})


def moved(person: Person, app: Flask) -> Person:
    return Person(app, person.id, person.email, person.name, person.token)


def assert_limited(answer: Answer) -> None:
    assert (answer.status_code, answer.json["code"]) == (429, "rate_limited")
    assert answer.mimetype == "application/problem+json"
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    assert answer.headers["X-Request-Id"] == answer.json["request_id"]


@pytest.fixture(params=["redis", "redis away"])
def redis_url(request: pytest.FixtureRequest) -> str:
    return settings().redis_url if request.param == "redis" else AWAY


def test_signing_in_and_registering_share_a_limit_of_the_address(app_with: AppWith, redis_url: str) -> None:
    app = app_with(rate_limit_auth="4 per minute", redis_url=redis_url)
    here, elsewhere = address(), address()
    answers = [sign_in(app, here, path) for path in ("login", "register", "login", "login")]
    assert [answer.status_code for answer in answers] == [422] * 4
    for path in ("login", "register"):
        assert_limited(sign_in(app, here, path))
    assert sign_in(app, elsewhere).status_code == 422


def test_calls_have_a_limit_of_the_credential(app_with: AppWith, redis_url: str) -> None:
    app = app_with(rate_limit_api="3 per minute", redis_url=redis_url)
    person, other = (moved(make_person(app), app) for _ in range(2))
    assert [person.get("/me").status_code for _ in range(3)] == [200] * 3
    assert_limited(person.get("/me"))
    assert_limited(person.get("/teams"))
    assert other.get("/me").status_code == 200  # from the same address
    assert app.test_client().get("/health/live").status_code == 200


def test_addresses_that_lead_nowhere_have_a_limit_whatever_credential_comes_along(
    app_with: AppWith, redis_url: str
) -> None:
    app = app_with(rate_limit_api="4 per minute", redis_url=redis_url)
    here, elsewhere = address(), address()
    person = moved(make_person(app), app)

    def look(from_: str, path: str, **headers: str) -> Answer:
        return app.test_client().get(path, headers=headers, environ_overrides={"REMOTE_ADDR": from_})

    paths = ("/nothing", "/api/v1/nothing", "/.env", "/api/v1/teams/x")
    answers = [look(here, path, Authorization=f"Bearer ahq_{path}") for path in paths]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert_limited(look(here, "/api/v1/other", Authorization="Bearer ahq_new"))
    assert_limited(look(here, "/api/v1/other"))
    assert look(elsewhere, "/api/v1/other").status_code == 404
    credential = f"Bearer {person.token}"
    assert look(here, "/api/v1/me", Authorization=credential).status_code == 200  # whose limit is their own


def test_ever_new_credentials_that_are_none_have_one_limit(app_with: AppWith, redis_url: str) -> None:
    app = app_with(rate_limit_auth="3 per minute", rate_limit_api="5 per minute", redis_url=redis_url)
    here, elsewhere = address(), address()

    def guess(from_: str, number: int) -> Answer:
        return app.test_client().get(
            "/api/v1/me",
            headers={"Authorization": f"Bearer ahq_{number}"},
            environ_overrides={"REMOTE_ADDR": from_},
        )

    # Three that are refused are nobody's fault; from then on it is one caller, who has five calls.
    assert [guess(here, number).status_code for number in range(8)] == [401] * 8
    assert_limited(guess(here, 8))
    assert guess(elsewhere, 9).status_code == 401


def test_somebody_beside_a_guesser_is_answered_within_the_addresss_limit(app_with: AppWith) -> None:
    app = app_with(rate_limit_auth="1 per minute", rate_limit_api="5 per minute")
    here, person = address(), moved(make_person(app), app)

    def call(credential: str) -> int:
        headers = {"Authorization": f"Bearer {credential}"}
        return (
            app.test_client()
            .get("/api/v1/me", headers=headers, environ_overrides={"REMOTE_ADDR": here})
            .status_code
        )

    assert [call(f"ahq_{number}") for number in range(3)] == [401] * 3
    assert call(person.token) == 200


def test_a_limited_call_is_not_counted_as_usage(app: Flask, app_with: AppWith) -> None:
    team = make_team(app)
    limited = app_with(rate_limit_api="2 per minute")
    caller = moved(team.viewer, limited)
    now = _month()

    def calls(person: Person) -> int:
        return int(person.get(f"{team.path}/usage/monthly", query_string=now).json["api_calls"])

    before = calls(team.admin)
    statuses = [caller.get(team.path).status_code for _ in range(5)]
    assert statuses == [200, 200, 429, 429, 429]
    assert calls(team.admin) == before + 1 + 2


def test_the_limits_default_to_the_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RATE_LIMIT_AUTH", "RATE_LIMIT_API"):
        monkeypatch.delenv(name)
    defaults = Settings.from_environment()
    assert (defaults.rate_limit_auth, defaults.rate_limit_api) == ("30 per minute", "6000 per minute")
    monkeypatch.setenv("RATE_LIMIT_AUTH", "7 per hour")
    assert Settings.from_environment().rate_limit_auth == "7 per hour"


def test_health_and_docs_have_no_limit(app_with: AppWith) -> None:
    app = app_with(rate_limit_api="1 per minute")
    client: Any = app.test_client()
    for path in ("/health/live", "/health/ready", "/api/docs", "/api/openapi.json"):
        assert [client.get(path).status_code for _ in range(3)] == [200] * 3


def test_redis_away_refuses_nothing(app_with: AppWith) -> None:
    app = app_with(redis_url=AWAY)
    team = make_team(app)
    assert team.owner.get(team.path).status_code == 200
    assert team.owner.patch(team.path, json={"name": "A"}).status_code == 200


def test_redis_going_away_fails_no_request_under_way(
    app_with: AppWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait for Redis as it goes; the second learns of it when the first has changed to the memory already."""
    team = make_team(app_with(), roles=())
    monkeypatch.setattr(limiter, "_storage_dead", False)  # whatever the tests before have left behind
    second_asked, first_answered = threading.Event(), threading.Event()

    def go_away(*_: object) -> bool:
        if threading.current_thread() is not threading.main_thread():
            second_asked.set()
            assert first_answered.wait(10)
        raise redis.ConnectionError("away")

    monkeypatch.setattr(RedisStorage, "acquire_sliding_window_entry", go_away)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(lambda: team.owner.get(team.path).status_code)
        assert second_asked.wait(10)
        first = team.owner.get(team.path).status_code
        first_answered.set()
        assert (first, second.result()) == (200, 200)


def test_behind_a_proxy_the_address_is_the_clients(app_with: AppWith) -> None:
    app = app_with(rate_limit_auth="1 per minute", trusted_proxies=1)
    client, proxy = app.test_client(), address()

    def from_(forwarded: str) -> int:
        return client.post(
            "/api/v1/auth/login",
            json={},
            headers={"X-Forwarded-For": forwarded},
            environ_overrides={"REMOTE_ADDR": proxy},
        ).status_code

    here, there = address(), address()
    assert [from_(here), from_(here), from_(there)] == [422, 429, 422]
    # What the client itself claims stands before what the proxy adds, and is not believed.
    assert from_(f"{address()}, {here}") == 429


def test_without_a_proxy_no_header_changes_the_address(app_with: AppWith) -> None:
    app, here = app_with(rate_limit_auth="1 per minute"), address()
    client = app.test_client()
    statuses = [
        client.post(
            "/api/v1/auth/login",
            json={},
            headers={"X-Forwarded-For": address()},
            environ_overrides={"REMOTE_ADDR": here},
        ).status_code
        for _ in range(2)
    ]
    assert statuses == [422, 429]


def _month() -> dict[str, int]:
    import datetime as dt

    now = dt.datetime.now(dt.UTC)
    return {"year": now.year, "month": now.month}


def test_an_application_is_made_with_the_process_settings_by_default() -> None:
    assert create_app().config["RATE_LIMIT_AUTH"] == settings().rate_limit_auth
