"""What happened, in the reader's language: the event catalogue's sentences are messages to translate."""

from typing import Any

from flask import Blueprint
from flask_babel import gettext
from markupsafe import Markup, escape

from api.console.formats import exact
from models.events.catalogue import CATALOGUE
from models.queries.activity import ActivityView


def actor(view: ActivityView) -> str:
    """Who acted, as they are called today."""
    name = str(view.actor_name or gettext("The system"))
    if view.row.agent_id is None:
        return name
    agent = view.agent_name or gettext("An agent")
    return str(gettext("%(agent)s for %(person)s", agent=agent, person=name))


def sentence(view: ActivityView) -> Markup:
    """The catalogue's sentence, translated, who acted and what it happened to marked."""
    declared = CATALOGUE.get(view.row.action)
    if declared is None:
        return escape(view.summary)
    values = {**view.row.details, "resource": view.resource_name or resource_name(declared.resource_type)}
    shown: dict[str, Any] = {name: _plain(value) for name, value in values.items()}
    shown["resource"] = Markup('<span class="what">{}</span>').format(values["resource"])
    shown["actor"] = Markup("<b>{}</b>").format(actor(view))
    try:
        return Markup(gettext(declared.sentence).format_map(shown))  # noqa: S704  each value is escaped
    except (KeyError, IndexError):  # a row that an older release wrote, with another payload
        return escape(view.summary)


def _plain(value: Any) -> Markup:
    return escape(exact(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def action_name(action: str) -> str:
    """An action as people say it: `task_created` is "task created"."""
    return str(gettext(action.replace("_", " ")))


def resource_name(resource_type: str) -> str:
    return str(gettext(resource_type.replace("_", " ")))


def register(blueprint: Blueprint) -> None:
    blueprint.add_app_template_filter(sentence)
    blueprint.add_app_template_filter(action_name)
    blueprint.add_app_template_filter(resource_name)
    blueprint.add_app_template_global(actor, "actor_of")
