"""The Celery application: `celery -A workers.app worker` and `celery -A workers.app beat`."""

import logging
from typing import Any

from celery import Celery, signals

from models.database import forget_engine
from models.logs import configure_logs
from models.metrics import retire_dead, serve
from models.settings import settings
from models.tracing import tracing
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
    if (port := settings().worker_metrics_port) and settings().metrics_directory:
        serve(port)


@signals.worker_process_init.connect
def start_process(**_: Any) -> None:
    """Connections don't survive a fork. The process that this one follows has left its counts."""
    forget_engine()
    retire_dead()
    tracing.start("agenthq-worker")


@signals.worker_process_shutdown.connect
def end_process(**_: Any) -> None:
    """What was traced and not sent yet goes now."""
    tracing.stop()
