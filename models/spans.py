"""Spans by OpenTelemetry. Imported only where traces are on (models/tracing.py)."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from opentelemetry.context import Context, get_current
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROPAGATOR = TraceContextTextMapPropagator()


class Spans:
    """A thread sends them in batches over OTLP, as OpenTelemetry's variables say; to `exporter` they go at once."""

    def __init__(self, service: str, exporter: SpanExporter | None) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        processor = SimpleSpanProcessor(exporter) if exporter else BatchSpanProcessor(OTLPSpanExporter())
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("agenthq")

    def span(
        self, name: str, kind: str, attributes: Mapping[str, str | int], parent: str | None
    ) -> AbstractContextManager[Span]:
        return self._tracer.start_as_current_span(
            name,
            context=_context(parent) if parent else None,
            kind=SpanKind[kind],
            attributes=dict(attributes),
        )

    def past_span(
        self, name: str, parent: str, begun_ns: int, ended_ns: int, links: Iterable[str]
    ) -> str | None:
        span = self._tracer.start_span(
            name,
            context=_context(parent),
            kind=SpanKind.CONSUMER,
            links=[Link(get_current_span(_context(each)).get_span_context()) for each in links],
            start_time=begun_ns,
        )
        span.end(ended_ns)
        return _traceparent(set_span_in_context(span))

    def traceparent(self) -> str | None:
        return _traceparent(get_current())

    def shutdown(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def _traceparent(context: Context) -> str | None:
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier, context)
    return carrier.get("traceparent")


def _context(traceparent: str) -> Context:
    return PROPAGATOR.extract({"traceparent": traceparent}, context=Context())
