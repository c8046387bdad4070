"""What production asks of the settings: no secret that is missing, a placeholder, or known from somewhere."""

import base64
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from environs import EnvError

if TYPE_CHECKING:
    from models.settings import Settings

DEVELOPMENT, PRODUCTION = "development", "production"
SHORTEST_SECRET, FEWEST_CHARACTERS = 16, 6
"""How long a secret is at the least, and how many of its characters differ."""
KNOWN = (
    "agenthq",
    "admin",
    "changeme",
    "change-me",
    "default",
    "example",
    "letmein",
    "password",
    "postgres",
    "redis",
    "secret",
    "test",
)
"""Words that a secret which somebody copied begins with."""
FEWEST_VALUES = 16
"""Of 32 random bytes nearly all differ; fewer than so many happen to nobody's key in the life of the universe."""


class InsecureSettings(EnvError):
    """Production, with secrets that protect nothing; names each of them, and tells none."""


def refuse_insecure(settings: "Settings") -> None:
    """Raises InsecureSettings in production for secrets that are missing or guessable."""
    if settings.environment == PRODUCTION and (problems := list(_problems(settings))):
        raise InsecureSettings("AGENTHQ_ENV=production refuses these settings: " + "; ".join(problems))


def _problems(settings: "Settings") -> Iterator[str]:
    yield from _of_keys(settings)
    for name, url in (
        ("DATABASE_URL", settings.database_url),
        ("DATABASE_OWNER_URL", settings.database_owner_url),
        ("REDIS_URL", settings.redis_url),
    ):
        parts = urlsplit(url or "")
        if parts.password and _is_guessable(unquote(parts.password), parts.username):
            yield f"the password in {name} is a known or short one"
        elif not parts.password and parts.hostname and name == "REDIS_URL":
            yield f"{name} has no password"  # PostgreSQL has other ways: a certificate, the socket's peer
    if not settings.metrics_token:
        yield "METRICS_TOKEN is missing, so anybody could read /metrics"
    elif any(map(_is_guessable, settings.metrics_token.replace(",", " ").split())):
        yield f"METRICS_TOKEN is a known one or has fewer than {SHORTEST_SECRET} characters"
    if settings.stripe_webhook_secret and _is_guessable(settings.stripe_webhook_secret):
        yield "STRIPE_WEBHOOK_SECRET is none that Stripe gives"


def _of_keys(settings: "Settings") -> Iterator[str]:
    signing = base64.b64decode(settings.signing_key) if settings.signing_key else None
    for name, key in (
        ("ENCRYPTION_KEY", next(iter(settings.encryption_keys), None)),
        ("SIGNING_KEY", signing),
    ):
        if key is None:
            yield f"{name} is missing (`openssl rand -base64 32` makes one)"
        elif not _is_random(key):
            yield f"{name} is no random key (`openssl rand -base64 32` makes one)"
    if signing in settings.encryption_keys:
        yield "SIGNING_KEY is one of ENCRYPTION_KEY, and needs to be one of its own"


def _is_random(key: bytes) -> bool:
    """Whether a key may be random: neither of few bytes nor of bytes at equal steps, as placeholders are."""
    steps = {(after - before) % 256 for before, after in pairwise(key)}
    return min(len(set(key)), len(steps)) >= FEWEST_VALUES


def _is_guessable(secret: str, username: str | None = None) -> bool:
    known = secret.casefold().startswith(KNOWN) or secret == username
    return known or len(secret) < SHORTEST_SECRET or len(set(secret)) < FEWEST_CHARACTERS
