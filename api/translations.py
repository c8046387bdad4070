"""
The console's words in other languages: `api/console/translations/<language>/LC_MESSAGES/messages.po`, which translators edit, and
beside it the compiled `.mo`, which the application reads. What has to be translated is what the pages say, every event's sentence and
name, what every permission lets somebody do, and every message of a problem.
"""

from collections.abc import Iterator
from dataclasses import fields
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po

from api import problem_sources
from api.console.language import TRANSLATIONS
from api.console.words import phrase
from api.problem_texts import CONTEXT
from models.access.permissions import Permission
from models.events.catalogue import CATALOGUE

PAGES = Path(__file__).parent / "console"
DIRECTORY = TRANSLATIONS
METHODS = [("**.py", "python"), ("**.html", "jinja2.ext:babel_extract")]
KEYWORDS = {**DEFAULT_KEYWORDS, "lazy_gettext": None}
LINE = 120
CHANGED = (
    "assignee_id",
    "description",
    "prompt",
    "retention_days",
    "two_factor_required",
    "type",
    "url",
    "visibility",
)
"""Fields whose change an event tells, besides those of the events themselves."""


def update() -> dict[str, list[str]]:
    """Brings every language's files up to date; returns, per language, what lacks a translation."""
    template = _template()
    lacking = {}
    for path in sorted(DIRECTORY.glob("*/LC_MESSAGES/messages.po")):
        catalog = _updated(path, template)
        path.write_bytes(_text(catalog))
        with path.with_suffix(".mo").open("wb") as file:
            write_mo(file, catalog)
        lacking[_language(path)] = _lacking(catalog)
    return lacking


def complaints() -> list[str]:
    """What is not as `update` would leave it, or not translated."""
    template = _template()
    found = []
    for path in sorted(DIRECTORY.glob("*/LC_MESSAGES/messages.po")):
        catalog = _updated(path, template)
        found += [f"{_language(path)} lacks: {message}" for message in _lacking(catalog)]
        if _text(catalog) != path.read_bytes():
            found.append(f"{path.name} of {_language(path)} is out of date")
        if not _is_compiled(catalog, path.with_suffix(".mo")):
            found.append(f"{path.stem}.mo of {_language(path)} is out of date")
    return found


def _template() -> Catalog:
    template = Catalog()
    for name, _, message, comments, context in extract_from_dir(
        PAGES, METHODS, {"**.html": {"silent": "false"}}, KEYWORDS
    ):
        template.add(message, locations=[(name, 1)], auto_comments=comments, context=context)
    for source, message in _of_the_domain():
        template.add(message, locations=[(source, 1)])
    for source, message in problem_sources.messages():
        template.add(message, locations=[(source, 1)], context=CONTEXT)
    return template


def _of_the_domain() -> Iterator[tuple[str, str]]:
    for type_, declared in CATALOGUE.items():
        yield "events", declared.sentence
        yield "events", phrase(type_)
        yield "events", phrase(declared.resource_type)
        for field in fields(declared):
            yield "events", phrase(field.name)
    for name in CHANGED:
        yield "events", phrase(name)
    for permission in Permission:
        yield "permissions", permission.description


def _updated(path: Path, template: Catalog) -> Catalog:
    with path.open("rb") as file:
        catalog = read_po(file, locale=_language(path), abort_invalid=True)
    catalog.update(template, no_fuzzy_matching=True)
    catalog.obsolete.clear()
    return catalog


def _text(catalog: Catalog) -> bytes:
    buffer = BytesIO()
    write_po(buffer, catalog, width=LINE, omit_header=True, include_lineno=False, sort_output=True)
    return buffer.getvalue()


def _lacking(catalog: Catalog) -> list[str]:
    return [
        _forms(message.id)[0]
        for message in catalog
        if message.id and (message.fuzzy or not all(_forms(message.string)))
    ]


def _is_compiled(catalog: Catalog, path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return _strings(read_mo(file)) == _strings(catalog)


def _strings(catalog: Catalog) -> dict[tuple[str, str], tuple[str, ...]]:
    """What is translated, by its context and message, which is the singular of one with a plural."""
    return {
        # Babel reads a context from .mo files as bytes.
        (
            message.context.decode() if isinstance(message.context, bytes) else message.context or "",
            _forms(message.id)[0],
        ): _forms(message.string)
        for message in catalog
        if message.id and all(_forms(message.string))
    }


def _forms(text: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(text) if isinstance(text, (list, tuple)) else (text or "",)


def _language(path: Path) -> str:
    return path.parents[1].name
