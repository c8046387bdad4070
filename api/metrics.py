"""`/metrics`: what this process and those beside it counted, and what waits in the database (models/metrics.py)."""

import hmac
import time
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from api.resource import PUBLIC, requires
from models.database import transaction
from models.errors import DomainError, NotFound
from models.metrics import HTTP_SECONDS, counted
from models.queries.backlog import backlog
from models.settings import settings

blueprint = Blueprint("metrics", __name__)
HELP = {
    "outbox_events": "Events that wait to be drained into the log.",
    "outbox_seconds": "Age of the oldest event that waits.",
    "usage_rows": "Ledger rows that are not folded yet.",
    "usage_seconds": "Age of the oldest of them.",
    "mails": "Mails that wait to be sent.",
    "mails_seconds": "For how long the one has been due that has been for longest.",
    "mails_failed": "Mails that were given up.",
    "tasks_expired": "Tasks whose lease ran out and that nobody returned yet.",
    "webhooks": "Webhooks that are behind their team's log and could be sent to now.",
    "webhooks_seconds": "For how long the one could have been that has waited for longest.",
    "deliveries_dead": "Deliveries that were given up.",
    "exports": "Exports of logs that wait or are being written.",
    "exports_seconds": "For how long the one has been due that has been for longest.",
    "payments": "Orders to the payment provider that wait.",
    "payments_failed": "Orders to the payment provider that were given up.",
    "closes_mismatched": "Months that can't be closed, as their sums differ.",
    "usage_differences": "Days on which what was folded is not what the ledger says.",
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
    """In Prometheus' text format; for whoever sends METRICS_TOKEN, or one of several, as bearer, if any is set."""
    wanted = settings().metrics_token.replace(",", " ").split()
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    known = [hmac.compare_digest(sent.encode(), each.encode()) for each in wanted]
    if wanted and not (scheme.lower() == "bearer" and any(known)):
        raise NotFound("page")
    registry = CollectorRegistry()
    registry.register(BacklogCollector())
    waiting = generate_latest(registry)
    return Response(counted() + waiting, content_type=CONTENT_TYPE_LATEST)


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
