"""docs/events.md is what the catalogue says."""

from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from api import cli
from api.event_catalogue import document, type_name
from models.events.catalogue import CATALOGUE, Event, event
from models.operations.account_events import AccountAction


def section(action: str) -> str:
    _, _, rest = document().partition(f"\n## {action}\n")
    return rest.partition("\n## ")[0]


def test_the_document_is_current(app: Flask) -> None:
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["events-doc", "--check"])
    assert result.exit_code == 0, result.output


def test_one_that_is_not_is_refused_until_it_is_written(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "EVENTS", tmp_path / "events.md")
    runner = app.test_cli_runner()

    def run(*more: str) -> tuple[int, str]:
        with app.app_context():
            result = runner.invoke(args=["events-doc", *more])
        return result.exit_code, result.output

    absent = run("--check")
    assert (absent[0], "out of date" in absent[1]) == (1, True)
    (tmp_path / "events.md").write_text("# Events\n")
    assert run("--check")[0] == 1
    assert run() == (0, "")
    assert run("--check") == (0, "")


def test_it_has_every_event_with_every_field_and_every_account_action() -> None:
    for action, declared in CATALOGUE.items():
        said = section(action)
        assert f"> {declared.sentence}\n" in said
        assert f"Of a `{declared.resource_type}`, version {declared.schema_version}, outcome `" in said
        for field in fields(declared):
            assert f"\n| `{field.name}` | " in said
    for each in AccountAction:
        assert f"\n| `{each}` | " in document()


def test_it_says_what_the_declarations_say() -> None:
    assert "outcome `denied`" in section("permission_denied")
    assert "outcome `success`" in section("task_created")
    assert "| `permission` | string | What was missing: a permission, `owner`, or" in section(
        "permission_denied"
    )
    assert "| `api_keys_revoked` | integer | The member's keys go with the membership. |" in section(
        "member_left"
    )
    assert "The invited address stands in the invitation alone" in section("invitation_resent")


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (UUID, "uuid"),
        (datetime, "time"),
        (str | None, "string or null"),
        (list[str], "list of string"),
        (dict[str, list[Any]], "object of list of any"),
    ],
)
def test_a_type_is_named_as_json_has_it(annotation: Any, name: str) -> None:
    assert type_name(annotation) == name


def test_a_type_without_a_name_stops_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.events.catalogue.CATALOGUE", {})

    @event("sample_made", "team", "{actor} made it")
    class Sample(Event):
        team_id: UUID
        taken: bytes

    monkeypatch.setitem(CATALOGUE, "sample_made", Sample)
    with pytest.raises(ValueError, match="no name for the type <class 'bytes'>"):
        document()
