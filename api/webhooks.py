"""Webhooks: a team's activity log, sent to the team's own systems as it grows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import request
from uuid_utils.compat import uuid7

from api.authentication import credential
from api.blueprint import Blueprint
from api.hashing import PreparedResource, read_body
from api.offload import off_the_loop
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.base import PageQuery
from api.schemas.webhooks import (
    DeliveriesQuery,
    DeliverySchema,
    NewWebhookSchema,
    ReplaySchema,
    TestSchema,
    WebhookCreateSchema,
    WebhookSchema,
    WebhookUpdateSchema,
)
from models.access.entry import enter_team
from models.access.permissions import Permission
from models.database import transaction
from models.destinations import RefusedDestination, checked_addresses, parse
from models.errors import Invalid
from models.operations import webhook_messages
from models.operations import webhooks as operations
from models.operations.webhooks import NewSecret
from models.posting import CONNECT_S, Answer, Poster, tls_context
from models.queries import teams, webhooks
from models.settings import settings
from models.tables import Webhook as WebhookRow
from models.tables import WebhookDelivery

blueprint = Blueprint("webhooks", "The activity log, sent to the team's own systems")


class ChecksAddress(PreparedResource):
    """Routes that are given a URL. Its host is looked up before the transaction, and by no one who may not go on."""

    _refusal: RefusedDestination | None = None

    def check_address(self, permission: Permission, schema: type[WebhookUpdateSchema]) -> None:
        """What is wrong with the body's address is kept for `require_address`; raises as entering and parsing do."""
        assert request.view_args is not None  # noqa: S101  the route has a team  # nosec B101
        with transaction() as session:
            enter_team(session, credential(), request.view_args["team_id"], permission)
        url = read_body(schema).get("url")
        if url is None:
            return
        try:
            checked_addresses(parse(url), settings().webhook_private_networks, within_s=CONNECT_S)
        except RefusedDestination as error:
            self._refusal = error

    def require_address(self) -> None:
        if self._refusal is not None:
            raise Invalid({"url": [str(self._refusal)]})


@blueprint.route("/teams/<uuid:team_id>/webhooks")
class Webhooks(ChecksAddress):
    shown_as = WebhookSchema

    @requires(Permission.webhooks_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(WebhookSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The team's webhooks, oldest first."""
        return envelope(webhooks.in_team(self.session, self.access, page_from(query)))

    def prepare_post(self) -> None:
        self.check_address(Permission.webhooks_create, WebhookCreateSchema)

    @requires(Permission.webhooks_create)
    @blueprint.body(WebhookCreateSchema)
    @blueprint.shows(NewWebhookSchema, 201)
    def post(self, body: dict[str, Any]) -> NewSecret:
        """
        Make a webhook, which is sent what happens from now on, as the caller may see it. Takes a person who signed in and may
        read the log.
        """
        self.require_address()
        team = teams.get(self.session, self.access, for_update=True)
        made = operations.create(self.session, self.access, team, **body)
        self.secret_of = made.row.id
        return made


@blueprint.route("/teams/<uuid:team_id>/webhooks/<uuid:webhook_id>")
class Webhook(ChecksAddress):
    shown_as = WebhookSchema

    @requires(Permission.webhooks_read)
    @blueprint.shows(WebhookSchema)
    def get(self, webhook_id: UUID) -> WebhookRow:
        """One webhook, with how far it has come."""
        return webhooks.get(self.session, self.access, webhook_id)

    def prepare_patch(self) -> None:
        self.check_address(Permission.webhooks_update, WebhookUpdateSchema)

    @requires(Permission.webhooks_update)
    @blueprint.body(WebhookUpdateSchema)
    @blueprint.shows(WebhookSchema)
    def patch(self, body: dict[str, Any], webhook_id: UUID) -> WebhookRow:
        """
        Change a webhook. Whoever changes where it points, what it gets, or enables it, answers for it from then on, and has
        signed in.
        """
        row = webhooks.get(self.session, self.access, webhook_id, for_update=True)
        self.check_match(row)
        self.require_address()
        operations.update(self.session, self.access, row, **body)
        return row

    @requires(Permission.webhooks_delete)
    @blueprint.shows_nothing()
    def delete(self, webhook_id: UUID) -> None:
        """Delete a webhook with its deliveries."""
        row = webhooks.get(self.session, self.access, webhook_id, for_update=True)
        self.check_match(row)
        operations.delete(self.session, self.access, row)


@blueprint.route("/teams/<uuid:team_id>/webhooks/<uuid:webhook_id>/rotate-secret")
class Secret(Resource):
    @requires(Permission.webhooks_update)
    @blueprint.shows(NewWebhookSchema)
    def post(self, webhook_id: UUID) -> NewSecret:
        """Make a new secret. For 24 hours what is sent is signed with the old one too."""
        row = webhooks.get(self.session, self.access, webhook_id, for_update=True)
        made = operations.rotate_secret(self.session, self.access, row)
        self.secret_of = row.id
        return made


@blueprint.route("/teams/<uuid:team_id>/webhooks/<uuid:webhook_id>/test")
class Test(PreparedResource):
    """The message is sent before the transaction that notes it."""

    answer: Answer

    def prepare_post(self) -> None:
        assert request.view_args is not None  # noqa: S101  the route has a team  # nosec B101
        with transaction() as session:
            access = enter_team(
                session, credential(), request.view_args["team_id"], Permission.webhooks_update
            )
            row = webhooks.get(session, access, request.view_args["webhook_id"])
            keys = webhook_messages.secrets_of(row)
        off_the_loop(tls_context)
        self.answer = send_test(row, keys)

    @requires(Permission.webhooks_update)
    @blueprint.shows(TestSchema)
    def post(self, webhook_id: UUID) -> Answer:
        """Send a message of the type `webhook_test` now, and see what the receiver answers."""
        row = webhooks.get(self.session, self.access, webhook_id)
        operations.tested(self.session, self.access, row, self.answer)
        return self.answer


def send_test(row: WebhookRow, keys: Sequence[bytes]) -> Answer:
    body = webhook_messages.test_body(row)
    with Poster(parse(row.url), settings().webhook_private_networks) as poster:
        return poster.post(body, webhook_messages.headers(keys, uuid7(), body))


@blueprint.route("/teams/<uuid:team_id>/webhooks/<uuid:webhook_id>/replay")
class Replay(Resource):
    shown_as = WebhookSchema

    @requires(Permission.webhooks_update)
    @blueprint.body(ReplaySchema)
    @blueprint.shows(WebhookSchema)
    def post(self, body: dict[str, int], webhook_id: UUID) -> WebhookRow:
        """Send a stretch of the log again, in its order and before what is new; also what happened before the webhook was made."""
        row = webhooks.get(self.session, self.access, webhook_id, for_update=True)
        operations.replay(self.session, self.access, row, **body)
        return row


@blueprint.route("/teams/<uuid:team_id>/webhooks/<uuid:webhook_id>/deliveries")
class Deliveries(Resource):
    @requires(Permission.webhooks_read)
    @blueprint.query(DeliveriesQuery)
    @blueprint.lists(DeliverySchema)
    def get(self, query: dict[str, Any], webhook_id: UUID) -> dict[str, Any]:
        """What became of the events, newest event first; kept for 30 days. Dead letters are those of the state `dead`."""
        page = page_from(query)
        webhooks.get(self.session, self.access, webhook_id)
        return envelope(webhooks.deliveries(self.session, self.access, webhook_id, page, **query))


@blueprint.route("/teams/<uuid:team_id>/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/redeliver")
class Redelivery(Resource):
    shown_as = DeliverySchema

    @requires(Permission.webhooks_update)
    @blueprint.shows(DeliverySchema)
    def post(self, webhook_id: UUID, delivery_id: UUID) -> WebhookDelivery:
        """Send one event again, soon and out of turn; one attempt decides whether it is delivered."""
        row = webhooks.get(self.session, self.access, webhook_id, for_update=True)
        delivery = webhooks.delivery(self.session, self.access, webhook_id, delivery_id)
        operations.redeliver(self.session, self.access, row, delivery)
        return delivery
