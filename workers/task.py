"""The base of every task: what it logs. Limits, retries and acknowledgement are settings (celeryconfig.py)."""

import time
from typing import Any

import structlog
from celery import Task

from models.metrics import TASK_SECONDS
from models.tracing import CONSUMER, tracing

log = structlog.get_logger("workers")


class LoggedTask(Task):  # type: ignore[type-arg]  # generic in the stubs alone
    """
    Binds the task's name and id to every line logged while it runs.

    A task that raises is not retried by message: the work is still in PostgreSQL, and the next tick of beat finds it.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        begun, outcome = time.perf_counter(), "failure"
        try:
            with (
                structlog.contextvars.bound_contextvars(task=self.name, task_id=self.request.id),
                tracing.span(f"task {self.name}", CONSUMER),
            ):
                result = super().__call__(*args, **kwargs)
            outcome = "success"
            return result
        finally:
            TASK_SECONDS.labels(self.name, outcome).observe(time.perf_counter() - begun)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        log.error("task failed", task=self.name, task_id=task_id, error=repr(exc))
