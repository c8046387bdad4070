"""What the product calls things, in the reader's language: kept values (roles, states, plans), and the log's sentences with their particles."""

from typing import Any

from flask import Blueprint
from flask_babel import gettext, lazy_gettext

from api.console.formats import exact
from models.events.catalogue import CATALOGUE
from models.queries.activity import ActivityView

KEPT: dict[str, Any] = {
    "owner": lazy_gettext("owner"),
    "admin": lazy_gettext("admin"),
    "member": lazy_gettext("member"),
    "viewer": lazy_gettext("viewer"),
    "free": lazy_gettext("free"),
    "pro": lazy_gettext("pro"),
    "enterprise": lazy_gettext("enterprise"),
    "pending": lazy_gettext("pending"),
    "processing": lazy_gettext("processing"),
    "completed": lazy_gettext("completed"),
    "failed": lazy_gettext("failed"),
    "cancelled": lazy_gettext("cancelled"),
}
"""Values that the API keeps and people read; a role of the team's own stands as it was named."""
RESOURCES: dict[str, Any] = {
    "agent": lazy_gettext("agent"),
    "api_key": lazy_gettext("API key"),
    "export": lazy_gettext("export"),
    "invitation": lazy_gettext("invitation"),
    "role": lazy_gettext("role"),
    "task": lazy_gettext("task"),
    "team": lazy_gettext("team"),
    "user": lazy_gettext("user"),
    "webhook": lazy_gettext("webhook"),
    "workspace": lazy_gettext("workspace"),
}
PARTICLES = {"은": "는", "이": "가", "을": "를", "과": "와", "으로": "로"}
"""After a final consonant, and after a vowel."""
FIRST_SYLLABLE, LAST_SYLLABLE, FINALS, RIEUL = 0xAC00, 0xD7A3, 28, 8
FINALS_OF_DIGITS = {"0": 21, "1": RIEUL, "3": 16, "6": 1, "7": RIEUL, "8": RIEUL}
"""영, 일, 삼, 육, 칠 and 팔 end in a consonant; the others in a vowel."""
FINALS_OF_LETTERS = {"l": RIEUL, "m": 16, "n": 4} | dict.fromkeys("aeiouwy", 0)
"""As names in Latin letters are mostly said; of the others nobody can tell (Park is 박, Jack is 잭, Clark is 클라크)."""


class Word(str):
    """A part of a sentence. `{name:을}` in a Korean one is the word with 을 or 를, whichever its last sound asks for."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(self) + particle(self, spec) if spec in PARTICLES else super().__format__(spec)


def particle(word: str, wanted: str) -> str:
    """The particle's form after the word; both, as in "을(를)", where its sound can't be told."""
    final = _final(word)
    other = PARTICLES[wanted]
    if final is None:
        return f"{wanted}({other})" if len(wanted) == 1 else f"({wanted[0]}){other}"
    return other if final == 0 or (final == RIEUL and wanted == "으로") else wanted


def _final(word: str) -> int | None:
    """The number of the last syllable's final consonant, 0 for none; None where it can't be told."""
    last = next((letter for letter in reversed(word.lower()) if letter.isalnum()), "")
    if last and FIRST_SYLLABLE <= ord(last) <= LAST_SYLLABLE:
        return (ord(last) - FIRST_SYLLABLE) % FINALS
    if last.isdecimal():
        return FINALS_OF_DIGITS.get(last, 0)
    return FINALS_OF_LETTERS.get(last)


def in_words(value: object) -> str:
    """A kept value as people read it; anything else as it is."""
    return str(KEPT.get(str(value), value))


def action_in_words(action: str) -> str:
    """An event's type without its underscores: `task_created` as "task created"."""
    return gettext(phrase(action))


def phrase(action: str) -> str:
    """The English of `action_in_words`, which is its key in the catalogues."""
    return action.replace("_", " ").replace("api", "API")


def sentence(view: ActivityView) -> str:
    """What happened, in the reader's language; the bare action for a type that this release does not know (any more)."""
    row = view.row
    declared = CATALOGUE.get(row.action)
    if declared is None:
        return row.action
    names = {
        "actor": Word(_actor(view)),
        "resource": Word(view.resource_name or RESOURCES.get(row.resource_type, row.resource_type)),
    }
    details = {name: Word(_value(name, value)) for name, value in row.details.items()}
    try:
        return gettext(declared.sentence).format_map({**details, **names})
    except (KeyError, IndexError):  # a row that an older release wrote, with another payload
        return f"{names['actor']}: {action_in_words(row.action)} {names['resource']}"


def _actor(view: ActivityView) -> str:
    person = gettext("%(name)s", name=view.actor_name) if view.actor_name else gettext("The system")
    if view.row.agent_id is None:
        return person
    return gettext("%(agent)s for %(person)s", agent=view.agent_name or gettext("An agent"), person=person)


def _value(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if name.endswith("seq") else exact(value)
    return in_words(value)


def register(blueprint: Blueprint) -> None:
    for function in (in_words, action_in_words, sentence):
        blueprint.add_app_template_filter(function)
