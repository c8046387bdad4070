"""Every event of the catalogue has a payload that its sentence and its resource come from, and a test that records it."""

import string
from dataclasses import fields
from pathlib import Path

import pytest

from models.events.catalogue import CATALOGUE, Event, TeamEvent, event
from tests.api.test_activity import SUMMARIES

ALWAYS_THERE = {"actor", "resource"}
MODEL_TEST = Path(__file__).parents[1] / "models" / "test_events.py"


def names_in(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def problems(declared: type[Event]) -> list[str]:
    """What is wrong with a declared event; nothing, if its sentence and resource come from its payload."""
    payload = {field.name for field in fields(declared)}
    found = []
    if declared.id_field not in payload:
        found.append(f"its resource's id, {declared.id_field}, is not in its payload")
    if unknown := names_in(declared.sentence) - payload - ALWAYS_THERE:
        found.append(f"its sentence names {sorted(unknown)}, which it does not carry")
    if not declared.sentence.startswith("{actor} "):
        found.append("its sentence does not say who did it")
    return found


@pytest.mark.parametrize("action", CATALOGUE)
def test_every_event_says_what_it_carries(action: str) -> None:
    declared = CATALOGUE[action]
    assert problems(declared) == []
    payload = dict.fromkeys((field.name for field in fields(declared)), "x")
    assert declared.sentence.format_map({**payload, "actor": "Kim", "resource": "it"}).startswith("Kim ")


@pytest.mark.parametrize("action", CATALOGUE)
def test_every_event_is_recorded_by_a_test(action: str) -> None:
    recorded = action in SUMMARIES
    assert (
        recorded
        or f'"{action}"' in MODEL_TEST.read_text()
        or CATALOGUE[action].__name__ in MODEL_TEST.read_text()
    )


def test_a_bad_event_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.events.catalogue.CATALOGUE", {})

    @event("sample_made", "team", "{actor} made {resource} with {name}")
    class Good(TeamEvent): ...

    @event("sample_lost", "sample", "lost by {nobody}")
    class Bad(Event):
        name: str

    assert problems(Good) == []
    assert problems(Bad) == [
        "its resource's id, team_id, is not in its payload",
        "its sentence names ['nobody'], which it does not carry",
        "its sentence does not say who did it",
    ]


def test_an_event_that_is_declared_twice_fails_at_import() -> None:
    with pytest.raises(ValueError, match="team_created is declared twice"):

        @event("team_created", "team", "{actor} did it again")
        class Again(TeamEvent): ...
