"""Permissions: the catalogue, and questions about who may do what, and why. No question changes anything."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.problem_texts import said
from api.resource import MEMBER, SIGNED_IN, Resource, requires
from api.schemas.base import PageQuery
from api.schemas.permissions import (
    AboutSchema,
    ChecksSchema,
    DecisionsSchema,
    DryRunSchema,
    EffectSchema,
    ExplanationSchema,
    HolderSchema,
    PermissionSchema,
    QuestionSchema,
    WhatCanSchema,
    WhoCanSchema,
)
from models.access.decisions import Reason, decide, granted, missing, path
from models.access.permissions import Permission
from models.operations import dry_runs
from models.operations.dry_runs import Effect
from models.queries import permissions
from models.queries.permissions import Subject

blueprint = Blueprint("permissions", "Who may do what, and why")


@blueprint.route("/permissions")
class Catalogue(Resource):
    @requires(SIGNED_IN)
    @blueprint.query(PageQuery)
    @blueprint.lists(PermissionSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """Every permission that there is."""
        return envelope(permissions.catalogue(page_from(query)))


class Question(Resource):
    """About oneself, being in the team is enough; about others one must be allowed to see its members."""

    def subjects(self, asked: Iterable[dict[str, Any]]) -> list[Subject]:
        found = [Subject(each.get("user_id"), each.get("workspace_id")) for each in asked]
        if any(each.user_id not in {None, self.access.user_id} for each in found):
            self.access.require(Permission.members_read)
        return found


@blueprint.route("/teams/<uuid:team_id>/permissions/check")
class Check(Question):
    @requires(MEMBER)
    @blueprint.body(ChecksSchema)
    @blueprint.shows(DecisionsSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Whether each is allowed; about others it needs `members:read`."""
        checks = body["checks"]
        found = permissions.standings(self.session, self.access, self.subjects(checks))
        results = [
            decide(standing, Permission(each["permission"]))
            for standing, each in zip(found, checks, strict=True)
        ]
        return {"results": results}


@blueprint.route("/teams/<uuid:team_id>/permissions/explain")
class Explain(Question):
    @requires(MEMBER)
    @blueprint.body(QuestionSchema)
    @blueprint.shows(ExplanationSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Whether it is allowed, by which path, and if not, what is missing and who could give it."""
        permission = Permission(body["permission"])
        (standing,) = permissions.standings(self.session, self.access, self.subjects([body]))
        decision, lacks = decide(standing, permission), missing(standing, permission)
        sees_members = Permission.members_read in self.access.permissions
        return {
            "allowed": decision.allowed,
            "permission": permission,
            "reason": decision.reason,
            "via": decision.via,
            "path": path(standing, permission),
            "missing": lacks,
            "can_grant": permissions.givers(self.session, self.access, standing, permission, lacks)
            if sees_members
            else None,
        }


@blueprint.route("/teams/<uuid:team_id>/permissions/who-can")
class WhoCan(Resource):
    @requires(Permission.members_read)
    @blueprint.query(PageQuery)
    @blueprint.body(WhoCanSchema)
    @blueprint.lists(HolderSchema)
    def post(self, query: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """The members who may do it in person, in the order of their ids."""
        permission, page = Permission(body["permission"]), page_from(query)
        workspace_id: UUID | None = body.get("workspace_id")
        found = permissions.who_can(self.session, self.access, permission, page, workspace_id=workspace_id)
        return envelope(found)


@blueprint.route("/teams/<uuid:team_id>/permissions/what-can")
class WhatCan(Question):
    @requires(MEMBER)
    @blueprint.body(AboutSchema)
    @blueprint.shows(WhatCanSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """All that somebody may do; about others it needs `members:read`."""
        (standing,) = permissions.standings(self.session, self.access, self.subjects([body]))
        return {
            "user_id": standing.user_id,
            "workspace_id": standing.workspace_id,
            "role": standing.role,
            "reason": standing.out or (None if standing.sees_workspace else Reason.workspace_not_found),
            "permissions": list(granted(standing)),
        }


@blueprint.route("/teams/<uuid:team_id>/permissions/dry-run")
class DryRun(Resource):
    @requires(Permission.roles_read)
    @blueprint.query(PageQuery)
    @blueprint.body(DryRunSchema)
    @blueprint.shows(EffectSchema)
    def post(self, query: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """
        Who would gain and lose what, without changing anything.

        One of: `{role, permissions}` edits a role, `{role, replacement}` deletes it, `{user_id, role}` gives a member another
        role, `{user_id, workspace_id, role}` one in a workspace (null: the same as in the team). Needs `members:read` besides.
        A role, user or workspace that is not there is 422 or 404, as for the change itself. Whatever else the change would be
        refused for is told in `refused`, beside what it would do. Suspended members have nothing to gain or lose.
        """
        self.access.require(Permission.members_read)
        effect = self._effect(query, body)
        refused = effect.refused
        return {
            "affected": effect.affected,
            "gains": effect.gains,
            "loses": effect.loses,
            "agents": effect.agents,
            "api_keys": effect.api_keys,
            "refused": refused and {"code": refused.code, "detail": said(refused.detail), **refused.members},
            **envelope(effect.lines),
        }

    def _effect(self, query: dict[str, Any], body: dict[str, Any]) -> Effect:
        page = page_from(query)
        if "permissions" in body:
            return dry_runs.of_permissions(self.session, self.access, page, **body)
        if "replacement" in body:
            return dry_runs.of_deletion(self.session, self.access, page, **body)
        if "workspace_id" in body:
            return dry_runs.of_listing(self.session, self.access, page, **body)
        return dry_runs.of_member(self.session, self.access, page, **body)
