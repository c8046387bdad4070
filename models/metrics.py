"""
What operators watch, in Prometheus' terms (docs/operations). Each process counts its own; where PROMETHEUS_MULTIPROC_DIR names a
directory, processes that share it are read together. What stands in the database is read from there instead, when it is
asked for (models/queries/backlog.py). No label names a team or a person: there would be too many.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    start_http_server,
)
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

from models.settings import settings

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

HTTP_SECONDS = Histogram(
    "agenthq_http_request_duration_seconds",
    "From the request's arrival to its answer, by route (as declared, without ids).",
    ["method", "route", "status"],
    buckets=SECONDS,
)
ENTER_SECONDS = Histogram(
    "agenthq_enter_team_seconds",
    "What authenticating a credential and entering its team takes.",
    buckets=(0.0001, 0.00025, 0.0005, *SECONDS),
)
CALLS_COUNTED = Histogram(
    "agenthq_api_calls_per_commit",
    "API calls that one commit counted (group commit).",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
SOCKETS = Gauge("agenthq_sockets", "Open sockets.", multiprocess_mode="livesum")
SOCKETS_CLOSED = Counter("agenthq_sockets_closed_total", "Sockets that we closed, by close code.", ["code"])
FRAMES = Counter("agenthq_frames_total", "Events and messages shown, once for each socket.")
EVENTS_DRAINED = Counter("agenthq_events_drained_total", "Events that went from the outbox to the log.")
DRAIN_LAG = Histogram(
    "agenthq_drain_lag_seconds",
    "From an event's transaction to the log, of each batch's oldest.",
    buckets=SECONDS,
)
EVENTS_UNPUBLISHED = Counter(
    "agenthq_events_unpublished_total",
    "Events that Redis did not take; each web process reads them from the log.",
)
EVENTS_REREAD = Counter(
    "agenthq_events_reread_total",
    "Events that a web process read from the log: replays, and what Redis lost.",
)
USAGE_FOLDED = Counter(
    "agenthq_usage_rows_folded_total", "Ledger rows that were folded into the daily usage."
)
FOLD_SECONDS = Histogram(
    "agenthq_usage_fold_seconds", "What folding one batch of the ledger takes.", buckets=SECONDS
)
DELIVERIES = Counter(
    "agenthq_webhook_deliveries_total",
    "POSTs to webhooks by outcome: delivered, or what was wrong (status, timeout, connection, tls, …).",
    ["outcome"],
)
DELIVERY_SECONDS = Histogram(
    "agenthq_webhook_delivery_seconds", "What a POST to a webhook takes.", buckets=SECONDS
)
MAILS = Counter("agenthq_mails_total", "Mails by outcome: sent, refused or failed.", ["outcome"])
EXPORTS = Counter(
    "agenthq_exports_total", "Attempts at exports by outcome: completed, lost or failed.", ["outcome"]
)
PAYMENTS = Counter(
    "agenthq_payment_orders_total",
    "Orders to the payment provider by outcome: done, refused or failed.",
    ["outcome"],
)
CLOSES = Counter(
    "agenthq_month_closes_total", "Months by what their close came to: final or mismatch.", ["outcome"]
)
TASK_SECONDS = Histogram(
    "agenthq_task_duration_seconds",
    "Background tasks by name and outcome: success or failure.",
    ["task", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)


COUNTED = re.compile(r"(?:counter|histogram)_(\d+)\.db")
GONE = "gone"
"""In place of a process's number in the names of the files that keep what those counted that are gone."""


def counted() -> bytes:
    """In Prometheus' text format what this process counted, and those that share its directory, dead ones included."""
    if not settings().metrics_directory:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    with _alone():
        _retire_dead()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class CountedCollector(Collector):
    """What processes that share a directory counted."""

    def collect(self) -> list[Metric]:
        with _alone():
            _retire_dead()
            return list(MultiProcessCollector(CollectorRegistry()).collect())  # type: ignore[no-untyped-call]


def serve(port: int) -> None:
    """Serves what the processes of this directory counted to whoever asks on the port, in a thread of its own."""
    registry = CollectorRegistry()
    registry.register(CountedCollector())
    start_http_server(port, registry=registry)


def retire_dead() -> None:
    """
    Adds up what processes counted that are gone, into one file: each would leave its own for ever, workers are replaced many
    times a day, and a reading opens them all.
    """
    if settings().metrics_directory:
        with _alone():
            _retire_dead()


def _retire_dead() -> None:
    directory = Path(settings().metrics_directory or "")
    for file in directory.glob("*.db"):
        pid = file.stem.rpartition("_")[2]
        if not pid.isdigit() or _lives(int(pid)):
            continue
        if COUNTED.fullmatch(file.name):
            gone = MmapedDict(str(file.with_name(file.name.replace(pid, GONE))))  # type: ignore[no-untyped-call]
            for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                before, _ = gone.read_value(key)  # type: ignore[no-untyped-call]
                gone.write_value(key, before + value, timestamp)  # type: ignore[no-untyped-call]
            gone.close()  # type: ignore[no-untyped-call]
        file.unlink()


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return True
    return False


@contextmanager
def _alone() -> Iterator[None]:
    """While nobody else reads or adds up the directory's files, so that nothing is counted twice or missed."""
    with (Path(settings().metrics_directory or "") / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
