"""`/api/openapi.json`, generated from the routes, and `/api/docs`, which shows it; all from this host."""

from typing import Any

from flask import Blueprint, Response, current_app, send_from_directory
from flask_smorest import Api
from swagger_ui_bundle import swagger_ui_path

from api.json import dumps
from api.resource import PUBLIC, requires

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


def document(api: Api) -> dict[str, Any]:
    """The OpenAPI 3.0 document of every route."""
    return dict(api.spec.to_dict())


@blueprint.get("/openapi.json")
@requires(PUBLIC)
def openapi() -> Response:
    return Response(dumps(document(current_app.extensions["agenthq_api"])), mimetype="application/json")


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
