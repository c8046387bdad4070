from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from api.schemas.base import Permissions, Schema, Text
from api.schemas.members import MemberUserSchema
from models.access.decisions import Reason
from models.access.permissions import Permission

MOST_CHECKS = 100
LONGEST_ROLE = 50


class PermissionName(fields.String):
    """One permission of the catalogue."""

    def __init__(self, **kwargs: Any) -> None:
        known = validate.OneOf(
            [permission.value for permission in Permission],
            error="There is no permission {input}; GET /permissions lists them.",
        )
        super().__init__(validate=known, **kwargs)


class PermissionSchema(Schema):
    permission = fields.String(attribute="value")
    resource = fields.String()
    action = fields.String()
    owner_only = fields.Boolean(
        metadata={"description": "The team's owner alone may use it, whoever has it."}
    )
    workspace_scoped = fields.Boolean(
        metadata={"description": "A role in a workspace decides about it there, instead of that in the team."}
    )
    description = fields.String()


class WhereSchema(Schema):
    workspace_id = fields.UUID(
        allow_none=True, metadata={"description": "Within this workspace; the team at large unless given."}
    )


class AboutSchema(WhereSchema):
    user_id = fields.UUID(
        allow_none=True,
        metadata={
            "description": "This person, as they would be when signed in. The caller unless given, as they come: "
            "through an API key or an agent, with what those take away."
        },
    )


class QuestionSchema(AboutSchema):
    permission = PermissionName(required=True)


class ChecksSchema(Schema):
    checks = fields.List(
        fields.Nested(QuestionSchema), required=True, validate=validate.Length(1, MOST_CHECKS)
    )


class DecisionSchema(Schema):
    allowed = fields.Boolean()
    permission = fields.String()
    reason = fields.String(validate=validate.OneOf([reason.value for reason in Reason]))
    via = fields.String(
        allow_none=True,
        metadata={"description": "What granted it: `role:member`, `workspace_role:viewer` or `owner`."},
    )


class DecisionsSchema(Schema):
    results = fields.List(
        fields.Nested(DecisionSchema), metadata={"description": "In the order of the checks."}
    )


class StepSchema(Schema):
    step = fields.String(
        metadata={
            "description": "membership, two_factor, workspace, role, workspace_role, owner, agent or api_key."
        }
    )
    name = fields.String(allow_none=True, metadata={"description": "Of the role, of the key, …"})
    grants = fields.Boolean()
    counts = fields.Boolean(
        metadata={
            "description": "False where another step stands instead. It is allowed if all that count grant it."
        }
    )


class MissingSchema(Schema):
    step = fields.String()
    name = fields.String(allow_none=True)
    detail = fields.String()


class GiverSchema(Schema):
    user = fields.Nested(MemberUserSchema)
    how = fields.List(
        fields.String(),
        metadata={
            "description": "The permission that they would use, or transfer (of the ownership), new_key (by the key's maker), "
            "sign_in or two_factor (by the person)."
        },
    )


class ExplanationSchema(DecisionSchema):
    path = fields.List(fields.Nested(StepSchema))
    missing = fields.List(
        fields.Nested(MissingSchema),
        metadata={"description": "The smallest set of grants with which it would be allowed."},
    )
    can_grant = fields.List(
        fields.Nested(GiverSchema),
        allow_none=True,
        metadata={
            "description": "Up to 20 members who could give some of what is missing; null without `members:read`."
        },
    )


class WhoCanSchema(WhereSchema):
    permission = PermissionName(required=True)


class HolderSchema(Schema):
    user = fields.Nested(MemberUserSchema)
    role = fields.String(metadata={"description": "In the team."})
    via = fields.String()


class GrantedSchema(Schema):
    permission = fields.String()
    via = fields.String()


class WhatCanSchema(Schema):
    user_id = fields.UUID()
    workspace_id = fields.UUID(allow_none=True)
    role = fields.String(allow_none=True, metadata={"description": "In the team; null for who is no member."})
    reason = fields.String(
        allow_none=True,
        metadata={"description": "Why there is nothing, or nothing that is workspace-scoped."},
    )
    permissions = fields.List(fields.Nested(GrantedSchema))


class DryRunSchema(Schema):
    role = Text(required=True, maximum=LONGEST_ROLE, allow_none=True)
    permissions = Permissions()
    user_id = fields.UUID()
    workspace_id = fields.UUID()
    replacement = Text(maximum=LONGEST_ROLE, allow_none=True)

    @validates_schema
    def name_one_change(self, data: dict[str, Any], **_: Any) -> None:
        changes = ({"permissions"}, {"replacement"}, {"user_id"}, {"user_id", "workspace_id"})
        if data.keys() - {"role"} not in changes:
            raise ValidationError(
                "With role give one of: permissions (what it shall grant); replacement (of the role, deleted); "
                "user_id (a member's role in the team); user_id and workspace_id (in a workspace)."
            )
        if data["role"] is None and "workspace_id" not in data:
            raise ValidationError("Only in a workspace there may be no role.", "role")


class LineSchema(Schema):
    user = fields.Nested(MemberUserSchema)
    workspace_id = fields.UUID(
        allow_none=True,
        metadata={
            "description": "Null: in the team, and in every workspace where they have no role of their own."
        },
    )
    gains = fields.List(fields.String())
    loses = fields.List(fields.String())


class TouchedSchema(Schema):
    grow = fields.Integer()
    shrink = fields.Integer()


class RefusalSchema(Schema):
    code = fields.String()
    detail = fields.String()
    missing = fields.String(metadata={"description": "With `permission_denied`: what the caller lacks."})


class EffectSchema(Schema):
    affected = fields.Integer(metadata={"description": "How many people gain or lose something."})
    gains = fields.List(fields.String(), metadata={"description": "What anybody gains, anywhere."})
    loses = fields.List(fields.String())
    agents = fields.Nested(TouchedSchema)
    api_keys = fields.Nested(TouchedSchema)
    refused = fields.Nested(
        RefusalSchema, allow_none=True, metadata={"description": "Why the caller could not make this change."}
    )
    items = fields.List(fields.Nested(LineSchema))
    next_cursor = fields.String(allow_none=True)
