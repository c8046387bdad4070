"""Rate limits, counted in Redis and, while that is away, in each process's memory."""

import hashlib
import time
from functools import cache

from flask import Flask, Response, current_app, request
from flask_limiter import Limiter, RateLimitExceeded
from flask_limiter.util import get_remote_address
from limits import parse_many

from api import cookies
from api.errors import problem
from models.settings import Settings
from realtime.limits import Refusals

TIMEOUTS = {"socket_timeout": 1.0, "socket_connect_timeout": 0.5}


UNROUTED = "unrouted"


def caller() -> str:
    """
    Whose limit a request counts against: the credential's (hashed, for it must not lie in Redis), else the address's. Who comes
    with ever new credentials that are none has one limit for all of them, and so has who looks for addresses that lead nowhere.
    """
    authorization = request.headers.get("Authorization") or cookies.token()
    if not authorization or request.endpoint is None or _is_guessing():
        return get_remote_address()
    return hashlib.sha256(authorization.encode()).hexdigest()[:32]


def _is_guessing() -> bool:
    """Whether this address was refused for its credentials as often of late as it might sign in; as this process counted."""
    return refusals(auth_limit()).wait_s(get_remote_address()) > 0


def count_refusal(response: Response) -> Response:
    if response.status_code == 401:
        refusals(auth_limit()).add(get_remote_address())
    return response


@cache
def refusals(limit: str) -> Refusals:
    """This process's."""
    return Refusals(parse_many(limit))


def auth_limit() -> str:
    limit: str = current_app.config["RATE_LIMIT_AUTH"]
    return limit


def api_limit() -> str:
    limit: str = current_app.config["RATE_LIMIT_API"]
    return limit


limiter = Limiter(
    key_func=caller,
    application_limits=[api_limit],  # over all routes together; a default limit would be one of each route
    strategy="sliding-window-counter",
    in_memory_fallback_enabled=True,
    # The first request that fails puts the process on its memory. Those that were under way with it are let through: they
    # would be answered 500.
    swallow_errors=True,
)
limit_sign_in = limiter.shared_limit(auth_limit, scope="sign-in", key_func=get_remote_address)
"""For whatever anybody may call, or checks a password, a code or a mailed token: they share one limit per address."""
limit_sign_in_by_post = limiter.shared_limit(
    auth_limit, scope="sign-in", key_func=get_remote_address, exempt_when=lambda: request.method != "POST"
)
"""The same limit, where the other methods of a route are as harmless as any call."""


def rate_limited(error: RateLimitExceeded) -> Response:
    current = limiter.current_limit
    wait = max(1, round(current.reset_at - time.time())) if current else 1
    response = problem(429, "rate_limited", f"The limit is {error.description}; wait {wait} s and repeat.")
    response.headers["Retry-After"] = str(wait)
    return response


def register(app: Flask, configuration: Settings) -> None:
    app.config |= {
        "RATELIMIT_STORAGE_URI": configuration.redis_url,
        "RATELIMIT_STORAGE_OPTIONS": TIMEOUTS,
        "RATELIMIT_REQUEST_IDENTIFIER": lambda: request.endpoint or UNROUTED,  # else those have no limit
        "RATE_LIMIT_AUTH": configuration.rate_limit_auth,
        "RATE_LIMIT_API": configuration.rate_limit_api,
    }
    limiter.init_app(app)
    app.after_request(count_refusal)
    app.register_error_handler(RateLimitExceeded, rate_limited)
