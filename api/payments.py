"""What a payment provider sends: https://docs.stripe.com/webhooks."""

from dataclasses import dataclass

import stripe
from flask import request

from api.blueprint import Blueprint
from api.resource import PUBLIC, Resource, requires
from models import json_text
from models.errors import Invalid
from models.operations import payments as operations
from models.settings import STRIPE, settings

blueprint = Blueprint("payments", "What a payment provider tells")

SIGNATURE = "Stripe-Signature"
LONGEST_ID, LONGEST_TYPE = 255, 100


@blueprint.route("/webhooks/stripe")
class StripeWebhook(Resource):
    @requires(PUBLIC)
    @blueprint.shows_nothing()
    def post(self) -> None:
        """For Stripe alone: an event, signed. It is taken in and answered; what it is about is asked for anew, later."""
        event = verified(request.get_data(), request.headers.get(SIGNATURE, ""))
        operations.receive(self.session, event.id, type_=event.type, reference=event.invoice)


@dataclass(frozen=True, slots=True)
class StripeEvent:
    id: str
    type: str
    invoice: str | None
    """Which of Stripe's invoices it is about, if it is about one."""


def verified(body: bytes, signature: str) -> StripeEvent:
    """The event; raises Invalid for one that Stripe did not sign with our secret within the last five minutes."""
    configuration = settings()
    if configuration.payment_provider != STRIPE:
        raise Invalid({"_body": ["No payment provider is set up here."]})
    if not signature.isascii():  # which the library takes for granted
        raise _unsigned()
    try:
        stripe.WebhookSignature.verify_header(
            body.decode(), signature, configuration.stripe_webhook_secret, stripe.Webhook.DEFAULT_TOLERANCE
        )
        event = json_text.loads(body)
        about = event["data"]["object"]
        return StripeEvent(
            event["id"][:LONGEST_ID],
            event["type"][:LONGEST_TYPE],
            about["id"] if about["object"] == "invoice" else None,
        )
    except stripe.SignatureVerificationError as error:
        raise _unsigned() from error
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid({"_body": ["This is not an event."]}) from error


def _unsigned() -> Invalid:
    return Invalid({SIGNATURE: ["This is not a signature of the body by our secret."]})
