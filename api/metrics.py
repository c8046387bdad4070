"""`/metrics`: what this process and those beside it counted, and what waits in the database (models/metrics.py)."""

import hmac
import os
import time
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

from api.resource import PUBLIC, requires
from models.database import transaction
from models.errors import DomainError, NotFound
from models.metrics import HTTP_SECONDS
from models.queries.backlog import backlog
from models.settings import settings

blueprint = Blueprint("metrics", __name__)
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
HELP = {
    "outbox_events": "Events that wait to be drained into the log.",
    "outbox_seconds": "Age of the oldest event that waits.",
    "usage_rows": "Ledger rows that are not folded yet.",
    "usage_seconds": "Age of the oldest of them.",
    "mails": "Mails that wait to be sent.",
    "mails_failed": "Mails that were given up.",
    "tasks_expired": "Tasks whose lease ran out and that nobody returned yet.",
}


class BacklogCollector(Collector):
    """Asks the database when it is asked; away, it says so and the rest is still told."""

    def collect(self) -> Iterator[Metric]:
        try:
            with transaction() as session:
                found = backlog(session)
        except DomainError:
            yield GaugeMetricFamily("agenthq_database_up", "Whether the database answers.", value=0)
            return
        yield GaugeMetricFamily("agenthq_database_up", "Whether the database answers.", value=1)
        for name, description in HELP.items():
            yield GaugeMetricFamily(f"agenthq_backlog_{name}", description, value=getattr(found, name))


@blueprint.get("/metrics")
@requires(PUBLIC)
def metrics() -> Response:
    """In Prometheus' text format; for whoever sends METRICS_TOKEN as bearer, if one is set."""
    wanted = settings().metrics_token
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    if wanted and not (scheme.lower() == "bearer" and hmac.compare_digest(sent.encode(), wanted.encode())):
        raise NotFound("page")
    registry = CollectorRegistry()
    if os.environ.get(DIRECTORY):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(BacklogCollector())
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def observe(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "none"
    if request.endpoint != "realtime.serve":  # a handshake's answer says nothing
        HTTP_SECONDS.labels(request.method, route, str(response.status_code)).observe(
            time.perf_counter() - g.started
        )
    return response


def register(app: Flask) -> None:
    app.after_request(observe)
    app.register_blueprint(blueprint)
