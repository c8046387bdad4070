"""`Idempotency-Key` on POST: from the request to models/operations/idempotency.py and back to the kept answer."""

import hashlib
from typing import Any
from uuid import UUID

from flask import Response, g, request
from sqlalchemy.orm import Session

from api.authentication import client_address
from models import json_text
from models.errors import Invalid
from models.operations import idempotency
from models.operations.idempotency import MAXIMUM_KEY_LENGTH, IdempotentRequest
from models.tables import IdempotencyKey

HEADER = "Idempotency-Key"


def claim(session: Session) -> Response | None:
    """The kept answer, if this POST repeats an earlier one; else None, and `keep` will keep the answer it gets."""
    g.idempotent = idempotent = _idempotent_request()
    if idempotent is None:
        return None
    kept = idempotency.claim(session, idempotent)
    if kept is None:
        return None
    g.idempotent = None
    response = Response(kept.body, status=kept.status, mimetype="application/json")
    if kept.etag:
        response.set_etag(kept.etag)
    response.headers["Idempotency-Replayed"] = "true"
    return response


def keep(session: Session, response: Response, *, secret_of: UUID | None) -> None:
    """Keeps a successful answer, in the change's own transaction; of one with a secret, just the id of what was made."""
    idempotent: IdempotentRequest | None = g.idempotent
    if idempotent is None or not 200 <= response.status_code < 300:
        return
    idempotency.keep(
        session,
        IdempotencyKey(
            scope=idempotent.scope,
            key=idempotent.key,
            fingerprint=idempotent.fingerprint,
            status=response.status_code,
            body=None if secret_of else response.get_data(),
            etag=response.get_etag()[0],
            resource_id=secret_of,
        ),
    )


def _idempotent_request() -> IdempotentRequest | None:
    key = request.headers.get(HEADER)
    if key is None or request.method != "POST":
        return None
    if not key.strip() or len(key) > MAXIMUM_KEY_LENGTH or json_text.problem_with_text(key):
        raise Invalid({HEADER: [f"This must be 1 to {MAXIMUM_KEY_LENGTH} characters."]})
    whose = request.headers.get("Authorization") or f"address {client_address()}"
    return IdempotentRequest(
        scope=_sha256(whose),
        key=key,
        fingerprint=_sha256(request.method, request.full_path, request.get_data(cache=True)),
    )


def _sha256(*parts: Any) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8))
        digest.update(data)
    return digest.digest()
