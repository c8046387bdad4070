"""The one reader of the environment: every setting of every process, typed and frozen."""

from dataclasses import dataclass
from email.utils import parseaddr
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import limits
from environs import Env, ValidationError, validate

API, REALTIME, ALL = "api", "realtime", "all"


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
    web_role: str
    """What web processes serve: api (REST), realtime (sockets), or all."""
    team_connections: int
    """Sockets of one team that one process keeps at the most."""
    database_pool_size: int
    """Connections that one process holds at the most; a request waits 5 s for one, then answers 503."""
    rate_limit_auth: str
    """Sign-in and registration, per address."""
    rate_limit_api: str
    """Everything else, per credential."""
    trusted_proxies: int
    """How many reverse proxies set X-Forwarded-For; 0 believes the socket's own address."""
    allowed_origins: frozenset[str]
    """Whose pages may open sockets besides our own, e.g. https://app.example.com; in lower case."""
    session_days: int
    mail_url: str
    """Where mail goes: file:///directory, smtp://user:password@host:port (`?starttls=true`), or smtps://… for TLS at once."""
    mail_from: str
    """Who mails say they are from, like `Name <name@example.com>`."""
    public_url: str
    """What the links in mails begin with: how people reach this service. Without a slash at its end."""
    metrics_token: str
    """What `/metrics` asks for as bearer; empty: nothing."""
    worker_metrics_port: int
    """Where a worker serves what its processes counted; 0: nowhere."""
    log_level: str
    log_format: str
    """json, or console for people."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Reads the environment; raises environs.EnvError naming a missing or malformed variable."""
        env = Env()
        data_directory = Path(env.str("AGENTHQ_DATA", "var"))
        port = env.int("PORT", 8000, validate=validate.Range(1, 65535))
        return cls(
            database_url=sqlalchemy_url(env.str("DATABASE_URL")),
            redis_url=env.str("REDIS_URL"),
            data_directory=data_directory,
            bind_host=env.str("BIND_HOST", "127.0.0.1"),
            port=port,
            web_workers=env.int("WEB_WORKERS", 2, validate=validate.Range(1)),
            web_role=env.str("WEB_ROLE", ALL, validate=validate.OneOf([API, REALTIME, ALL])),
            team_connections=env.int("TEAM_CONNECTIONS", 20_000, validate=validate.Range(1)),
            database_pool_size=env.int("DATABASE_POOL_SIZE", 20, validate=validate.Range(1)),
            rate_limit_auth=env.str("RATE_LIMIT_AUTH", "30 per minute", validate=_rate_limit),
            rate_limit_api=env.str("RATE_LIMIT_API", "6000 per minute", validate=_rate_limit),
            trusted_proxies=env.int("TRUSTED_PROXIES", 0, validate=validate.Range(0)),
            allowed_origins=frozenset(env.str("ALLOWED_ORIGINS", "").casefold().replace(",", " ").split()),
            session_days=env.int("SESSION_DAYS", 30, validate=validate.Range(1)),
            mail_url=env.str("MAIL_URL", (data_directory / "mail").absolute().as_uri(), validate=_mail_url),
            mail_from=env.str("MAIL_FROM", "AgentHQ <agenthq@localhost>", validate=_sender),
            public_url=env.str("PUBLIC_URL", f"http://127.0.0.1:{port}", validate=_web_url).rstrip("/"),
            metrics_token=env.str("METRICS_TOKEN", ""),
            worker_metrics_port=env.int("WORKER_METRICS_PORT", 0, validate=validate.Range(0, 65535)),
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


def _mail_url(value: str) -> None:
    if not _is_mail_url(value):
        raise ValidationError(
            "must be like file:///absolute/directory, smtp://user:password@host:587?starttls=true or smtps://host"
        )


def _is_mail_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
        port = url.port
    except ValueError:
        return False
    if url.scheme == "file":
        return not (url.netloc or url.query or url.fragment) and url.path.startswith("/")
    if url.scheme not in {"smtp", "smtps"} or not url.hostname or url.path not in {"", "/"} or url.fragment:
        return False
    allowed = [{}, {"starttls": "true"}, {"starttls": "false"}] if url.scheme == "smtp" else [{}]
    return options in allowed and port != 0 and (url.username is None) == (url.password is None)


def _sender(value: str) -> None:
    name, address = parseaddr(value)
    local, _, domain = address.rpartition("@")
    if not (local and domain and (name + address).isprintable() and value.isprintable()):
        raise ValidationError("must be like `AgentHQ <agenthq@example.com>`")


def _web_url(value: str) -> None:
    try:
        url = urlsplit(value)
        good = url.scheme in {"http", "https"} and bool(url.hostname) and not (url.query or url.fragment)
        good = good and url.port != 0 and value.isprintable() and " " not in value
    except ValueError:
        good = False
    if not good:
        raise ValidationError("must be like https://agenthq.example.com")


def sqlalchemy_url(url: str) -> str:
    """The URL with SQLAlchemy's name for psycopg 3, whichever common spelling came in."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme in {"postgres", "postgresql"} else url


@cache
def settings() -> Settings:
    """This process's settings, read once and on first use (never at import)."""
    return Settings.from_environment()
