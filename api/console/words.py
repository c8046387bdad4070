"""Values that the API keeps and people read, in the reader's language."""

from typing import Any

from flask import Blueprint
from flask_babel import gettext, lazy_gettext

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
    "accepted": lazy_gettext("accepted"),
    "declined": lazy_gettext("declined"),
    "revoked": lazy_gettext("revoked"),
    "expired": lazy_gettext("expired"),
    "open": lazy_gettext("open"),
    "applied": lazy_gettext("applied"),
    "reverted": lazy_gettext("reverted"),
    "settled": lazy_gettext("settled"),
    "released": lazy_gettext("released"),
    "unsettled": lazy_gettext("unsettled"),
    "paid": lazy_gettext("paid"),
    "void": lazy_gettext("void"),
    "tasks_created": lazy_gettext("tasks created"),
    "tasks_completed": lazy_gettext("tasks completed"),
    "llm_tokens_used": lazy_gettext("tokens"),
    "api_calls": lazy_gettext("API calls"),
    "storage_bytes": lazy_gettext("storage"),
}
"""Roles, plans, states, metrics. A role of the team's own stands as it was named."""


def in_words(value: object) -> str:
    """A kept value as people say it; anything else as it is."""
    return str(KEPT.get(str(value), value))


def phrase(name: str) -> str:
    """An action or a type in English, which is its key in the catalogues: `api_key_created` is "API key created"."""
    return name.replace("_", " ").replace("api", "API")


def action_name(action: str) -> str:
    """An action as people say it: `task_created` is "task created"."""
    return str(gettext(phrase(action)))


def resource_name(resource_type: str) -> str:
    return str(gettext(phrase(resource_type)))


def register(blueprint: Blueprint) -> None:
    for function in (in_words, action_name, resource_name):
        blueprint.add_app_template_filter(function)
