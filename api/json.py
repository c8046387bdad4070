"""JSON in and out: bodies read strictly, answers written compactly."""

from typing import Any, NoReturn

from flask import Request, request
from flask.json.provider import JSONProvider
from gunicorn.http.errors import ParseException
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from models import json_text
from models.errors import Invalid


def dumps(value: Any) -> str:
    """JSON as answers have it: times in UTC with a Z."""
    return json_text.dumps(value, utc_as_z=True)


class Json(JSONProvider):
    """Flask's `jsonify` and `request.json` by models/json_text.py: exact integers, UUIDs and times as strings."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return dumps(obj)

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return json_text.loads(s)


def receive_body() -> None:
    """
    Waits for the whole body, which is then there to be read. Raises RequestEntityTooLarge for more than a mebibyte, and
    BadRequest for what ends before it is whole: gunicorn would show as much as came, and werkzeug as much as it may.
    """
    announced = request.content_length
    try:
        body = request.get_data(cache=True)
        is_cut = announced is None and len(body) == request.max_content_length and _input_goes_on()
    except (OSError, ParseException) as error:  # no chunk where one should be
        raise ClientDisconnected from error
    if is_cut:
        raise RequestEntityTooLarge
    if announced is not None and len(body) < announced:
        raise ClientDisconnected


def _input_goes_on() -> bool:
    return bool(request.environ["wsgi.input"].read(1))


def read_body() -> Any:
    """
    The request's JSON object, whatever its Content-Type says; raises Invalid under `_body` for anything else.

    Read as such, because a body with the wrong label is still clear, and curl's default label is wrong.
    """
    body = request.get_data(cache=True)
    if not body.strip():
        raise invalid_body("A JSON object is needed.")
    try:
        value = json_text.loads(body)
    except ValueError as error:
        raise invalid_body(f"This is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise invalid_body("A JSON object is needed, not a bare value or a list.")
    return value


def invalid_body(message: str) -> Invalid:
    return Invalid({"_body": [message]}, detail=message)


class StrictParser(FlaskParser):
    """webargs with our body reader and our error; an unknown query parameter is refused as an unknown field is."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": None, "query": None}

    def load_json(self, req: Request, schema: Schema) -> Any:
        return read_body()

    def handle_error(
        self,
        error: ValidationError,
        req: Request,
        schema: Schema,
        *,
        error_status_code: int | None,
        error_headers: Any,
    ) -> NoReturn:
        raise Invalid(_by_field(error.messages)) from error


def _by_field(messages: Any) -> dict[str, Any]:
    """webargs nests the messages under the location (`json`, `query`); callers know fields. `_schema` is the whole body."""
    fields: dict[str, Any] = {}
    for location in messages.values():
        fields |= location if isinstance(location, dict) else {"_schema": location}
    if "_schema" in fields:
        fields["_body"] = fields.pop("_schema")
    return {str(name): value for name, value in fields.items()}
