"""Cursors: the key of a page's last row, opaque on the wire. One envelope for every list."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from models import json_text
from models.queries.paging import Page, Slice, bad_cursor

LONGEST_CURSOR = 500


def page_from(query: dict[str, Any]) -> Page:
    """Takes `limit` and `cursor` out of a parsed query; raises Invalid for a cursor that is none."""
    cursor = query.pop("cursor")
    return Page(limit=query.pop("limit"), after=None if cursor is None else _decode(cursor))


def envelope(found: Slice[Any], items: Sequence[Any] | None = None) -> dict[str, Any]:
    return {
        "items": found.items if items is None else items,
        "next_cursor": encode(found.next_key) if found.next_key else None,
    }


def encode(key: tuple[Any, ...]) -> str:
    text = json_text.dumps([str(value) for value in key])
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _decode(cursor: str) -> tuple[str, ...]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = json_text.loads(raw)
    except (ValueError, binascii.Error) as error:
        raise bad_cursor() from error
    fits = isinstance(values, list) and all(
        isinstance(value, str) and "\x00" not in value for value in values
    )
    if not fits or len(cursor) > LONGEST_CURSOR:
        raise bad_cursor()
    return tuple(values)
