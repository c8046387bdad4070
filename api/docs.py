"""`/api/openapi.json`, generated from the routes, and `/api/docs`, which shows it; all from this host."""

import re
from copy import deepcopy
from typing import Any

from flask import Blueprint, Flask, Response, current_app, send_from_directory
from flask_smorest import Api
from swagger_ui_bundle import swagger_ui_path

from api.json import dumps
from api.resource import MEMBER, PUBLIC, Requirement, declared, requires
from api.schemas.errors import ProblemSchema
from models.access.permissions import OWNER_ONLY, Permission

EXTENSION = "agenthq_api"
blueprint = Blueprint("docs", __name__, url_prefix="/api")

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>AgentHQ API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null});\n'


class OpenApi(Api):  # type: ignore[misc]  # flask-smorest has no types
    """flask-smorest's Api, with our errors in the document. Our own handlers make them (api/errors.py)."""

    ERROR_SCHEMA = ProblemSchema


def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI 3.0 document of every route, with what each needs (api.resource.requires)."""
    described: dict[str, Any] = deepcopy(app.extensions[EXTENSION].spec.to_dict())
    components = described["components"]
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"bearer": []}]
    for response in components["responses"].values():
        response["content"] = {"application/problem+json": response["content"].pop("application/json")}
    for rule in app.url_map.iter_rules():
        operations = described["paths"].get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        for method in operations.keys() & {name.lower() for name in rule.methods or ()}:
            _describe_needs(operations[method], declared(app.view_functions[rule.endpoint], method))
    return described


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


@blueprint.get("/openapi.json")
@requires(PUBLIC)
def openapi() -> Response:
    return Response(dumps(document(current_app)), mimetype="application/json")


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
