"""JSON as we take it in and keep it: what PostgreSQL's jsonb can hold, with exact integers and bounded depth."""

import json
import math
import re
from collections.abc import Iterable
from datetime import date
from functools import partial
from itertools import chain
from typing import Any

import orjson

MAXIMUM_DEPTH = 32


def loads(text: bytes | str) -> Any:
    """
    The value; raises ValueError, with a reason for people, for what is no JSON (RFC 8259).

    The standard library's parser and not orjson's, which turns integers past 64 bits into floats.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAXIMUM_DEPTH} levels") from error
    except UnicodeDecodeError as error:
        raise ValueError("not valid UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error


LONG_NUMBER = re.compile(rb"[0-9]{19}")


def loads_kept(text: bytes) -> Any:
    """The value of what PostgreSQL kept as jsonb: as `loads`, and faster where no number can be past 64 bits."""
    return loads(text) if LONG_NUMBER.search(text) else orjson.loads(text)


def dumps(value: Any, *, utc_as_z: bool = False) -> str:
    """
    Compact JSON; UUIDs and times as strings, those in UTC with a Z or with +00:00. Integers of any size stay exact, half
    surrogates are escaped.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_UTC_Z if utc_as_z else None).decode()
    except TypeError:
        # An integer past 64 bits, or half of a surrogate pair (in the name of an unknown field).
        return json.dumps(value, separators=(",", ":"), default=partial(_text, utc_as_z=utc_as_z))


def _text(value: Any, *, utc_as_z: bool) -> str:
    if not isinstance(value, date):  # which a datetime is, too
        return str(value)
    text = value.isoformat()
    return text.replace("+00:00", "Z") if utc_as_z else text


def problem_with(value: Any) -> str | None:
    """Why the value can't be kept, or None: depth, NUL, lone surrogates and infinities, which jsonb does not hold."""
    level = [value]
    for _ in range(MAXIMUM_DEPTH + 1):
        for item in level:
            if isinstance(item, str):
                if problem := problem_with_text(item):
                    return problem
            elif isinstance(item, float) and not math.isfinite(item):
                return "A number is too large."
        nested = [item for item in level if isinstance(item, (dict, list))]
        if not nested:
            return None
        level = [deeper for item in nested for deeper in _members(item)]
    return f"It is nested deeper than {MAXIMUM_DEPTH} levels."


def _members(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return chain(value.keys(), value.values()) if isinstance(value, dict) else value


def problem_with_text(text: str) -> str | None:
    if "\x00" in text:
        return "It contains a NUL character."
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "It contains half of a surrogate pair, which is no character."
    return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
