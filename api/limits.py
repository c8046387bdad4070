"""Rate limits, counted in Redis and, while that is away, in each process's memory."""

import hashlib
import time

from flask import Flask, Response, current_app, request
from flask_limiter import Limiter, RateLimitExceeded
from flask_limiter.util import get_remote_address

from api import cookies
from api.errors import problem
from models.settings import Settings

TIMEOUTS = {"socket_timeout": 1.0, "socket_connect_timeout": 0.5}


def caller() -> str:
    """Whose limit a request counts against: the credential's (hashed, for it must not lie in Redis), else the address's."""
    authorization = request.headers.get("Authorization") or cookies.token()
    if not authorization:
        return get_remote_address()
    return hashlib.sha256(authorization.encode()).hexdigest()[:32]


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
        "RATE_LIMIT_AUTH": configuration.rate_limit_auth,
        "RATE_LIMIT_API": configuration.rate_limit_api,
    }
    limiter.init_app(app)
    app.register_error_handler(RateLimitExceeded, rate_limited)
