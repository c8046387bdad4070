"""
What operators watch, in Prometheus' terms (docs/operations). Each process counts its own; where PROMETHEUS_MULTIPROC_DIR names a
directory, processes that share it are read together. What stands in the database is read from there instead, when it is
asked for (models/queries/backlog.py). No label names a team or a person: there would be too many.
"""

from prometheus_client import Counter, Gauge, Histogram

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
TASK_SECONDS = Histogram(
    "agenthq_task_duration_seconds",
    "Background tasks by name and outcome: success or failure.",
    ["task", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
