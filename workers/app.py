"""The Celery application: `celery -A workers.app worker` and `celery -A workers.app beat`."""

import logging
import os
from typing import Any

from celery import Celery, signals
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from models.database import forget_engine
from models.logs import configure_logs
from models.settings import settings
from workers.task import LoggedTask

app = Celery(
    "agenthq",
    config_source="celeryconfig",
    task_cls=LoggedTask,
    include=[
        "workers.outbox",
        "workers.usage",
        "workers.activity",
        "workers.exports",
        "workers.mail",
        "workers.webhooks",
        "workers.tasks",
        "workers.billing",
        "workers.payments",
        "workers.maintenance",
        "workers.retention",
    ],
)


@signals.setup_logging.connect
def set_up_logs(**_: Any) -> None:
    configure_logs(level=settings().log_level, format_=settings().log_format)
    for name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a line for each tick says nothing
    logging.getLogger("celery.beat").addFilter(without_traceback)


def without_traceback(record: logging.LogRecord) -> bool:
    """One line for each tick that found the broker away, where beat has twenty kilobytes of stack."""
    if record.exc_info:
        record.msg, record.args, record.exc_info = "%r", (record.exc_info[1],), None
    return True


@signals.worker_ready.connect
def serve_metrics(**_: Any) -> None:
    """On WORKER_METRICS_PORT, where no web process reads the directory of this worker's processes."""
    if (port := settings().worker_metrics_port) and os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        start_http_server(port, registry=registry)


@signals.worker_process_shutdown.connect
def forget_process(pid: int, **_: Any) -> None:
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


@signals.worker_process_init.connect
def start_process(**_: Any) -> None:
    """Connections don't survive a fork."""
    forget_engine()
