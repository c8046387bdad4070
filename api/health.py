"""Whether this process lives, and whether the product can serve."""

from flask import Blueprint, Response
from redis import Redis, RedisError
from sqlalchemy import text

from api.json import dumps
from api.resource import PUBLIC, requires
from models.database import transaction
from models.errors import DomainError
from models.settings import settings

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("/live")
@requires(PUBLIC)
def live() -> Response:
    """200 while the process answers at all."""
    return _answer(200, {"status": "live"})


@blueprint.get("/ready")
@requires(PUBLIC)
def ready() -> Response:
    """
    200 when requests can be served, 503 when not: that takes the database, migrated.

    Redis away is `degraded` and still 200: the log and the sockets lag, and nothing is lost or refused.
    """
    checks = {"database": _database(), "redis": _redis()}
    if checks["database"] != "ok":
        return _answer(503, {"status": "unavailable", "checks": checks})
    return _answer(200, {"status": "ready" if checks["redis"] == "ok" else "degraded", "checks": checks})


def _database() -> str:
    try:
        with transaction() as session:
            migrated = session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    except DomainError:
        return "away"
    return "ok" if migrated else "not migrated"


def _redis() -> str:
    try:
        with Redis.from_url(settings().redis_url, socket_timeout=1, socket_connect_timeout=1) as redis:
            redis.ping()
    except RedisError:
        return "away"
    return "ok"


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(dumps(body), status=status, mimetype="application/json")
