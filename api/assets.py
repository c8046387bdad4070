"""
`/static/…`: files for browsers, of this release. Pages name each by its content (`?v=…`), so that a browser keeps it for good
and asks anew only after a release; text goes compressed, once per process.
"""

import gzip
import re
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

from flask import Blueprint, Response, abort, make_response, request

from api.resource import PUBLIC, requires

DIRECTORY = Path(__file__).parent / "static"
# Given here, since what `mimetypes` says depends on the machine, and browsers refuse a module of another type.
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
IMPORTED = re.compile(rb'^(import [^;"]*"|.*\bimport\(")/static/([\w./-]+)(?=")', re.MULTILINE)
"""What a module names of the others, at once or when it needs it; none of it in a comment."""
SMALLEST_COMPRESSED = 1024
"""Bytes; below, the answer's head is the greater part."""
YEAR = 365 * 24 * 60 * 60

blueprint = Blueprint("assets", __name__)


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    compressed: bytes | None
    mimetype: str
    version: str


@cache
def load(name: str) -> Asset | None:
    """The file of that name as browsers get it; None if there is none."""
    if name not in names():
        return None
    path = DIRECTORY / name
    body = path.read_bytes()
    if path.suffix == ".js":
        body = IMPORTED.sub(lambda found: found[1] + address(found[2].decode()).encode(), body)
    compressed = gzip.compress(body, mtime=0) if len(body) >= SMALLEST_COMPRESSED else None
    mimetype = TYPES.get(path.suffix, "text/plain")
    return Asset(body, compressed, mimetype, blake2b(body, digest_size=6).hexdigest())


@cache
def names() -> frozenset[str]:
    return frozenset(
        path.relative_to(DIRECTORY).as_posix() for path in DIRECTORY.rglob("*") if path.is_file()
    )


def address(name: str) -> str:
    """The path of a file under `/static/`, with its content's hash in it; raises KeyError if there is none."""
    found = load(name)
    if found is None:
        raise KeyError(name)
    return f"/static/{name}?v={found.version}"


@blueprint.get("/static/<path:name>")
@requires(PUBLIC)
def asset(name: str) -> Response:
    found = load(name)
    if found is None:
        abort(404)
    compressed = found.compressed if request.accept_encodings["gzip"] else None
    response = make_response(compressed or found.body)
    response.mimetype = found.mimetype
    response.headers["Vary"] = "Accept-Encoding"
    if compressed:
        response.headers["Content-Encoding"] = "gzip"
    response.set_etag(found.version + ("-gzip" if compressed else ""))
    if request.args.get("v") == found.version:
        response.cache_control.public, response.cache_control.max_age = True, YEAR
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    response.make_conditional(request)
    return response


def compress(response: Response) -> None:
    """Compresses a page for those who take it so. The one secret in it is masked anew each time (`cookies.csrf_token`)."""
    response.vary.add("Accept-Encoding")
    if (
        response.is_streamed
        or response.direct_passthrough
        or "Content-Encoding" in response.headers
        or not request.accept_encodings["gzip"]
        or not (response.mimetype or "").startswith("text/")
    ):
        return
    body = response.get_data()
    if len(body) >= SMALLEST_COMPRESSED:
        response.set_data(gzip.compress(body, compresslevel=5, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
