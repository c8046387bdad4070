"""`docs/events.md`: every event of the catalogue and every account action, from their declarations."""

import ast
import inspect
import types
from collections.abc import Iterator
from dataclasses import fields
from datetime import date, datetime
from functools import cache
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from models.events.catalogue import CATALOGUE, Event
from models.operations.account_events import AccountAction

HEAD = """# Events

Made by `flask --app wsgi events-doc`; `make check` compares.

What the activity log, sockets and webhooks tell of. Each change records one event in its own transaction; the action is its
type everywhere. `metadata` (over sockets and webhooks: `data`) has the fields below. A person is an id there and nothing else. The
schema version is raised when a field changes its meaning or goes. `changes` maps a field to its value before and after; a secret's is
masked. In the sentence, `{actor}` is whoever did it (an agent "for" a person;
"The system" for nobody), `{resource}` the name of what it happened to, the rest is fields.
"""
ACCOUNT_HEAD = """
## Account actions

What happened to a person's account is no team's: `GET /me/activity` shows it to that person alone. `details` has the fields named here.

| action | what happened |
| --- | --- |
"""
NAMES = {
    UUID: "uuid",
    datetime: "time",
    date: "date",
    str: "string",
    int: "integer",
    bool: "boolean",
    Any: "any",
    type(None): "null",
}


def document() -> str:
    """The whole document, in the order of the declarations."""
    sections = [_section(declared) for declared in CATALOGUE.values()]
    actions = [f"| `{action}` | {said} |" for action, said in account_actions().items()]
    return "\n".join([HEAD, *sections]) + ACCOUNT_HEAD + "\n".join(actions) + "\n"


def account_actions() -> dict[str, str]:
    """Each account action, and what its docstring says."""
    said = _docstrings(AccountAction)
    return {action.value: said.get(action.name, "") for action in AccountAction}


def _section(declared: type[Event]) -> str:
    lines = [f"## {declared.type}", "", f"> {declared.sentence}", ""]
    if said := _said_of(declared):
        lines += [said, ""]
    version, outcome = f"version {declared.schema_version}", f"outcome `{declared.outcome}`"
    lines += [
        f"Of a `{declared.resource_type}`, {version}, {outcome}.",
        "",
        "| field | type | |",
        "| --- | --- | --- |",
    ]
    said_of_fields = _docstrings(declared)
    for field in fields(declared):
        note = said_of_fields.get(field.name, "")
        lines.append(f"| `{field.name}` | {type_name(field.type)} | {note} |")
    return "\n".join(lines) + "\n"


def type_name(annotation: Any) -> str:
    """A payload field's type, as JSON has it."""
    if annotation in NAMES:
        return NAMES[annotation]
    origin, arguments = get_origin(annotation), [type_name(each) for each in get_args(annotation)]
    if origin in {Union, types.UnionType}:
        return " or ".join(arguments)
    if origin is list:
        return f"list of {arguments[0]}"
    if origin is dict:
        return f"object of {arguments[1]}"
    raise ValueError(f"docs/events.md has no name for the type {annotation}.")


def _said_of(declared: type[Event]) -> str:
    """The class's own docstring, or that of what it is a kind of; dataclasses make one up where there is none."""
    for each in declared.__mro__:
        said = _class_docstring(each)
        if each is not Event and said:
            return said
    return ""


def _docstrings(of: type) -> dict[str, str]:
    """What the strings after a class's fields say, and those of the classes that it is a kind of."""
    said: dict[str, str] = {}
    for each in reversed(of.__mro__):
        if (node := _declaration(each)) is not None:
            said.update(_strings_after_names(node))
    return said


def _strings_after_names(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for before, after in zip(node.body, node.body[1:], strict=False):
        match before, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                yield name, _one_line(said)


def _class_docstring(of: type) -> str:
    node = _declaration(of)
    return _one_line(ast.get_docstring(node) or "") if node is not None else ""


def _declaration(of: type) -> ast.ClassDef | None:
    module = inspect.getmodule(of)
    if module is None or not module.__name__.startswith("models."):
        return None
    return _classes(module.__name__, inspect.getsource(module)).get(of.__name__)


@cache
def _classes(_module: str, source: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _one_line(said: str) -> str:
    return " ".join(said.split()).replace("|", "\\|")
