import json
import re
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from models import json_text
from models.database import transaction
from models.json_text import MAXIMUM_DEPTH, problem_with, problem_with_text


def nested(depth: int, innermost: Any = "x") -> Any:
    """`depth` lists around a value."""
    for _ in range(depth):
        innermost = [innermost]
    return innermost


def nested_objects(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (nested(MAXIMUM_DEPTH), True),
        (nested(MAXIMUM_DEPTH + 1), False),
        (nested(MAXIMUM_DEPTH - 1, []), True),
        (nested(MAXIMUM_DEPTH, []), False),
        (nested_objects(MAXIMUM_DEPTH), True),
        (nested_objects(MAXIMUM_DEPTH + 1), False),
        (nested(900), False),
        ("a", True),
        ("a\x00", False),
        ({"a\x00": 1}, False),
        ([{"a": ["\x00"]}], False),
        ("\ud7ff\ue000", True),
        ("\ud800", False),
        (["\udfff"], False),
        ("\U0001f600", True),
        ({"\udc00": 1}, False),
        (1.7e308, True),
        (float("inf"), False),
        (-float("inf"), False),
        ([float("nan")], False),
        (10**300, True),
        (None, True),
        ({}, True),
        ([], True),
        (True, True),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_can_be_kept(value: Any, good: bool) -> None:
    problem = problem_with(value)
    assert (problem is None) is good
    if good:
        with transaction() as session:
            kept = session.execute(
                text("SELECT CAST(:value AS jsonb)"), {"value": json_text.dumps(value)}
            ).scalar_one()
        assert (float(kept) if isinstance(value, float) else kept) == value
    else:
        assert problem
        assert problem.isascii()


def test_a_hundred_thousand_values_are_checked() -> None:
    assert problem_with([["a"] * 1000] * 100) is None
    assert problem_with([["a"] * 1000] * 99 + [["a"] * 999 + ["\x00"]]) is not None


@pytest.mark.parametrize(("value", "good"), [("", True), ("a\nb", True), ("\x00", False), ("\udead", False)])
def test_text_that_can_be_kept(value: str, good: bool) -> None:
    assert (problem_with_text(value) is None) is good


@pytest.mark.parametrize(
    "number", [0, -1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64, -(2**64), 10**400]
)
def test_integers_stay_exact(number: int) -> None:
    for value in (number, [number], {"n": {"n": number}}):
        assert json_text.loads(json_text.dumps(value)) == value
    assert json_text.loads(str(number).encode()) == number
    assert isinstance(json_text.loads(str(number)), int)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("", "line 1, column 1"),
        ('{"a": 1,}', "line 1, column"),
        ("{'a': 1}", "line 1"),
        ('"a', "line 1"),
        ("[1] [2]", "line 1"),
        ("NaN", "NaN"),
        ("[-Infinity]", "-Infinity"),
        (b'"\xff"', "UTF-8"),
        ("[" * 100_000, "nested"),
        ('{"a":' * 100_000, "nested"),
        ("1" * 5_000, "digits"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_json_says_why(broken: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        json_text.loads(broken)
    assert not isinstance(refused.value, json.JSONDecodeError | UnicodeDecodeError)


def test_dumps_is_compact_and_knows_uuids() -> None:
    made = UUID("01234567-89ab-7def-8123-456789abcdef")
    assert json_text.dumps({"a": [1, made], "é": None}) == f'{{"a":[1,"{made}"],"é":null}}'
    assert json.loads(json_text.dumps({"a": [2**70, made], "é": None})) == {
        "a": [2**70, str(made)],
        "é": None,
    }
    assert json_text.dumps({"a\ud800": 1}) == '{"a\\ud800":1}'


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, -0.0, True, None, "\N{WATER WAVE}"], "b": {}},
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        2**64,
        10**18,
        10**19,
        -(10**30),
        [10**300],
        0.1 + 0.2,
        1.7e308,
        5e-324,
        "12345678901234567890",
        {"9" * 25: 1},
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_was_kept_is_read_as_anything_is(value: Any) -> None:
    """jsonb spells out exponents, so what is large has many digits."""
    with transaction() as session:
        kept = session.scalar(text("SELECT CAST(:value AS jsonb)::text"), {"value": json_text.dumps(value)})
        typed = session.scalar(text("SELECT CAST(:value AS jsonb)"), {"value": json_text.dumps(value)})
    for read in (json_text.loads_kept(kept.encode()), typed):
        expected = json_text.loads(kept)
        assert (read, type(read)) == (expected, type(expected))
