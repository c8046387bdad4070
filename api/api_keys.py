"""API keys of a team, and the agents that use some of them."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.api_keys import (
    AgentCreateSchema,
    AgentSchema,
    AgentUpdateSchema,
    ApiKeyCreateSchema,
    ApiKeySchema,
    NewApiKeySchema,
)
from api.schemas.base import PageQuery
from models.access.permissions import Permission
from models.operations import agents as agent_operations
from models.operations import api_keys as operations
from models.operations.api_keys import NewKey
from models.queries import agents, api_keys, teams
from models.tables import Agent as AgentRow
from models.tables import ApiKey as ApiKeyRow
from models.tables import Team

blueprint = Blueprint("api_keys", "Credentials of a team for programs and agents")


@blueprint.route("/teams/<uuid:team_id>/api-keys")
class ApiKeys(Resource):
    shown_as = ApiKeySchema

    @requires(Permission.api_keys_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(ApiKeySchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The team's keys, newest first."""
        return envelope(api_keys.in_team(self.session, self.access, page_from(query)))

    @requires(Permission.api_keys_create)
    @blueprint.body(ApiKeyCreateSchema)
    @blueprint.shows(NewApiKeySchema, 201)
    def post(self, body: dict[str, Any]) -> NewKey:
        """Make a key that may do no more than the caller, now and later. With `agent_id`, it is that agent's."""
        agent_id = body.pop("agent_id", None)
        agent = agents.get(self.session, self.access, agent_id) if agent_id else None
        made = operations.create(self.session, self.access, agent=agent, **body)
        self.secret_of = made.row.id
        return made


@blueprint.route("/teams/<uuid:team_id>/api-keys/<uuid:api_key_id>")
class ApiKey(Resource):
    shown_as = ApiKeySchema

    @requires(Permission.api_keys_read)
    @blueprint.shows(ApiKeySchema)
    def get(self, api_key_id: UUID) -> ApiKeyRow:
        """One key."""
        return api_keys.get(self.session, self.access, api_key_id)

    @requires(Permission.api_keys_delete)
    @blueprint.shows_nothing()
    def delete(self, api_key_id: UUID) -> None:
        """Revoke the key; it is refused on its next request."""
        row = api_keys.get(self.session, self.access, api_key_id, for_update=True)
        self.check_match(row)
        operations.revoke(self.session, self.access, row)


@blueprint.route("/teams/<uuid:team_id>/agents")
class Agents(Resource):
    shown_as = AgentSchema

    @requires(Permission.api_keys_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(AgentSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The team's agents, oldest first. They take no seats."""
        return envelope(agents.in_team(self.session, self.access, page_from(query)))

    @requires(Permission.api_keys_create)
    @blueprint.body(AgentCreateSchema)
    @blueprint.shows(AgentSchema, 201)
    def post(self, body: dict[str, Any]) -> AgentRow:
        """Make an agent, in a role that grants no more than the caller has. A key of its own lets it in."""
        team = teams.get(self.session, self.access, for_update=True)
        return agent_operations.create(self.session, self.access, team, **body)


@blueprint.route("/teams/<uuid:team_id>/agents/<uuid:agent_id>")
class Agent(Resource):
    shown_as = AgentSchema

    @requires(Permission.api_keys_read)
    @blueprint.shows(AgentSchema)
    def get(self, agent_id: UUID) -> AgentRow:
        """One agent."""
        return agents.get(self.session, self.access, agent_id)

    @requires(Permission.api_keys_create)
    @blueprint.body(AgentUpdateSchema)
    @blueprint.shows(AgentSchema)
    def patch(self, body: dict[str, Any], agent_id: UUID) -> AgentRow:
        """Change an agent's name, description or role; in force on its next request."""
        team, agent = self._locked(agent_id)
        agent_operations.update(self.session, self.access, team, agent, **body)
        return agent

    @requires(Permission.api_keys_delete)
    @blueprint.shows_nothing()
    def delete(self, agent_id: UUID) -> None:
        """Delete an agent with its keys."""
        _, agent = self._locked(agent_id)
        agent_operations.delete(self.session, self.access, agent)

    def _locked(self, agent_id: UUID) -> tuple[Team, AgentRow]:
        """The team's row first, since an agent names one of its roles."""
        team = teams.get(self.session, self.access, for_update=True)
        agent = agents.get(self.session, self.access, agent_id, for_update=True)
        self.check_match(agent)
        return team, agent
