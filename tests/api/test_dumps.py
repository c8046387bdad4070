"""What orjson writes past marshmallow's fields (api/schemas/base.py) is what these would have written."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from marshmallow import Schema as MarshmallowSchema
from marshmallow import fields

from api import schemas
from api.json import dumps
from api.schemas.base import WRITTEN_BY_ORJSON, Schema, Time
from models import json_text

ID = UUID("01a216aa-ffdd-7255-b172-4168f91d3b95")
AN_HOUR_AHEAD = timezone(timedelta(hours=1))
TIMES = [
    datetime(2026, 1, 31, 12, 0, 0, 123456, UTC),
    datetime(2026, 1, 31, 12, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 31, 12, tzinfo=AN_HOUR_AHEAD),
]


class Word(StrEnum):
    tide = "high"


VALUES: Sequence[tuple[type[fields.Field[Any]], Sequence[Any]]] = [
    (Time, TIMES),
    (fields.UUID, [ID, str(ID)]),
    (fields.Boolean, [True, False]),
    (fields.Integer, [0, -1, 2**63, 2**64, 10**30, True]),
    (fields.String, ["", "tide", "\N{WATER WAVE} \x00 </script>", Word.tide, ID, 7]),
    (fields.Raw, [{"b": [1, None], "a": 2.5}, [], "text", True, 2**80]),
]


def of_marshmallow(schema: MarshmallowSchema, row: Any) -> Any:
    return MarshmallowSchema._serialize(schema, row)


def written(value: Any) -> str:
    return json_text.dumps(value, utc_as_z=True)


@pytest.mark.parametrize("kind", WRITTEN_BY_ORJSON, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_each_field_is_written_as_it_would_write_itself(kind: type[fields.Field[Any]]) -> None:
    arguments: dict[str, Any] = {"maximum": 50} if kind.__name__ == "Text" else {}
    schema = Schema.from_dict({"value": kind(**arguments)})()
    values = next(values for base, values in VALUES if issubclass(kind, base))
    for value in [*values, None]:
        for row in (SimpleNamespace(value=value), {"value": value}):
            assert dumps(schema.dump(row)) == written(of_marshmallow(schema, row))


def all_schemas() -> Iterator[type[Schema]]:
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"{schemas.__name__}.{module.name}")
    waiting = [Schema]
    while waiting:
        waiting += (found := waiting.pop()).__subclasses__()
        if not (found.__name__.endswith("Page") or found is Schema):
            yield found


def test_what_a_row_lacks_is_left_out_and_a_default_given() -> None:
    schema = Schema.from_dict(
        {
            "lacking": fields.String(),
            "given": fields.String(dump_default="so"),
            "deep": fields.Integer(attribute="row.n"),
            "renamed": fields.Integer(data_key="other"),
        }
    )()
    assert schema.dump({"renamed": 1}) == {"given": "so", "other": 1}
    assert schema.dump(SimpleNamespace(row=SimpleNamespace(n=2))) == {"given": "so", "deep": 2}
    assert schema.dump({"row": {"n": 3}}) == {"given": "so", "deep": 3}


def test_no_schema_of_ours_serializes_in_another_way() -> None:
    """Then its `_serialize` would be passed by, or pass this one by."""
    found = list(all_schemas())
    assert len(found) > 50
    assert all(each._serialize is Schema._serialize for each in found)


def test_exact_integers_and_times_survive_in_one_answer() -> None:
    """Past 64 bits the standard library writes, and times look the same."""
    for moment in TIMES:
        small, large = dumps({"at": moment, "n": 1}), dumps({"at": moment, "n": 10**30})
        assert small.replace(":1}", ":" + str(10**30) + "}") == large
