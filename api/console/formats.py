"""How pages write numbers, money, times and names: by the reader's locale; the browser puts times into the reader's zone."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

from babel.numbers import format_compact_decimal, format_currency, format_decimal
from flask import Blueprint, request
from flask_babel import format_date, format_datetime, get_locale, gettext
from markupsafe import Markup, escape

from api.pagination import encode
from models import json_text
from models.queries.paging import Slice

SMALLEST_COMPACT = 100_000
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FOUR_DIGITS = re.compile(r"-?\d{4,}")
Number = int | Decimal
MINOR_DIGITS = {"JPY": 0, "KRW": 0, "VND": 0, "BHD": 3, "KWD": 3}
"""Of a currency's minor unit, where they are not 2 (ISO 4217)."""


def number(value: Number) -> Markup:
    """Grouped by the locale; a large one short, with the exact one on hover."""
    exact = format_decimal(value, locale=get_locale())
    if -SMALLEST_COMPACT < value < SMALLEST_COMPACT:
        return Markup('<data value="{}">{}</data>').format(value, exact)
    return Markup('<data value="{}" title="{}">{}</data>').format(value, exact, compact(value))


def compact(value: Number) -> str:
    """A large number, short: 42.1M, 4,213.6만."""
    short = str(format_compact_decimal(value, locale=get_locale(), fraction_digits=1))
    digits = FOUR_DIGITS.match(short)  # which Korean has before 만 and 억, and Babel does not group
    return f"{exact(int(digits[0]))}{short[digits.end() :]}" if digits else short


def exact(value: Number) -> str:
    return str(format_decimal(value, locale=get_locale()))


def money(amount: int, currency: str) -> str:
    """An amount in minor units, as people write it."""
    digits = MINOR_DIGITS.get(currency, 2)
    return str(format_currency(Decimal(amount).scaleb(-digits), currency, locale=get_locale()))


def time(value: datetime | None, style: str = "relative") -> Markup:
    """A <time> which the browser turns into the reader's zone, relative or not; UTC until then, and on hover."""
    if value is None:
        return Markup("&ndash;")
    value = value.astimezone(UTC)
    shown = format_datetime(value, "medium", rebase=False)
    return Markup('<time datetime="{}" data-style="{}" title="{} UTC">{}</time>').format(
        value.isoformat().replace("+00:00", "Z"), style, shown, shown
    )


def day(value: date) -> str:
    return str(format_date(value, "medium", rebase=False))


def initials(name: str | None) -> str:
    words = (name or "?").split()
    return "".join(word[0] for word in (words[:1] + words[-1:] if len(words) > 1 else words[:1])).upper()


def short_id(value: Any) -> Markup:
    """The last of an id, with a button that copies the whole."""
    return Markup('<button type="button" class="copy mono" data-copy="{}" title="{}">{}</button>').format(
        value, value, str(value)[-8:]
    )


def hash_(value: str) -> Markup:
    """A hash in hexadecimal digits, its beginning and its end; a click copies the whole."""
    return Markup('<button type="button" class="copy mono" data-copy="{}" title="{}">{}…{}</button>').format(
        value, value, value[:12], value[-6:]
    )


def utc(value: datetime) -> str:
    """A time where no <time> can be: in UTC, and said so."""
    return str(format_datetime(value.astimezone(UTC), "medium", rebase=False)) + " UTC"


def plain(value: Any, names: Mapping[str, str] | None = None) -> Markup:
    """A value of an event's details; ids of `names` as those, lists with commas."""
    if isinstance(value, list) and value:
        return Markup(", ").join(plain(each, names) for each in value)
    if isinstance(value, dict):
        return Markup('<span class="mono">{}</span>').format(json_text.dumps(value))
    if value is None or value in ("", []):
        return Markup('<span class="quiet">{}</span>').format(gettext("none"))
    if isinstance(value, bool):
        return escape(gettext("yes") if value else gettext("no"))
    text = (names or {}).get(str(value), str(value))
    return (
        short_id(text)
        if UUID_TEXT.fullmatch(text)
        else escape(exact(value) if isinstance(value, int) else text)
    )


def host(url: str) -> str:
    """The host of a URL, with its port."""
    return urlsplit(url).netloc


def cursor(number: int) -> str:
    """Of a list by number, newest first: what leads to the rows before this one."""
    return encode((number,))


def here(**changes: Any) -> str:
    """This page's address with these query parameters changed; None takes one away."""
    values = {name: request.args.getlist(name) for name in request.args}
    for name, value in changes.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value if isinstance(value, list) else [str(value)]
    query = urlencode([(name, each) for name, several in values.items() for each in several])
    return f"{request.path}?{query}" if query else request.path


def next_page_of(found: Slice[Any]) -> str | None:
    """The address of a list's next page; None at its end."""
    return here(cursor=encode(found.next_key)) if found.next_key else None


def register(blueprint: Blueprint) -> None:
    blueprint.add_app_template_filter(hash_, "hash")
    for function in (number, exact, money, time, day, initials, short_id, utc, plain, host, cursor):
        blueprint.add_app_template_filter(function)
    blueprint.add_app_template_global(here)
    blueprint.add_app_template_global(next_page_of)
    blueprint.add_app_template_global(get_locale)
