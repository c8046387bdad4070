"""What browsers are told about our answers, and whose pages may read them."""

from collections.abc import Callable
from typing import Any

import pytest
from environs import EnvError
from flask import Flask
from flask.testing import FlaskClient

from api.protection import HEADERS
from models.settings import Settings
from tests.factories import Answer, make_person, make_team

AppWith = Callable[..., Flask]
OURS = "https://app.example.com"
ANSWERS = {
    "an answer": "/api/v1/plans",
    "a refusal": "/api/v1/me",
    "nothing here": "/api/v1/nothing",
    "health": "/health/live",
    "the document": "/api/openapi.json",
    "a page": "/sign-in",
    "no page": "/nothing",
}


@pytest.mark.parametrize("path", ANSWERS.values(), ids=ANSWERS)
def test_every_answer_is_protected(client: FlaskClient, path: str) -> None:
    headers: Any = client.get(path, headers={"Accept": "text/html, */*"}).headers
    for name in HEADERS:
        assert len(headers.getlist(name)) == 1, name
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


def test_scripts_run_only_where_there_are_some(client: FlaskClient) -> None:
    assert "script-src" not in client.get("/api/v1/plans").headers["Content-Security-Policy"]
    for path in ("/api/docs", "/sign-in"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "script-src 'self' 'unsafe-inline'" not in policy


def test_a_file_that_never_changes_is_kept(client: FlaskClient) -> None:
    page: Answer = client.get("/sign-in")
    address = page.text.split('src="/static/')[1].split('"')[0]
    kept = client.get(f"/static/{address}").headers
    assert "immutable" in kept["Cache-Control"]
    assert kept["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("public_url", "strict"), [("https://hq.example", True), ("http://hq.example", False)]
)
def test_over_tls_browsers_are_to_keep_to_it(app_with: AppWith, public_url: str, strict: bool) -> None:
    app = app_with(public_url=public_url)
    for path in ("/api/v1/plans", "/sign-in", "/nothing"):
        sent = app.test_client().get(path).headers.get("Strict-Transport-Security")
        assert sent == ("max-age=31536000" if strict else None)


def preflight(
    app: Flask, origin: str, path: str = "/api/v1/teams", method: str = "POST", *headers: str
) -> Answer:
    return app.test_client().options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ", ".join(headers or ("authorization", "content-type")),
        },
    )


def test_no_origin_is_allowed_by_default(app: Flask) -> None:
    answer = preflight(app, OURS)
    assert answer.status_code == 200
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
    plain = app.test_client().get("/api/v1/plans", headers={"Origin": OURS})
    assert not [name for name, _ in plain.headers if name.startswith("Access-Control")]


def test_an_allowed_origins_pages_may_call_the_api(app_with: AppWith) -> None:
    app = app_with(allowed_origins=frozenset({OURS, "http://localhost:3000"}))
    for origin in (OURS, "http://localhost:3000"):
        asked = preflight(
            app, origin, "/api/v1/teams", "POST", "authorization", "content-type", "idempotency-key"
        )
        assert asked.status_code == 200
        assert asked.headers["Access-Control-Allow-Origin"] == origin
        allowed = asked.headers["Access-Control-Allow-Headers"].casefold()
        assert {"authorization", "content-type", "idempotency-key"} <= set(allowed.split(", "))
        assert "POST" in asked.headers["Access-Control-Allow-Methods"]
        assert asked.headers["Access-Control-Max-Age"] == "600"
        assert "Origin" in asked.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in asked.headers
    person = make_person(app)
    for path, status in (("/me", 200), ("/teams/nothing", 404)):
        answer = person.get(path, headers={"Origin": OURS})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == OURS
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "https://app-example.com",  # a dot is a dot
        "https://evilapp.example.com",
        "http://app.example.com",
        "https://app.example.com:444",
        "null",
    ],
)
def test_no_other_origins_may(app_with: AppWith, origin: str) -> None:
    app = app_with(allowed_origins=frozenset({OURS}))
    assert "Access-Control-Allow-Origin" in preflight(app, OURS).headers
    assert "Access-Control-Allow-Origin" not in preflight(app, origin).headers
    assert (
        "Access-Control-Allow-Origin" not in make_person(app).get("/me", headers={"Origin": origin}).headers
    )


def test_a_header_that_is_not_heeded_is_not_allowed(app_with: AppWith) -> None:
    app = app_with(allowed_origins=frozenset({OURS}))
    allowed = preflight(app, OURS, "/api/v1/teams", "POST", "x-csrf-token").headers.get(
        "Access-Control-Allow-Headers", ""
    )
    assert "x-csrf-token" not in allowed.casefold()


def test_pages_and_sockets_are_for_our_own_origin(app_with: AppWith) -> None:
    app = app_with(allowed_origins=frozenset({OURS}))
    for path in ("/sign-in", "/health/live", "/metrics"):
        answer = app.test_client().get(path, headers={"Origin": OURS})
        assert "Access-Control-Allow-Origin" not in answer.headers, path


@pytest.mark.parametrize(
    "value",
    ["*", "https://*.example.com", "app.example.com", "https://app.example.com/", "https://[", "null"],
)
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", f"{OURS}, {value}")
    with pytest.raises(EnvError, match="ALLOWED_ORIGINS"):
        Settings.from_environment()
    monkeypatch.setenv("ALLOWED_ORIGINS", f"{OURS}, http://localhost:3000")
    assert Settings.from_environment().allowed_origins == {OURS, "http://localhost:3000"}


@pytest.mark.parametrize(
    ("public_url", "secure"), [("https://hq.example", True), ("http://hq.example", False)]
)
def test_the_cookie_goes_over_tls_alone_where_there_is_some(
    app: Flask, monkeypatch: pytest.MonkeyPatch, public_url: str, secure: bool
) -> None:
    from dataclasses import replace

    from api import cookies
    from models.settings import settings

    changed = replace(settings(), public_url=public_url)
    monkeypatch.setattr(cookies, "settings", lambda: changed)
    person = make_person(app)
    body = {
        "email": f"c-{person.id}@example.com",
        "password": "a good password",
        "name": "Cee",
        "cookie": True,
    }
    answer: Answer = app.test_client().post("/api/v1/auth/register", json=body)
    assert answer.status_code == 201, answer.text
    cookie = answer.headers["Set-Cookie"]
    assert ("; Secure" in cookie) is secure
    assert "; HttpOnly" in cookie
    assert "; SameSite=Lax" in cookie


def test_a_body_has_a_mebibyte_at_the_most_even_before_anybody_is_known(
    app: Flask, client: FlaskClient
) -> None:
    team = make_team(app, roles=())
    fits = b'{"name": "x"}'.ljust(1024 * 1024)
    for headers, known in (({"Authorization": f"Bearer {team.owner.token}"}, 200), ({}, 401)):
        for data, status in ((fits, known), (fits + b" ", 413)):
            answer = client.patch(f"/api/v1{team.path}", data=data, headers=headers)
            assert answer.status_code == status
