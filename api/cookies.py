"""
A session in a browser: its token lies in a cookie that scripts can't read, and whatever changes something proves besides,
by a header that no other site can send, that our own page asked for it.
"""

import hmac
import secrets
from datetime import datetime

from flask import Response, after_this_request, request

from models.settings import settings

NAME = "agenthq_session"
CSRF_HEADER = "X-CSRF-Token"
DIGEST = 32
"""Bytes of SHA-256."""
HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})


def token() -> str | None:
    """The session token of the request's cookie, if it has one."""
    return request.cookies.get(NAME) or None


def csrf_token(session_token: str) -> str:
    """
    What our pages send with each change: derived from the session's token, so it dies with it and is kept nowhere. A mask of
    the page's own lies over it, so that the length of a compressed page tells nobody what it is (BREACH).
    """
    mask = secrets.token_bytes(DIGEST)
    return (mask + _masked(_csrf_digest(session_token), mask)).hex()


def asked_by_our_page(session_token: str) -> bool:
    """Whether the request changes nothing, or carries a CSRF token of this session."""
    if request.method in HARMLESS:
        return True
    try:
        sent = bytes.fromhex(request.headers.get(CSRF_HEADER, ""))
    except ValueError:
        return False
    if len(sent) != 2 * DIGEST:
        return False
    return hmac.compare_digest(_masked(sent[DIGEST:], sent[:DIGEST]), _csrf_digest(session_token))


def _csrf_digest(session_token: str) -> bytes:
    return hmac.digest(session_token.encode(), b"csrf", "sha256")


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(value, mask, strict=True))


def set_on_answer(session_token: str, expires_at: datetime) -> None:
    """The answer of this request will carry the session's cookie."""

    @after_this_request
    def add(response: Response) -> Response:
        response.set_cookie(
            NAME,
            session_token,
            expires=expires_at,
            httponly=True,
            samesite="Lax",  # a link in a mail leads to a page of ours, signed in
            secure=request.is_secure
            or settings().public_url.startswith("https://"),  # a proxy may speak TLS for us
            path="/",
        )
        return response


def clear_on_answer() -> None:
    """The answer of this request will remove the session's cookie."""

    @after_this_request
    def remove(response: Response) -> Response:
        response.delete_cookie(NAME, path="/")
        return response
