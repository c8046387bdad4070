"""Members of a team."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.base import PageQuery
from api.schemas.members import MemberCreateSchema, MemberRoleSchema, MemberSchema
from models.access.emails import normalize_email
from models.access.permissions import Permission
from models.operations import members as operations
from models.queries import members, teams
from models.tables import Team, TeamMember

blueprint = Blueprint("members", "Who is in a team, and in which role")


@blueprint.route("/teams/<uuid:team_id>/members")
class Members(Resource):
    shown_as = MemberSchema
    reads_alone = True

    @requires(Permission.members_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(MemberSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The members, in the order in which they joined."""
        return envelope(members.in_team(self.session, self.access, page_from(query)))

    @requires(Permission.members_create)
    @blueprint.body(MemberCreateSchema)
    @blueprint.shows(MemberSchema, 201)
    def post(self, body: dict[str, Any]) -> TeamMember:
        """Add a user, named by id or address, in a role that grants no more than the caller has."""
        team = teams.get(self.session, self.access, for_update=True)
        email = body.get("email")
        user = members.find_user(
            self.session, user_id=body.get("user_id"), email_normalized=email and normalize_email(email)
        )
        return operations.add(self.session, self.access, team, user=user, role=body["role"])


class MemberResource(Resource):
    """One member, under the team's lock for what is about to change the membership."""

    shown_as = MemberSchema

    def locked(self, user_id: UUID) -> tuple[Team, TeamMember]:
        """The team's row first: every change of a membership takes that one lock."""
        team = teams.get(self.session, self.access, for_update=True)
        member = members.get(self.session, self.access, user_id)
        self.check_match(member)
        return team, member


@blueprint.route("/teams/<uuid:team_id>/members/<uuid:user_id>")
class Member(MemberResource):
    @requires(Permission.members_read)
    @blueprint.shows(MemberSchema)
    def get(self, user_id: UUID) -> TeamMember:
        """One member."""
        return members.get(self.session, self.access, user_id)

    @requires(Permission.members_update)
    @blueprint.body(MemberRoleSchema)
    @blueprint.shows(MemberSchema)
    def patch(self, body: dict[str, str], user_id: UUID) -> TeamMember:
        """Give a member another role. The owner stays an admin."""
        team, member = self.locked(user_id)
        operations.change_role(self.session, self.access, team, member, role=body["role"])
        return member

    @requires(Permission.members_delete, unless_self="user_id")
    @blueprint.shows_nothing()
    def delete(self, user_id: UUID) -> None:
        """Remove a member, or leave. The owner can do neither to themselves before a transfer."""
        team, member = self.locked(user_id)
        operations.remove(self.session, self.access, team, member)


@blueprint.route("/teams/<uuid:team_id>/members/<uuid:user_id>/suspend")
class Suspension(MemberResource):
    @requires(Permission.members_update)
    @blueprint.shows(MemberSchema)
    def post(self, user_id: UUID) -> TeamMember:
        """Bar a member from the team; seat and role stay."""
        team, member = self.locked(user_id)
        operations.suspend(self.session, self.access, team, member)
        return member


@blueprint.route("/teams/<uuid:team_id>/members/<uuid:user_id>/reactivate")
class Reactivation(MemberResource):
    @requires(Permission.members_update)
    @blueprint.shows(MemberSchema)
    def post(self, user_id: UUID) -> TeamMember:
        """Lift a member's suspension."""
        team, member = self.locked(user_id)
        operations.reactivate(self.session, self.access, team, member)
        return member
