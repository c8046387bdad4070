"""Another process of a benchmark or a fault test, asked through a pipe."""

from collections.abc import Callable
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Self


class Child:
    """From outside. `run` gets its end of the pipe, then the arguments, and answers each call; with an error, it is raised here."""

    def __init__(self, run: Callable[..., None], *arguments: Any) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(theirs, *arguments), daemon=True)
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def call(self, *message: Any) -> Any:
        self._pipe.send(message)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer
