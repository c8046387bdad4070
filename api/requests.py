"""What frames every request: its id, its log line, the headers of its answer."""

import re
import time
from uuid import uuid4

import structlog
from flask import Flask, Response, g, request

from api.authentication import client_address

log = structlog.get_logger("api.requests")

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if SANE_REQUEST_ID.fullmatch(given) else uuid4().hex
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
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
