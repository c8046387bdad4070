"""Traces: off by default and free, on they lead from the request through commit, outbox and drain to what was published."""

import gzip
import subprocess
import sys
import threading
import timeit
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from flask import Flask
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from models.settings import Settings, settings
from models.tracing import tracing
from realtime.publisher import connect
from tests.factories import TeamSetting, drain, fetch, make_team
from workers.outbox import drain_batch, sweep

CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    made = make_team(app)
    drain()
    return made


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    tracing.start("agenthq-tests", kept)
    yield kept
    tracing.stop()


def make_task(team: TeamSetting, **headers: str) -> None:
    path = f"{team.path}/workspaces/{team.workspace_id}/tasks"
    made = team.owner.post(path, json={"title": "Trace it"}, headers=headers)
    assert made.status_code == 201


def drain_here() -> None:
    while drain_batch(connect(settings().redis_url)):
        pass


def named(spans: Any, name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.name == name]
    assert isinstance(found, ReadableSpan)
    return found


def test_one_trace_from_the_request_to_what_is_published(
    team: TeamSetting, exporter: InMemorySpanExporter
) -> None:
    make_task(team, traceparent=CALLERS)
    sweep()
    spans = exporter.get_finished_spans()
    route = "/api/v1/teams/<uuid:team_id>/workspaces/<uuid:workspace_id>/tasks"
    request = named(spans, f"POST {route}")
    ours = [span for span in spans if span.context.trace_id == int(CALLERS.split("-")[1], 16)]
    assert request in ours
    assert request.parent is not None
    assert request.parent.span_id == int(CALLERS.split("-")[2], 16)
    assert dict(request.attributes or {})["http.response.status_code"] == 201
    (operation,) = [span for span in ours if span.name.startswith("operation ")]
    drained, published = named(ours, "drain"), named(ours, "publish")
    commits = [span for span in ours if span.name == "commit"]
    for child, parent in ((operation, request), (published, drained), *((each, request) for each in commits)):
        assert child.parent is not None
        assert child.parent.span_id == parent.context.span_id
    assert commits
    assert drained.parent is not None
    assert drained.parent.span_id in {operation.context.span_id, request.context.span_id}
    run = named(spans, "task outbox.sweep")
    assert [link.context.span_id for link in drained.links] == [run.context.span_id]
    times = [each.start_time or 0 for each in (request, operation, drained, published)]
    assert times == sorted(times)
    for span in ours:
        said = str(dict(span.attributes or {})) + span.name
        assert not any(secret in said for secret in (team.owner.token, team.owner.email, str(team.owner.id)))


def test_each_request_has_its_own_trace_and_a_bad_header_is_nobodys(
    team: TeamSetting, exporter: InMemorySpanExporter
) -> None:
    make_task(team)
    make_task(team, traceparent="nonsense")
    drain_here()
    spans = exporter.get_finished_spans()
    traces = {span.context.trace_id for span in spans if span.name == "drain"}
    assert len(traces) == 2
    for trace in traces:
        assert {"publish", "commit"} <= {span.name for span in spans if span.context.trace_id == trace}


def test_an_error_ends_its_span(team: TeamSetting, exporter: InMemorySpanExporter) -> None:
    assert team.owner.get("/teams/nowhere").status_code == 404
    assert team.viewer.delete(team.path).status_code == 403
    statuses = {
        dict(span.attributes or {}).get("http.response.status_code") for span in exporter.get_finished_spans()
    }
    assert {404, 403} <= statuses
    assert tracing.traceparent() is None


class Collector(BaseHTTPRequestHandler):
    received: list[tuple[str, ExportTraceServiceRequest]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_collector_gets_them_over_otlp(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    try:
        tracing.start("agenthq-tests", OTLPSpanExporter())
        make_task(team)
        drain_here()
    finally:
        tracing.stop()
        server.shutdown()
        server.server_close()
    assert {path for path, _ in Collector.received} == {"/v1/traces"}
    spans = [
        span
        for _, request in Collector.received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_name = {span.name.split(" ")[0]: span for span in spans}
    assert {"POST", "operation", "commit", "drain", "publish"} <= set(by_name)
    assert len({by_name[name].trace_id for name in ("POST", "operation", "drain", "publish")}) == 1


def test_off_nothing_is_kept_imported_or_paid_for(team: TeamSetting) -> None:
    assert not tracing.on
    make_task(team, traceparent=CALLERS)
    assert fetch("SELECT traceparent FROM outbox WHERE team_id = :id", id=team.id) == [(None,)]
    drain()
    code = "import sys, wsgi, workers.outbox; sys.exit('models.spans' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    spans = 10_000
    assert timeit.timeit(lambda: tracing.span("nothing"), number=spans) / spans < 5e-6


@pytest.mark.parametrize(
    ("name", "value", "on"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", True),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces", True),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "", False),
    ],
)
def test_an_endpoint_turns_them_on(monkeypatch: pytest.MonkeyPatch, name: str, value: str, on: bool) -> None:
    monkeypatch.setenv(name, value)
    assert Settings.from_environment().traces is on
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert Settings.from_environment().traces is False
