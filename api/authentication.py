"""From the request's headers to a Credential; whether it is good is decided in models/access."""

import ipaddress

from flask import g, request

from api import cookies
from models.access.actor import Origin
from models.access.credentials import Credential
from models.errors import Unauthenticated

LONGEST_USER_AGENT = 500


def credential() -> Credential:
    """
    The credential of this request: bearer, or the session of our cookie; raises Unauthenticated if there is none, and for a
    change that the cookie alone would ask for.
    """
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return Credential(secret.strip(), origin())
    session_token = cookies.token()
    if scheme or session_token is None:
        raise Unauthenticated("Send a session token or an API key as `Authorization: Bearer …`.")
    if not cookies.asked_by_our_page(session_token):
        raise Unauthenticated(
            f"A change by a cookie's session needs its token in {cookies.CSRF_HEADER}; reload the page."
        )
    return Credential(session_token, origin())


def origin() -> Origin:
    return Origin(
        ip_address=client_address(),
        user_agent=request.headers.get("User-Agent", "")[:LONGEST_USER_AGENT] or None,
        request_id=g.get("request_id"),
    )


def client_address() -> str | None:
    """The client's IP address, or None where the server gives none (a Unix socket) or none that is one."""
    try:
        return str(ipaddress.ip_address((request.remote_addr or "").partition("%")[0]))
    except ValueError:
        return None
