"""
What problems say, in the reader's language. The domain speaks English; which of the catalogue's messages a text is, its pattern
says ("This invitation is {status}; ask for a new one."). Codes and field names are for programs and stay.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from babel.messages.mofile import read_mo

from api.console.language import TRANSLATIONS, chosen
from api.console.particles import Word
from api.console.words import in_words

CONTEXT = "problem"
"""Of these messages in the catalogues."""
AS_READ = {CONTEXT, CONTEXT.encode()}
"""Babel reads a context from `.mo` files as bytes."""
PLACE = re.compile(r"\{(\w+)\}")
LONGEST = 2_000
"""Characters of a text that is looked for: what somebody sent can stand in it."""
DEEPEST = 40
"""Levels of a problem's `errors` that are translated; bodies are shallower (models/json_text.py)."""


@dataclass(frozen=True, slots=True)
class Pattern:
    matches: re.Pattern[str]
    translation: str


def said(text: str) -> str:
    """The text in the language of whoever asks; as it is where that is English, or the catalogue has nothing like it."""
    return _translated(text, chosen())


def said_of(errors: Any, depth: int = DEEPEST) -> Any:
    """The `errors` of a problem with each message in the language of whoever asks."""
    if isinstance(errors, str):
        return said(errors)
    if isinstance(errors, Mapping) and depth:
        return {name: said_of(value, depth - 1) for name, value in errors.items()}
    if isinstance(errors, (list, tuple)) and depth:
        return [said_of(each, depth - 1) for each in errors]
    return errors


def _translated(text: str, language: str) -> str:
    exact, patterns = _messages(language)
    if text in exact:
        return exact[text]
    if not patterns or len(text) > LONGEST:
        return text
    for pattern in patterns:
        if found := pattern.matches.fullmatch(text):
            # What stands in a message can be one itself: "There is no such {what} here.", "The role {role}".
            values = {
                name: _translated(in_words(value), language) for name, value in found.groupdict().items()
            }
            return pattern.translation.format_map({name: Word(value) for name, value in values.items()})
    return text


@cache
def _messages(language: str) -> tuple[Mapping[str, str], Sequence[Pattern]]:
    """Whole messages by themselves, and those with places in them, the most exact first."""
    path = TRANSLATIONS / language / "LC_MESSAGES" / "messages.mo"
    if not path.exists():  # English, which the messages are in
        return {}, ()
    with path.open("rb") as file:
        found = {str(each.id): str(each.string) for each in read_mo(file) if each.context in AS_READ}
    exact = {message: said for message, said in found.items() if not PLACE.search(message)}
    with_places = sorted(
        found.keys() - exact.keys(), key=lambda message: len(PLACE.sub("", message)), reverse=True
    )
    return exact, [Pattern(_pattern(message), found[message]) for message in with_places]


def _pattern(message: str) -> re.Pattern[str]:
    pieces = PLACE.split(message)
    return re.compile(
        "".join(
            f"(?P<{piece}>.*?)" if number % 2 else re.escape(piece) for number, piece in enumerate(pieces)
        ),
        re.DOTALL,
    )
