"""Threads that start at one moment, and what they came to."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def together(*calls: Callable[[], Any], seconds: float = 60) -> list[Any]:
    """Runs each call in a thread of its own, all from the same moment; what each returned, or the Exception it raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(seconds)
        try:
            return call()
        except Exception as error:  # noqa: BLE001  the test judges it
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(seconds) for future in [pool.submit(run, call) for call in calls]]


def raised(outcomes: Sequence[Any]) -> list[type[BaseException]]:
    return [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]


class FellOver(BaseException):
    """The worker's process ends here."""


def dying(work: Callable[..., Any]) -> Callable[..., Any]:
    """Does the work, and dies before its commit."""

    def die(*arguments: Any, **named: Any) -> Any:
        work(*arguments, **named)
        raise FellOver

    return die
