"""
Every message that a problem can say, found where it is written: each sentence (a capital, spaces, a full stop) in the code that
refuses; and what the libraries say for us. `flask translations` puts them into the catalogues.
"""

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from marshmallow import Schema, fields, validate
from werkzeug.exceptions import default_exceptions

from api.errors import HTTP_CODE, STATUS

ROOT = Path(__file__).parents[1]
WRITTEN_IN = (
    "models/errors.py", "models/database.py", "models/destinations.py", "models/encryption.py", "models/json_text.py",
    "models/access/*.py", "models/operations/*.py", "models/queries/*.py", "api/*.py", "api/schemas/*.py",
)  # fmt: skip
SAID_ELSEWHERE = {
    "models/access/permissions.py", "models/operations/price_books.py", "api/metrics.py", "api/docs.py", "api/event_catalogue.py",
    "api/permission_matrix.py", "api/cli.py", "api/billing_cli.py", "api/usage_cli.py", "api/local.py", "api/embedded.py",
    "api/supervision.py", "api/demo.py", "api/problem_sources.py", "api/problem_texts.py",
}  # fmt: skip
"""To operators, or in the documentation; what permissions are for is in the catalogue by itself."""
NO_SENTENCE = re.compile(r"(?![A-Z{])|.*[^.]\Z|\S*\Z", re.DOTALL)
DESCRIBES = {"metadata", "description", "help"}
"""What is written in the documentation."""


def messages() -> Iterator[tuple[str, str]]:
    """Each with where it is from; a name in braces is a place for what differs."""
    for pattern in WRITTEN_IN:
        for path in sorted(ROOT.glob(pattern)):
            source = path.relative_to(ROOT).as_posix()
            if source not in SAID_ELSEWHERE:
                yield from ((source, message) for message in _written_in(path.read_text("utf-8")))
    for message in _of_libraries():
        yield "libraries", message


def _written_in(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for text in _texts(tree):
        if not NO_SENTENCE.match(text):
            yield text
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        subject = call.args[-1]
        if name == "NotFound" and isinstance(subject, ast.Constant):
            yield str(subject.value)
        elif name == "refuse_above":  # "The role auditor"
            yield from _texts(ast.List([subject]))


def _texts(node: ast.AST) -> Iterator[str]:
    """What strings say, but for docstrings and descriptions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.keyword) and child.arg in DESCRIBES:
            continue
        if isinstance(child, ast.Dict):
            yield from _texts(
                ast.List(
                    [
                        value
                        for key, value in zip(child.keys, child.values, strict=True)
                        if not _describes(key)
                    ]
                )
            )
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        if isinstance(child, ast.JoinedStr):
            yield _template(child)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
        else:
            yield from _texts(child)


def _describes(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and key.value in DESCRIBES


def _template(text: ast.JoinedStr) -> str:
    names: list[str] = []

    def place(value: ast.expr) -> str:
        name = _name(value)
        names.append(name)
        return f"{{{name}{names.count(name) if names.count(name) > 1 else ''}}}"

    return "".join(
        place(part.value) if isinstance(part, ast.FormattedValue) else str(getattr(part, "value", ""))
        for part in text.values
    )


def _name(value: ast.expr) -> str:
    found: Any = getattr(value, "id", None) or getattr(value, "attr", None)
    return str(found).lower() if found else "value"


def _of_libraries() -> Iterator[str]:
    kinds: tuple[Any, ...] = (
        fields.Field, fields.Email, fields.String, fields.Integer, fields.Boolean, fields.List, fields.Nested, fields.UUID,
        fields.Dict, fields.Date, fields.AwareDateTime, fields.Enum, fields.IP, fields.Mapping,
    )  # fmt: skip
    for kind in kinds:
        yield from kind.default_error_messages.values()
    yield from Schema._default_error_messages.values()  # noqa: SLF001  has no other name
    yield from (validate.Length.message_min, validate.Length.message_max, validate.Length.message_all)
    at_least, at_most = validate.Range.message_gte, validate.Range.message_lte
    yield validate.Range.message_min.format(min_op=at_least)
    yield validate.Range.message_max.format(max_op=at_most)
    yield validate.Range.message_all.format(min_op=at_least, max_op=at_most)
    yield from (validate.OneOf.default_message, validate.Regexp.default_message)
    for status in {*STATUS.values(), *HTTP_CODE}:
        yield HTTPStatus(status).phrase
        if status in HTTP_CODE and status in default_exceptions:
            yield str(default_exceptions[status].description)
