"""Domain error codes → RFC 9457 problem+json: the one table that joins the two worlds."""

from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException

from api.console.language import chosen
from api.json import dumps
from api.problem_texts import said, said_of
from models.errors import DomainError

log = structlog.get_logger("api.errors")

STATUS = {
    "validation_failed": 422,
    "unauthenticated": 401,
    "second_factor_required": 401,
    "permission_denied": 403,
    "not_found": 404,
    "conflict": 409,
    "email_taken": 409,
    "seat_limit_reached": 409,
    "quota_exceeded": 402,
    "precondition_failed": 412,
    "rate_limited": 429,
    "unavailable": 503,
}
HTTP_CODE = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    500: "internal_error",
}


def problem(status: int, code: str, detail: str, **members: Any) -> Response:
    """
    An RFC 9457 answer, its texts in the language of whoever asks. `type` names the code within this documentation; `request_id`
    finds the call in the logs.
    """
    body = {
        "type": f"/api/docs#{code}",
        "title": said(HTTPStatus(status).phrase),
        "status": status,
        "code": code,
        "detail": said(detail),
        "request_id": g.get("request_id"),
        **members,
    }
    if "errors" in members:
        body["errors"] = said_of(members["errors"])
    response = Response(dumps(body), status=status, mimetype="application/problem+json")
    response.content_language.add(chosen())
    response.vary.update(("Accept-Language", "Cookie"))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response


def domain_problem(error: DomainError) -> Response:
    response = problem(STATUS[error.code], error.code, error.detail, **error.members)
    if "retry_after" in error.members:
        response.headers["Retry-After"] = str(error.members["retry_after"])
    return response


def http_problem(error: HTTPException) -> Response:
    status = error.code or 500
    details = {
        404: "There is nothing at this address.",
        413: "The body is larger than this service takes.",
        429: "Too many requests; wait and repeat.",
        500: "Something went wrong on our side; the request_id finds it in our logs.",
    }
    detail = details.get(status) or error.description or HTTPStatus(status).phrase
    response = problem(status, HTTP_CODE.get(status, "http_error"), detail)
    for name, value in error.get_headers():
        if name.lower() in {"allow", "retry-after"}:
            response.headers[name] = value
    return response


def unexpected_problem(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return problem(
        500, "internal_error", "Something went wrong on our side; the request_id finds it in our logs."
    )


def register(app: Flask) -> None:
    app.register_error_handler(DomainError, domain_problem)
    app.register_error_handler(HTTPException, http_problem)
    app.register_error_handler(Exception, unexpected_problem)
