"""
Traces, in OpenTelemetry's terms: from a request through its commit, the outbox and the drain to what is published. Off unless an
OTLP endpoint is set (OTEL_EXPORTER_OTLP_ENDPOINT, docs/operations); off, nothing of it is loaded, and a span costs a
comparison.

An event carries its request's place in the trace through the outbox, as W3C's `traceparent`. No attribute names a person.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from models.settings import settings

if TYPE_CHECKING:
    from models.spans import Spans

SERVER, CONSUMER, INTERNAL = "SERVER", "CONSUMER", "INTERNAL"
NOTHING: AbstractContextManager[Any] = nullcontext()


class Tracing:
    """This process's; off until `start`."""

    def __init__(self) -> None:
        self._spans: Spans | None = None

    @property
    def on(self) -> bool:
        return self._spans is not None

    def start(self, service: str, exporter: Any = None) -> None:
        """
        Traces from now on, to the endpoint of the settings or to `exporter`; nothing where neither is there. Call it after the fork:
        a thread sends the spans.
        """
        if self._spans is None and (exporter is not None or settings().traces):
            self._spans = import_module("models.spans").Spans(service, exporter)

    def stop(self) -> None:
        """Sends what is left, and traces no more."""
        spans, self._spans = self._spans, None
        if spans is not None:
            spans.shutdown()

    def span(
        self,
        name: str,
        kind: str = INTERNAL,
        attributes: Mapping[str, str | int] = {},
        *,
        parent: str | None = None,
    ) -> AbstractContextManager[Any]:
        """What happens in the block: within the present span, or the one that `parent` names."""
        return self._spans.span(name, kind, attributes, parent) if self._spans else NOTHING

    def past_span(
        self, name: str, parent: str, begun_ns: int, ended_ns: int, links: Iterable[str] = ()
    ) -> str | None:
        """What happened between two times (`now_ns`) in the trace of `parent`, told afterwards; its own place in it."""
        return self._spans.past_span(name, parent, begun_ns, ended_ns, links) if self._spans else None

    def traceparent(self) -> str | None:
        """The present span's place in its trace, for who goes on with it elsewhere; None outside of any that is recorded."""
        return self._spans.traceparent() if self._spans else None


tracing = Tracing()
now_ns = time.time_ns
