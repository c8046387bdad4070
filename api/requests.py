"""What frames every request: its id, its log line, the headers of its answer."""

import re
import time
from uuid import uuid4

import structlog
from flask import Flask, Response, g, request

from api.authentication import client_address
from models.tracing import SERVER, tracing

log = structlog.get_logger("api.requests")

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if SANE_REQUEST_ID.fullmatch(given) else uuid4().hex
    g.started = time.perf_counter()
    if tracing.on and request.endpoint != "realtime.serve":  # which lasts as long as its socket
        _begin_trace()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _begin_trace() -> None:
    """In the caller's trace, if it has one: the header names it, and nothing is believed of it but its number."""
    given = request.headers.get("traceparent")
    route = request.url_rule.rule if request.url_rule else "none"
    attributes = {
        "http.request.method": request.method,
        "http.route": route,
        "agenthq.request_id": g.request_id,
    }
    g.span = tracing.span(f"{request.method} {route}", SERVER, attributes, parent=given)
    g.spanned = g.span.__enter__()


def end_trace(error: BaseException | None = None) -> None:
    """The last thing of a request, whatever became of it."""
    span = g.pop("span", None)
    if span is not None:
        span.__exit__(type(error) if error else None, error, None)


def end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    if "spanned" in g:
        g.spanned.set_attribute("http.response.status_code", response.status_code)
    # The path without its query: a query can hold what people search for, and `?token=`.
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        duration_ms=round((time.perf_counter() - g.started) * 1000, 2),
        user_id=str(g.user_id) if "user_id" in g else None,
        ip_address=client_address(),
    )
    return response


def register(app: Flask) -> None:
    app.before_request(begin)
    app.after_request(end)
    app.teardown_request(end_trace)
