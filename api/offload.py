"""What would stop the event loop goes to a thread."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from gevent import monkey
from gevent.threadpool import ThreadPool

T = TypeVar("T")


@cache
def _threads() -> Any:
    return ThreadPool(2)  # as many as argon2 can use of our cores without starving the event loops


def off_the_loop(function: Callable[..., T], *arguments: Any) -> T:
    """Calls the function on a real thread under gevent, so that every other request and socket goes on; else right here."""
    if not monkey.is_module_patched("threading"):
        return function(*arguments)
    result: T = _threads().apply(function, arguments)
    return result
