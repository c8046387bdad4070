"""Whether this process lives, and whether the product can serve."""

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from flask import Blueprint, Response
from redis import Redis, RedisError
from sqlalchemy import text

from api.json import dumps
from api.resource import PUBLIC, requires
from models.database import transaction
from models.errors import DomainError
from models.queries.backlog import oldest_event_s
from models.settings import settings

blueprint = Blueprint("health", __name__, url_prefix="/health")
MIGRATIONS = Path(__file__).parent.parent / "migrations"
OUTBOX_WAITS_S = 30.0
"""So long the oldest event waits before the workers are said to be behind; they take tens of milliseconds."""
OK, AWAY = "ok", "away"


@blueprint.get("/live")
@requires(PUBLIC)
def live() -> Response:
    """200 while the process answers at all."""
    return _answer(200, {"status": "live"})


@blueprint.get("/ready")
@requires(PUBLIC)
def ready() -> Response:
    """
    200 when requests can be served, 503 when not: that takes the database, migrated at least as far as this release.

    Redis away, or events that wait for a worker, are `degraded` and still 200: the log and the sockets lag, and nothing is lost
    or refused. A database that a newer release has migrated is `ahead`, which this one can serve (docs/operations).
    """
    checks = {**_database(), "redis": _redis()}
    if checks["database"] != OK or checks["migrations"] not in {OK, "ahead"}:
        return _answer(503, {"status": "unavailable", "checks": checks})
    well = checks["redis"] == OK and checks["outbox"] == OK
    return _answer(200, {"status": "ready" if well else "degraded", "checks": checks})


def _database() -> dict[str, str]:
    unknown = {"migrations": "unknown", "outbox": "unknown"}
    try:
        with transaction() as session:
            if session.scalar(text("SELECT to_regclass('alembic_version')")) is None:
                return {"database": OK, **unknown, "migrations": "missing"}
            found = session.scalar(text("SELECT version_num FROM alembic_version"))
            migrations = _compared(found)
            if migrations not in {OK, "ahead"}:
                return {"database": OK, **unknown, "migrations": migrations}
            waits = oldest_event_s(session) > OUTBOX_WAITS_S
    except DomainError:
        return {"database": AWAY, **unknown}
    return {"database": OK, "migrations": migrations, "outbox": "waiting" if waits else OK}


def _compared(revision: str | None) -> str:
    """The database's revision, beside what this release needs."""
    head, known = revisions()
    if revision == head:
        return OK
    if revision is None:
        return "missing"
    return "behind" if revision in known else "ahead"


@cache
def revisions() -> tuple[str | None, frozenset[str]]:
    """The newest migration of this release, and all of them."""
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(configuration)
    return script.get_current_head(), frozenset(each.revision for each in script.walk_revisions())


def _redis() -> str:
    try:
        with Redis.from_url(settings().redis_url, socket_timeout=1, socket_connect_timeout=1) as redis:
            redis.ping()
    except RedisError:
        return AWAY
    return OK


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(dumps(body), status=status, mimetype="application/json")
