"""
What a webhook is sent, and how it is signed: Standard Webhooks (https://www.standardwebhooks.com), HMAC-SHA256 over the
message's id, the time of the attempt and the body.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from models import encryption, json_text
from models.queries.activity import ActivityView
from models.tables import Webhook

SECRET_PREFIX = "whsec_"  # noqa: S105  what each begins with  # nosec B105
SECRET_BYTES = 32
"""The specification takes 24 to 64."""
TEST = "webhook_test"
USER_AGENT = "AgentHQ-Webhooks/1"


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def show_secret(secret: bytes) -> str:
    """As people copy it and libraries take it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def keep_secret(secret: bytes, webhook_id: UUID) -> bytes:
    """Encrypted; raises Unavailable where no key is set."""
    return encryption.encrypt(secret, context=_context(webhook_id))


def keep_again(kept: bytes, webhook_id: UUID) -> bytes:
    """Encrypted under the first key; raises Unavailable."""
    return keep_secret(encryption.decrypt(kept, context=_context(webhook_id)), webhook_id)


def secrets_of(webhook: Webhook) -> list[bytes]:
    """What signs: the secret and, for a day after it was rotated, the one before it. Raises Unavailable."""
    kept = [webhook.secret]
    over = webhook.previous_secret_expires_at
    if webhook.previous_secret is not None and over is not None and datetime.now(UTC) < over:
        kept.append(webhook.previous_secret)
    return [encryption.decrypt(each, context=_context(webhook.id)) for each in kept]


def _context(webhook_id: UUID) -> str:
    return f"webhook:{webhook_id}"


def headers(keys: Sequence[bytes], message_id: UUID, body: bytes) -> dict[str, str]:
    """For one attempt, now; a signature for each key."""
    timestamp = str(int(time.time()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": str(message_id),
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def event_body(view: ActivityView) -> bytes:
    """An event: its row of the log, as the API shows it, with its place in the chain."""
    row = view.row
    data = {
        "seq": row.seq,
        "id": row.id,
        "team_id": row.team_id,
        "user_id": row.user_id,
        "agent_id": row.agent_id,
        "api_key_id": row.api_key_id,
        "action": row.action,
        "outcome": row.outcome,
        "schema_version": row.schema_version,
        "resource_type": row.resource_type,
        "resource_id": row.resource_id,
        "resource_name": view.resource_name,
        "workspace_id": row.workspace_id,
        "summary": view.summary,
        "metadata": row.details,
        "ip_address": None if row.ip_address is None else str(row.ip_address),
        "user_agent": row.user_agent,
        "request_id": row.request_id,
        "created_at": _time(row.created_at),
        "hash": row.hash.hex(),
    }
    return _body(row.action, row.created_at, data)


def test_body(webhook: Webhook) -> bytes:
    """What the test button sends; no event, and nothing of the log."""
    return _body(TEST, datetime.now(UTC), {"team_id": webhook.team_id, "webhook_id": webhook.id})


def _body(type_: str, at: datetime, data: dict[str, Any]) -> bytes:
    return json_text.dumps({"type": type_, "timestamp": _time(at), "data": data}).encode()


def _time(at: datetime) -> str:
    """As the API shows times."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
