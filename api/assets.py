"""`/static/…`: files for browsers, of this release; their ETag spares a browser the second download."""

from pathlib import Path

from flask import Blueprint, Response, send_from_directory

from api.resource import PUBLIC, requires

DIRECTORY = Path(__file__).parent / "static"
# Given here, since what `mimetypes` says depends on the machine, and browsers refuse a module of another type.
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

blueprint = Blueprint("assets", __name__)


@blueprint.get("/static/<path:name>")
@requires(PUBLIC)
def asset(name: str) -> Response:
    return send_from_directory(DIRECTORY, name, mimetype=TYPES.get(Path(name).suffix))
