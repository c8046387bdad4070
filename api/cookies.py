"""
A session in a browser: its token lies in a cookie that scripts can't read, and whatever changes something proves besides,
by a header that no other site can send, that our own page asked for it.
"""

import hashlib
import hmac
from datetime import datetime

from flask import Response, after_this_request, request

NAME = "agenthq_session"
CSRF_HEADER = "X-CSRF-Token"
HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})


def token() -> str | None:
    """The session token of the request's cookie, if it has one."""
    return request.cookies.get(NAME) or None


def csrf_token(session_token: str) -> str:
    """What our pages send with each change: derived from the session's token, so it dies with it and is kept nowhere."""
    return hmac.new(session_token.encode(), b"csrf", hashlib.sha256).hexdigest()


def asked_by_our_page(session_token: str) -> bool:
    """Whether the request changes nothing, or carries the CSRF token of this session."""
    sent = request.headers.get(CSRF_HEADER, "")
    return request.method in HARMLESS or hmac.compare_digest(
        sent.encode(), csrf_token(session_token).encode()
    )


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
            secure=request.is_secure,
            path="/",
        )
        return response


def clear_on_answer() -> None:
    """The answer of this request will remove the session's cookie."""

    @after_this_request
    def remove(response: Response) -> Response:
        response.delete_cookie(NAME, path="/")
        return response
