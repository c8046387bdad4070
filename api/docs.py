"""`/api/openapi.json`, generated from the routes, and `/api/docs`, which shows it; all from this host."""

import re
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, Response, current_app, send_from_directory
from flask_smorest import Api
from swagger_ui_bundle import swagger_ui_path

from api.json import dumps
from api.resource import MEMBER, PUBLIC, SIGNED_IN, Requirement, Resource, declared, requires
from api.schemas.errors import ProblemSchema
from models.access.permissions import OWNER_ONLY, Permission
from models.operations.idempotency import MAXIMUM_KEY_LENGTH

EXTENSION, SERVED = "agenthq_api", "agenthq_document"
blueprint = Blueprint("docs", __name__, url_prefix="/api")

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>AgentHQ API</title>
<link rel="icon" href="../static/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:",
    "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
))  # fmt: skip
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null});\n'


class OpenApi(Api):  # type: ignore[misc]  # flask-smorest has no types
    """flask-smorest's Api, with our errors in the document. Our own handlers make them (api/errors.py)."""

    ERROR_SCHEMA = ProblemSchema


ERRORS = {
    "400": "The body ended before it was whole.",
    "401": "No credential, or none that is good (any more).",
    "402": "The plan has no API call left, or none of what was asked for.",
    "403": "The caller's role lacks the permission, or the membership is suspended.",
    "404": "It is absent, or another team's.",
    "409": "The present state forbids it, or its Idempotency-Key is in use.",
    "412": "`If-Match` names a state that is no longer the present one.",
    "413": "The body is larger than a mebibyte.",
    "416": "The file has no such range.",
    "422": "Invalid input, told by field.",
    "429": "Too many requests; `Retry-After` says how long to wait.",
    "5XX": "A fault of ours, or (503) of something that comes back; `Retry-After` says when.",
}
"""What every route that can answer so says of it."""
REQUEST_ID = {
    "X-Request-Id": {
        "required": True,
        "schema": {"type": "string"},
        "description": "Finds the call in the logs.",
    }
}
ETAG = {
    "ETag": {
        "schema": {"type": "string"},
        "description": "Its present state, for `If-Match` and `If-None-Match`.",
    }
}
HEADERS: dict[str, dict[str, Any]] = {
    "401": {
        "WWW-Authenticate": {"required": True, "schema": {"type": "string"}, "description": "`Bearer`"},
    },
    "429": {
        "Retry-After": {
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
            "description": "Seconds.",
        }
    },
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAXIMUM_KEY_LENGTH},
    "description": "The same key and body give the same answer, for 24 hours.",
}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "The ETag of the state that the change is meant for.",
}


def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI 3.0 document of every route, with what each needs (api.resource.requires) and how it may refuse."""
    described: dict[str, Any] = deepcopy(app.extensions[EXTENSION].spec.to_dict())
    components = described["components"]
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"bearer": []}]
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    components["responses"] = {
        _component(status): {
            "description": text,
            "headers": REQUEST_ID | HEADERS.get(status, {}),
            "content": problem,
        }
        for status, text in ERRORS.items()
    }
    for rule in app.url_map.iter_rules():
        operations = described["paths"].get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        view = app.view_functions[rule.endpoint]
        for method in operations.keys() & {name.lower() for name in rule.methods or ()}:
            requirement = declared(view, method)
            _describe_needs(operations[method], requirement)
            _describe_answers(operations[method], method, rule.rule, view, requirement)
    return described


def _component(status: str) -> str:
    return HTTPStatus(int(status)).name if status.isdigit() else "SERVER_ERROR"


def _asks(operation: dict[str, Any]) -> bool:
    return any(parameter["in"] == "query" for parameter in operation.get("parameters", []))


def _describe_answers(
    operation: dict[str, Any], method: str, path: str, view: Any, requirement: Requirement | None
) -> None:
    """Every status that the route can answer with, and the headers that it heeds."""
    needs = PUBLIC if requirement is None else requirement.needs
    is_team = needs not in {PUBLIC, SIGNED_IN}
    is_tagged = getattr(getattr(view, "view_class", Resource), "shown_as", None) is not None
    answers = operation["responses"]
    for documented in ("default", "422"):
        answers.pop(documented, None)
    for status, answer in answers.items():
        tag = ETAG if is_tagged and method == "get" and status == "200" else {}
        answer.setdefault("headers", {}).update(REQUEST_ID | tag)
    statuses = {
        "400": method != "get",
        "401": needs is not PUBLIC,
        "402": is_team,
        "403": is_team,
        "404": is_team or "<" in path,
        "409": method != "get",
        "412": is_tagged and method != "get",
        "413": method != "get",
        "422": method == "post" or "requestBody" in operation or _asks(operation),
        "429": True,
        "5XX": True,
    }
    answers |= {
        status: {"$ref": f"#/components/responses/{_component(status)}"}
        for status in ERRORS
        if statuses.get(status) or status in answers
    }
    if is_tagged and method == "get":
        answers["304"] = {"description": "It is as `If-None-Match` knows it.", "headers": REQUEST_ID | ETAG}
    heeded = [IDEMPOTENCY_KEY] if method == "post" else [IF_MATCH] if is_tagged and method != "get" else []
    if heeded:
        operation["parameters"] = [*operation.get("parameters", []), *deepcopy(heeded)]


def _describe_needs(operation: dict[str, Any], requirement: Requirement | None) -> None:
    if requirement is None or requirement.needs is PUBLIC:
        operation["security"] = []
    elif isinstance(requirement.needs, Permission):
        unless = " It is not needed for oneself." if requirement.unless_self else ""
        owner = " The team's owner alone has it." if requirement.needs in OWNER_ONLY else ""
        needs = f"Needs the permission `{requirement.needs}`.{owner}{unless}"
        operation["description"] = f"{operation.get('description', '')}\n\n{needs}".strip()
    elif requirement.needs is MEMBER:
        needs = "Needs membership in the team, in any role, or a key of it."
        operation["description"] = f"{operation.get('description', '')}\n\n{needs}".strip()


@blueprint.after_request
def allow_page(response: Response) -> Response:
    """Swagger UI styles its elements in place."""
    response.headers["Content-Security-Policy"] = POLICY
    return response


@blueprint.get("/openapi.json")
@requires(PUBLIC)
def openapi() -> Response:
    if SERVED not in current_app.extensions:  # made once: anybody may ask, without a limit
        current_app.extensions[SERVED] = dumps(document(current_app))
    return Response(current_app.extensions[SERVED], mimetype="application/json")


@blueprint.get("/docs")
@requires(PUBLIC)
def page() -> Response:
    return Response(PAGE, mimetype="text/html")


@blueprint.get("/docs/start.js")
@requires(PUBLIC)
def start() -> Response:
    return Response(START, mimetype="text/javascript")


@blueprint.get("/docs/<path:name>")
@requires(PUBLIC)
def asset(name: str) -> Response:
    return send_from_directory(swagger_ui_path, name)
