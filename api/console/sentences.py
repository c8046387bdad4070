"""What happened, in the reader's language: the event catalogue's sentences are messages to translate."""

from typing import Any

from flask import Blueprint
from flask_babel import gettext
from markupsafe import Markup, escape

from api.console.formats import exact
from api.console.particles import Word
from api.console.words import action_name, in_words, resource_name
from models.events.catalogue import CATALOGUE
from models.queries.activity import ActivityView


def actor(view: ActivityView) -> str:
    """Who acted, as they are called today."""
    # Translators: how a sentence calls a person; Korean adds 님.
    person = gettext("%(name)s", name=view.actor_name) if view.actor_name else gettext("The system")
    if view.row.agent_id is None:
        return str(person)
    return str(
        gettext("%(agent)s for %(person)s", agent=view.agent_name or gettext("An agent"), person=person)
    )


def sentence(view: ActivityView) -> Markup:
    """The catalogue's sentence, translated, who acted and what it happened to marked; the bare action of one that is unknown here."""
    row = view.row
    declared = CATALOGUE.get(row.action)
    if declared is None:
        return escape(row.action)
    said_of = {name: _value(name, value) for name, value in row.details.items()}
    words = {name: Word(value, escape(value)) for name, value in said_of.items()}
    words["actor"] = _marked(actor(view))
    words["resource"] = _marked(view.resource_name or resource_name(declared.resource_type))
    try:
        said = gettext(declared.sentence).format_map(words)
    except (KeyError, IndexError):  # a row that an older release wrote, with another payload
        said = "{actor}: {action} {resource}".format(action=escape(action_name(row.action)), **words)
    return Markup(said)  # noqa: S704  each value is escaped  # nosec B704


def _marked(text: str) -> Word:
    return Word(text, Markup("<b>{}</b>").format(text))


def _value(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if name.endswith("seq") else exact(value)
    return in_words(value)


def register(blueprint: Blueprint) -> None:
    blueprint.add_app_template_filter(sentence)
    blueprint.add_app_template_global(actor, "actor_of")
