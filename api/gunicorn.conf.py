"""
The web server: gevent workers, each of which keeps thousands of sockets open.

The master loads nothing of the product but its settings, and forgets these again: on SIGHUP it starts workers with the code as it
is then. The old ones serve on until the new ones can, which takes seconds, and then finish what they are at.
"""

# ruff: noqa: N999 (the name that gunicorn's users look for)

from gevent import monkey

monkey.patch_all()  # before anything else is imported: what keeps an unpatched socket or lock blocks every other socket

import gc  # noqa: E402
import mmap  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from importlib.machinery import SourceFileLoader  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from models.settings import settings_or_exit  # noqa: E402

settings = settings_or_exit()
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(
    resource.RLIMIT_NOFILE, (_hard, _hard)
)  # a socket is a file descriptor, and 1024 is the usual limit

bind = f"{settings.bind_host}:{settings.port}"
backlog = 4096
workers = settings.web_workers
worker_connections = 20_000
keepalive = 75
graceful_timeout = 30  # for what is being answered; idle connections are closed sooner (`Worker`)

accesslog = None  # the application logs its requests itself; a line from here would hold `?token=`
errorlog = "-"
control_socket_disable = True

# The application alone reads X-Forwarded-*, from as many proxies as TRUSTED_PROXIES says.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}

del sys.modules["models.settings"]

# By its path: as a part of the package it would bring the whole product into the master.
web_worker: Any = ModuleType("web_worker")
SourceFileLoader(web_worker.__name__, str(Path(__file__).with_name("web_worker.py"))).exec_module(web_worker)
worker_class = web_worker.Worker


def on_starting(server: Any) -> None:
    server.followers = mmap.mmap(-1, web_worker.READY_AT + web_worker.LARGEST_AGE)


def on_reload(server: Any) -> None:
    first, last = server.worker_age + 1, server.worker_age + server.cfg.workers
    for age in range(first, last + 1):
        server.followers[web_worker.READY_AT + age % web_worker.LARGEST_AGE] = 0
    web_worker.AGES.pack_into(server.followers, 0, first, last)


def pre_fork(server: Any, worker: Any) -> None:
    worker.followers = server.followers


def post_fork(_server: Any, _worker: Any) -> None:
    """A worker whose master was killed stops by itself, and lets go of the port that the next master needs."""
    from models.processes import die_with_parent

    die_with_parent(signal.SIGTERM)


def post_worker_init(worker: Any) -> None:
    """Runs in each worker once its application is loaded."""
    from models.metrics import retire_dead
    from models.tracing import tracing

    gc.collect()
    gc.freeze()  # else each full collection walks through all that never goes away, while every socket waits
    retire_dead()  # those that this worker follows
    tracing.start("agenthq-web")
    gevent.spawn(_close_sockets_on_stop, worker)
    worker.followers[web_worker.READY_AT + worker.age % web_worker.LARGEST_AGE] = 1


def worker_exit(_server: Any, _worker: Any) -> None:
    """Sockets are no requests to gunicorn, which would end the worker in the middle of their goodbyes."""
    from models.tracing import tracing

    _close_sockets()
    tracing.stop()


def _close_sockets_on_stop(worker: Any) -> None:
    """Tells long-lived sockets to go (1001) as soon as the worker has to."""
    while worker.alive:
        gevent.sleep(0.2)
    _close_sockets()


def _close_sockets() -> None:
    hub = sys.modules.get("realtime.hub")  # not loaded: no socket was ever opened here
    if hub is not None:
        hub.close_all()
