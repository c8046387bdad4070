import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient

from api import create_app
from models.access import passwords
from models.settings import settings
from tests.factories import Answer, TeamSetting, make_team

Post = Callable[..., Answer]


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real argon2id with its cost turned down, which is a second a password on a busy machine."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys_hash.cache_clear()
    yield
    passwords._nobodys_hash.cache_clear()


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    return make_team(app)


@pytest.fixture(scope="module")
def shared(app: Flask) -> TeamSetting:
    """A team for the tests of a module that change nothing in it."""
    return make_team(app)


@pytest.fixture
def free_team(app: Flask) -> TeamSetting:
    """A team on the free plan, of its owner alone."""
    setting = make_team(app, roles=())
    assert setting.owner.put(f"{setting.path}/plan", json={"plan": "free"}).status_code == 200
    return setting


@pytest.fixture
def post(client: FlaskClient) -> Post:
    """POST to a path after /api/v1, by nobody who is signed in."""

    def send(path: str, **kwargs: Any) -> Answer:
        return client.post(f"/api/v1{path}", **kwargs)

    return send


@pytest.fixture
def app_with() -> Iterator[Callable[..., Flask]]:
    """Makes applications with settings of their own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda **changes: create_app(replace(settings(), **changes))
    create_app()  # the limiter is one a process: back to the storage of the others
    root.handlers[:], root.level = handlers, level
