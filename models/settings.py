"""The one reader of the environment: every setting of every process, typed and frozen."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import limits
from environs import Env, ValidationError, validate


@dataclass(frozen=True, slots=True)
class Settings:
    database_url: str
    """PostgreSQL 15 or newer, e.g. postgresql://user:password@host/name."""
    redis_url: str
    """Redis 7 or newer, or Valkey; carries Celery's messages, pub/sub and rate limits, and no truth."""
    data_directory: Path
    """Where the one-machine stack keeps the embedded servers' data and the logs."""
    bind_host: str
    """The address that the web server listens on; a container needs 0.0.0.0."""
    port: int
    web_workers: int
    database_pool_size: int
    """Connections that one process holds at the most; a request waits 5 s for one, then answers 503."""
    rate_limit_auth: str
    """Sign-in and registration, per address."""
    rate_limit_api: str
    """Everything else, per credential."""
    trusted_proxies: int
    """How many reverse proxies set X-Forwarded-For; 0 believes the socket's own address."""
    session_days: int
    log_level: str
    log_format: str
    """json, or console for people."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Reads the environment; raises environs.EnvError naming a missing or malformed variable."""
        env = Env()
        return cls(
            database_url=sqlalchemy_url(env.str("DATABASE_URL")),
            redis_url=env.str("REDIS_URL"),
            data_directory=Path(env.str("AGENTHQ_DATA", "var")),
            bind_host=env.str("BIND_HOST", "127.0.0.1"),
            port=env.int("PORT", 8000, validate=validate.Range(1, 65535)),
            web_workers=env.int("WEB_WORKERS", 2, validate=validate.Range(1)),
            database_pool_size=env.int("DATABASE_POOL_SIZE", 20, validate=validate.Range(1)),
            rate_limit_auth=env.str("RATE_LIMIT_AUTH", "30 per minute", validate=_rate_limit),
            rate_limit_api=env.str("RATE_LIMIT_API", "6000 per minute", validate=_rate_limit),
            trusted_proxies=env.int("TRUSTED_PROXIES", 0, validate=validate.Range(0)),
            session_days=env.int("SESSION_DAYS", 30, validate=validate.Range(1)),
            log_level=env.str(
                "LOG_LEVEL", "INFO", validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"])
            ),
            log_format=env.str("LOG_FORMAT", "json", validate=validate.OneOf(["json", "console"])),
        )


def _rate_limit(value: str) -> None:
    try:
        limits.parse_many(value)
    except ValueError as error:
        raise ValidationError("must be like `30 per minute`") from error


def sqlalchemy_url(url: str) -> str:
    """The URL with SQLAlchemy's name for psycopg 3, whichever common spelling came in."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme in {"postgres", "postgresql"} else url


@cache
def settings() -> Settings:
    """This process's settings, read once and on first use (never at import)."""
    return Settings.from_environment()
