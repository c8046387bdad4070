"""Every route under /api/v1, as the application declares it: what the generated tests go through."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from flask import Flask
from marshmallow import Schema
from uuid_utils.compat import uuid7

from api import create_app
from api.blueprint import BASE
from api.resource import Need, Requirement, requirement_of
from models.access.permissions import Permission

UUIDS = (
    "team_id", "workspace_id", "task_id", "user_id", "session_id", "invitation_id", "api_key_id", "agent_id",
    "deleted_team_id", "export_id",
    "deleted_team_id", "webhook_id", "delivery_id",
    "deleted_team_id", "reservation_id", "ledger_id", "backfill_id",
    "deleted_team_id", "invoice_id",
)  # fmt: skip
NAMES = ("name",)
CONVERTER = re.compile(r"<\w+:")


@dataclass(frozen=True)
class Route:
    method: str
    rule: str
    requirement: Requirement
    body: type[Schema] | None
    query: type[Schema] | None

    def __str__(self) -> str:
        return f"{self.method} {CONVERTER.sub('<', self.rule.removeprefix(BASE))}"

    @property
    def permission(self) -> Permission | None:
        """What it needs in the team, if it is a team's route."""
        return self.requirement.needs if isinstance(self.requirement.needs, Permission) else None

    @property
    def is_in_team(self) -> bool:
        return self.permission is not None or self.requirement.needs is Need.MEMBER

    @property
    def is_public(self) -> bool:
        return self.requirement.needs is Need.PUBLIC

    @property
    def is_list(self) -> bool:
        return self.query is not None and "cursor" in self.query().fields

    def path(self, **ids: UUID | str) -> str:
        """Under /api/v1, with these ids in it and new ones for the rest."""
        path = self.rule.removeprefix(BASE)
        for name in UUIDS:
            path = path.replace(f"<uuid:{name}>", str(ids.get(name) or uuid7()))
        for name in NAMES:
            path = path.replace(f"<string:{name}>", quote(str(ids.get(name) or uuid7())))
        assert "<" not in path, f"{self.rule}: name its ids here"
        return path


def routes_of(app: Flask) -> Iterator[Route]:
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if not rule.rule.startswith(BASE):
            continue
        view_class: Any = app.view_functions[rule.endpoint]
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            view = getattr(view_class.view_class, method.lower())
            requirement = requirement_of(view)
            assert requirement is not None
            yield Route(method, rule.rule, requirement, _schema(view, "json"), _schema(view, "query"))


def _schema(view: Any, location: str) -> type[Schema] | None:
    parameters = getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", [])
    return next((each["schema"] for each in parameters if each["in"] == location), None)


ROUTES = list(routes_of(create_app()))
TEAM_ROUTES = [route for route in ROUTES if route.is_in_team]
BODY_ROUTES = [route for route in ROUTES if route.body]
LIST_ROUTES = [route for route in ROUTES if route.is_list]
