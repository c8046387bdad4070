"""Cursors: the key of a page's last row, opaque on the wire. One envelope for every list."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from models import json_text
from models.queries.paging import Page, Slice, TwoWaySlice, bad_cursor

LONGEST_CURSOR = 500


BACKWARDS = "before"
"""What wraps the key in a cursor that leads back."""


def page_from(query: dict[str, Any], *, both_ways: bool = False) -> Page:
    """Takes `limit` and `cursor` out of a parsed query; raises Invalid for a cursor that is none of such a list."""
    limit, cursor = query.pop("limit"), query.pop("cursor")
    if cursor is None:
        return Page(limit)
    key, backwards = _decode(cursor)
    if backwards and not both_ways:
        raise bad_cursor()
    return Page(limit, key, backwards)


def envelope(found: Slice[Any], items: Sequence[Any] | None = None) -> dict[str, Any]:
    made = {
        "items": found.items if items is None else items,
        "next_cursor": encode(found.next_key) if found.next_key else None,
    }
    if isinstance(found, TwoWaySlice):
        made["previous_cursor"] = encode(found.previous_key, backwards=True) if found.previous_key else None
    return made


def encode(key: tuple[Any, ...], *, backwards: bool = False) -> str:
    """The cursor of a key."""
    values = [str(value) for value in key]
    text = json_text.dumps({BACKWARDS: values} if backwards else values)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _decode(cursor: str) -> tuple[tuple[str, ...], bool]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = json_text.loads(raw)
    except (ValueError, binascii.Error) as error:
        raise bad_cursor() from error
    backwards = isinstance(values, dict) and list(values) == [BACKWARDS]
    if backwards:
        values = values[BACKWARDS]
    fits = isinstance(values, list) and all(
        isinstance(value, str) and "\x00" not in value for value in values
    )
    if not fits or len(cursor) > LONGEST_CURSOR:
        raise bad_cursor()
    return tuple(values), backwards
