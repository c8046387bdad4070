"""The web server: gevent workers, each of which keeps thousands of sockets open."""

# ruff: noqa: N999 (the name that gunicorn's users look for)

from gevent import monkey

monkey.patch_all()  # before anything else is imported: what keeps an unpatched socket or lock blocks every other socket

import gc  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from prometheus_client.multiprocess import mark_process_dead  # noqa: E402

from models.settings import settings  # noqa: E402

_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(
    resource.RLIMIT_NOFILE, (_hard, _hard)
)  # a socket is a file descriptor, and 1024 is the usual limit

bind = f"{settings().bind_host}:{settings().port}"
backlog = 4096
workers = settings().web_workers
worker_class = "gevent"
worker_connections = 20_000
keepalive = 75
graceful_timeout = 5  # the supervisor kills after 7, a container runtime after 10

accesslog = None  # the application logs its requests itself; a line from here would hold `?token=`
errorlog = "-"
control_socket_disable = True

# The application alone reads X-Forwarded-*, from as many proxies as TRUSTED_PROXIES says.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}


def post_worker_init(worker: Any) -> None:
    """Runs in each worker once its application is loaded."""
    gc.collect()
    gc.freeze()  # else each full collection walks through all that never goes away, while every socket waits
    gevent.spawn(_close_sockets_on_stop, worker)


def child_exit(_server: Any, worker: Any) -> None:
    """A worker that is gone has no open sockets; what it counted stays."""
    if settings().metrics_directory:
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def worker_exit(_server: Any, _worker: Any) -> None:
    """Sockets are no requests to gunicorn, which would end the worker in the middle of their goodbyes."""
    _close_sockets()


def _close_sockets_on_stop(worker: Any) -> None:
    """Tells long-lived sockets to go (1001) as soon as the worker has to."""
    while worker.alive:
        gevent.sleep(0.2)
    _close_sockets()


def _close_sockets() -> None:
    hub = sys.modules.get("realtime.hub")  # not loaded: no socket was ever opened here
    if hub is not None:
        hub.close_all()
