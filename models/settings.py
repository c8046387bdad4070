"""The one reader of the environment: every setting of every process, typed and frozen."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from email.utils import parseaddr
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import limits
from environs import Env, EnvError, ValidationError, validate

from models.production import DEVELOPMENT, PRODUCTION, refuse_insecure

API, REALTIME, ALL = "api", "realtime", "all"
KEY_LENGTH = 32
"""Of an encryption key, in bytes."""
NO_PROVIDER, STRIPE = "null", "stripe"


@dataclass(frozen=True, slots=True)
class Settings:
    environment: str
    """development, or production, which refuses secrets that are missing or known (models/production.py)."""
    database_url: str
    """PostgreSQL 15 or newer, e.g. postgresql://user:password@host/name."""
    database_owner_url: str | None = field(repr=False)
    """Whom the tables belong to, where that is another role than the application's: migrations run as it, and grant."""
    redis_url: str
    """Redis 7 or newer, or Valkey; carries Celery's messages, pub/sub and rate limits, and no truth."""
    broker_url: str
    """What carries Celery's messages instead: RabbitMQ (amqp://user:password@host/vhost), or another Redis."""
    data_directory: Path
    """Where the one-machine stack keeps the embedded servers' data and the logs."""
    export_directory: Path
    """Where workers write exports of the log and web servers read them: a directory that all of them share."""
    exports_at_once: int
    """Exports that all workers together write at once; each takes one of their processes for as long as it takes."""
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
    """Whose pages may call the API and open sockets besides our own, e.g. https://app.example.com; in lower case."""
    session_days: int
    mail_url: str
    """Where mail goes: file:///directory, smtp://user:password@host:port (`?starttls=true`), or smtps://… for TLS at once."""
    mail_from: str
    """Who mails say they are from, like `Name <name@example.com>`."""
    public_url: str
    """What the links in mails begin with: how people reach this service. Without a slash at its end."""
    signing_key: str | None = field(repr=False)
    """Base64 of the 32-byte Ed25519 seed that signs checkpoints of the activity log; without it none are signed."""
    retired_signing_keys: tuple[str, ...]
    """Base64 of the public keys that signed before and still count."""
    encryption_keys: tuple[bytes, ...] = field(repr=False)
    """What secrets are kept under (models/encryption.py): the first encrypts, all decrypt. None: such secrets are refused."""
    webhook_private_networks: tuple[IPv4Network | IPv6Network, ...]
    """Networks that are not public where webhooks may be sent to all the same, and without TLS."""
    webhook_workers: int
    """Worker processes that send webhooks at once, over the whole installation."""
    billing_grace_hours: int
    """How long a month stays open for late usage once it has ended, before its invoice is final."""
    seller_name: str
    """Who issues the invoices."""
    seller_address: str
    """Line by line; `\\n` in the environment is a line's end."""
    seller_tax_id: str
    invoice_tax_note: str
    """What invoices say about tax."""
    payment_provider: str
    """null: invoices are paid by other ways; stripe: it charges them."""
    stripe_api_key: str = field(repr=False)
    stripe_webhook_secret: str = field(repr=False)
    """What Stripe signs its webhooks with."""
    stripe_api_base: str
    """Where Stripe's API is."""
    metrics_token: str
    """What `/metrics` asks for as bearer, any one of several; empty: nothing."""
    metrics_directory: str | None
    """Where processes that are watched together keep what they counted; prometheus-client reads the variable, too."""
    worker_metrics_port: int
    """Where a worker serves what its processes counted; 0: nowhere."""
    traces: bool
    """Whether traces are sent: where to and how, OpenTelemetry reads from its own variables."""
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
            environment=env.str(
                "AGENTHQ_ENV", DEVELOPMENT, validate=validate.OneOf([DEVELOPMENT, PRODUCTION])
            ),
            database_url=sqlalchemy_url(env.str("DATABASE_URL")),
            database_owner_url=sqlalchemy_url(env.str("DATABASE_OWNER_URL", "")) or None,
            redis_url=env.str("REDIS_URL"),
            broker_url=env.str("BROKER_URL", "", validate=_broker_url) or env.str("REDIS_URL"),
            data_directory=data_directory,
            export_directory=Path(env.str("EXPORT_DIRECTORY", "") or data_directory / "exports"),
            exports_at_once=env.int("EXPORTS_AT_ONCE", 1, validate=validate.Range(1)),
            bind_host=env.str("BIND_HOST", "127.0.0.1"),
            port=port,
            web_workers=env.int("WEB_WORKERS", 2, validate=validate.Range(1)),
            web_role=env.str("WEB_ROLE", ALL, validate=validate.OneOf([API, REALTIME, ALL])),
            team_connections=env.int("TEAM_CONNECTIONS", 20_000, validate=validate.Range(1)),
            database_pool_size=env.int("DATABASE_POOL_SIZE", 20, validate=validate.Range(1)),
            rate_limit_auth=env.str("RATE_LIMIT_AUTH", "30 per minute", validate=_rate_limit),
            rate_limit_api=env.str("RATE_LIMIT_API", "6000 per minute", validate=_rate_limit),
            trusted_proxies=env.int("TRUSTED_PROXIES", 0, validate=validate.Range(0)),
            allowed_origins=_origins(env.str("ALLOWED_ORIGINS", "", validate=_origin_list)),
            session_days=env.int("SESSION_DAYS", 30, validate=validate.Range(1)),
            mail_url=env.str("MAIL_URL", (data_directory / "mail").absolute().as_uri(), validate=_mail_url),
            mail_from=env.str("MAIL_FROM", "AgentHQ <agenthq@localhost>", validate=_sender),
            public_url=env.str("PUBLIC_URL", f"http://127.0.0.1:{port}", validate=_web_url).rstrip("/"),
            signing_key=env.str("SIGNING_KEY", "", validate=_key) or None,
            retired_signing_keys=tuple(
                env.str("RETIRED_SIGNING_KEYS", "", validate=_public_keys).replace(",", " ").split()
            ),
            encryption_keys=_keys(env.str("ENCRYPTION_KEY", "", validate=_encryption_key)),
            webhook_private_networks=_networks(
                env.str("WEBHOOK_PRIVATE_NETWORKS", "", validate=_network_list)
            ),
            webhook_workers=env.int("WEBHOOK_WORKERS", 2, validate=validate.Range(1)),
            billing_grace_hours=env.int("BILLING_GRACE_HOURS", 24, validate=validate.Range(0, 28 * 24)),
            seller_name=env.str("SELLER_NAME", "AgentHQ", validate=validate.Length(1, 255)),
            seller_address=env.str("SELLER_ADDRESS", "").replace("\\n", "\n"),
            seller_tax_id=env.str("SELLER_TAX_ID", ""),
            invoice_tax_note=env.str("INVOICE_TAX_NOTE", "Prices are net; no VAT or other tax is included."),
            payment_provider=env.str(
                "PAYMENT_PROVIDER", NO_PROVIDER, validate=validate.OneOf([NO_PROVIDER, STRIPE])
            ),
            stripe_api_key=_when_stripe(env, "STRIPE_API_KEY"),
            stripe_webhook_secret=_when_stripe(env, "STRIPE_WEBHOOK_SECRET"),
            stripe_api_base=env.str("STRIPE_API_BASE", "https://api.stripe.com", validate=_web_url).rstrip(
                "/"
            ),
            metrics_token=env.str("METRICS_TOKEN", ""),
            metrics_directory=env.str("PROMETHEUS_MULTIPROC_DIR", "") or None,
            worker_metrics_port=env.int("WORKER_METRICS_PORT", 0, validate=validate.Range(0, 65535)),
            traces=not env.bool("OTEL_SDK_DISABLED", False)
            and bool(
                env.str("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
                or env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "")
            ),
            log_level=env.str(
                "LOG_LEVEL", "INFO", validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"])
            ),
            log_format=env.str("LOG_FORMAT", "json", validate=validate.OneOf(["json", "console"])),
        )


def _when_stripe(env: Env, name: str) -> str:
    """Needed where Stripe charges, and of no use elsewhere."""
    return env.str(name) if env.str("PAYMENT_PROVIDER", NO_PROVIDER) == STRIPE else env.str(name, "")


def _broker_url(value: str) -> None:
    if value and urlsplit(value).scheme not in {"amqp", "amqps", "redis", "rediss", "unix"}:
        raise ValidationError("must be like amqp://user:password@host/vhost or redis://:password@host:6379/0")


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


def _key(value: str) -> None:
    try:
        good = not value or len(base64.b64decode(value, validate=True)) == 32
    except (binascii.Error, ValueError):  # no base64, or beyond ASCII
        good = False
    if not good:  # without the value, which is secret
        raise ValidationError("must be the base64 of 32 bytes, like `openssl rand -base64 32` makes")


def _public_keys(value: str) -> None:
    for key in value.replace(",", " ").split():
        _key(key)


def _keys(value: str) -> tuple[bytes, ...]:
    return tuple(base64.b64decode(each, validate=True) for each in value.replace(",", " ").split())


def _encryption_key(value: str) -> None:
    try:
        good = all(len(key) == KEY_LENGTH for key in _keys(value))
    except binascii.Error:
        good = False
    if not good:
        raise ValidationError(
            f"must be {KEY_LENGTH} random bytes in base64; of several keys, the first encrypts"
        )


def _origins(value: str) -> frozenset[str]:
    return frozenset(value.casefold().replace(",", " ").split())


def _origin_list(value: str) -> None:
    for origin in _origins(value):
        if not re.fullmatch(r"https?://[a-z0-9._-]+(:[0-9]{1,5})?", origin):
            raise ValidationError("must be origins like https://app.example.com, without a path and by name")


def _networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(each) for each in value.replace(",", " ").split())


def _network_list(value: str) -> None:
    try:
        _networks(value)
    except ValueError as error:
        raise ValidationError("must be networks like 10.0.0.0/8, fd00::/8") from error


def sqlalchemy_url(url: str) -> str:
    """The URL with SQLAlchemy's name for psycopg 3, whichever common spelling came in."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme in {"postgres", "postgresql"} else url


@cache
def settings() -> Settings:
    """
    This process's settings, read once and on first use (never at import). Raises environs.EnvError for what is missing or
    malformed, and InsecureSettings (which is one) for secrets that production refuses.
    """
    found = Settings.from_environment()
    refuse_insecure(found)
    return found


def settings_or_exit() -> Settings:
    """For what starts a process: `settings`, or one line that says what is wrong with them, and exit code 1."""
    try:
        return settings()
    except EnvError as error:
        raise SystemExit(f"error: {error}") from error
