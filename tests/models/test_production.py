"""AGENTHQ_ENV=production: what it refuses, and that development takes the same."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from environs import EnvError

from models.production import InsecureSettings
from models.settings import settings

SIGNING = "kR7TzGwQpX0v4bHn9uYJmF1sLd8CeA3iOqWxZtVfB5E="
ENCRYPTION = "Zq3vX8nLwP5kT2yRjH7dGbC4mFs9aEuV1oWiQxYz6N0="
SECURE = {
    "AGENTHQ_ENV": "production",
    "DATABASE_URL": "postgresql://agenthq:f3b1c09d7e5a2846@db/agenthq",
    "REDIS_URL": "redis://:9c4e7a1b5d3f8206@cache:6379/0",
    "ENCRYPTION_KEY": ENCRYPTION,
    "SIGNING_KEY": SIGNING,
    "METRICS_TOKEN": "5e1a9d3c7b2f4860",
}
Set = Callable[..., None]


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Set]:
    """The environment of a secure production, but for what is given."""

    def change(**changes: str | None) -> None:
        for name, value in {**SECURE, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        settings.cache_clear()

    yield change
    monkeypatch.undo()
    settings.cache_clear()


def test_a_secure_production_starts(set_environment: Set) -> None:
    set_environment()
    assert settings().environment == "production"


INSECURE = [
    ("ENCRYPTION_KEY", None, "ENCRYPTION_KEY is missing"),
    ("ENCRYPTION_KEY", "", "ENCRYPTION_KEY is missing"),
    ("ENCRYPTION_KEY", "A" * 43 + "=", "ENCRYPTION_KEY is no random key"),
    ("ENCRYPTION_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "ENCRYPTION_KEY is no random key"),
    ("ENCRYPTION_KEY", "Y2hhbmdlLW1lY2hhbmdlLW1lY2hhbmdlLW1lY2hhbmc=", "ENCRYPTION_KEY is no random key"),
    ("ENCRYPTION_KEY", SIGNING, "SIGNING_KEY is one of ENCRYPTION_KEY"),
    ("SIGNING_KEY", None, "SIGNING_KEY is missing"),
    ("SIGNING_KEY", "A" * 43 + "=", "SIGNING_KEY is no random key"),
    ("DATABASE_URL", "postgresql://agenthq:agenthq@db/agenthq", "password in DATABASE_URL"),
    ("DATABASE_URL", "postgres://postgres:Password-of-the-database@db/agenthq", "password in DATABASE_URL"),
    ("DATABASE_URL", "postgresql://agenthq:f3b1c09d7e5a284@db/agenthq", "password in DATABASE_URL"),
    ("DATABASE_URL", "postgresql://agenthq:%63hangeme-changeme@db/agenthq", "password in DATABASE_URL"),
    ("DATABASE_URL", "postgresql://a-long-role-name:a-long-role-name@db/agenthq", "password in DATABASE_URL"),
    ("DATABASE_URL", "postgresql://agenthq:abcdeabcdeabcdeabcde@db/agenthq", "password in DATABASE_URL"),
    ("DATABASE_OWNER_URL", "postgresql://owner:secret@db/agenthq", "password in DATABASE_OWNER_URL"),
    ("REDIS_URL", "redis://cache:6379/0", "REDIS_URL has no password"),
    ("REDIS_URL", "redis://:redis@cache:6379/0", "password in REDIS_URL"),
    ("METRICS_TOKEN", None, "METRICS_TOKEN is missing"),
    ("METRICS_TOKEN", "5e1a9d3c7b2f486", "METRICS_TOKEN is a known one"),
    ("METRICS_TOKEN", "test-token-of-metrics", "METRICS_TOKEN is a known one"),
    ("STRIPE_WEBHOOK_SECRET", "secret", "STRIPE_WEBHOOK_SECRET"),
]


@pytest.mark.parametrize(("name", "value", "said"), INSECURE)
def test_production_refuses_it_and_development_does_not(
    set_environment: Set, name: str, value: str | None, said: str
) -> None:
    set_environment(**{name: value})
    with pytest.raises(InsecureSettings) as refused:
        settings()
    assert said in str(refused.value)
    assert str(refused.value).count(";") == 0  # of this alone
    assert not value or value not in str(refused.value)
    set_environment(**{name: value, "AGENTHQ_ENV": None})
    assert settings().environment == "development"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://agenthq@db/agenthq"),  # a certificate
        ("DATABASE_URL", "postgresql://agenthq@/agenthq?host=%2Frun"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        (
            "ENCRYPTION_KEY",
            f"{ENCRYPTION},{'A' * 43}=",
        ),  # the second decrypts what is old, and encrypts nothing
        ("STRIPE_WEBHOOK_SECRET", "whsec_5e1a9d3c7b2f4860"),
    ],
)
def test_production_takes_what_needs_no_password(set_environment: Set, name: str, value: str) -> None:
    set_environment(**{name: value})
    assert settings().environment == "production"


def test_all_that_is_wrong_is_said_at_once(set_environment: Set) -> None:
    set_environment(ENCRYPTION_KEY=None, SIGNING_KEY=None, METRICS_TOKEN=None)
    with pytest.raises(InsecureSettings) as refused:
        settings()
    for name in ("ENCRYPTION_KEY", "SIGNING_KEY", "METRICS_TOKEN"):
        assert f"{name} is missing" in str(refused.value)


def test_there_is_no_third_environment(set_environment: Set) -> None:
    set_environment(AGENTHQ_ENV="prod")
    with pytest.raises(EnvError, match="AGENTHQ_ENV"):
        settings()


PROCESSES = {
    "the web server": ("gunicorn", "--check-config", "--config", "api/gunicorn.conf.py", "wsgi:app"),
    "a worker": ("celery", "--app", "workers.app", "report"),
    "a command": ("flask", "--app", "wsgi", "permissions-doc", "--check"),
}


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_starts(process: str) -> None:
    command = [sys.executable, "-m", *PROCESSES[process]]
    environment = {**os.environ, **SECURE}
    started = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert started.returncode == 0, started.stderr
    refused = subprocess.run(
        command,
        env={**environment, "SIGNING_KEY": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    (line,) = (refused.stdout + refused.stderr).splitlines()
    assert line.startswith("error: ")
    assert "SIGNING_KEY is missing" in line
    assert SECURE["METRICS_TOKEN"] not in line
