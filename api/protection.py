"""What tells browsers how little they may do with our answers, and whose pages may read them."""

from flask import Flask, Response
from flask_cors import CORS

from api.blueprint import BASE
from models.settings import Settings

YEAR_S = 365 * 24 * 60 * 60
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""Of every answer, unless it has its own: pages and their files do."""
HEEDED = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-Id")
"""What other origins' pages may send us."""
SHOWN = (
    "Content-Disposition", "ETag", "Idempotency-Replayed", "Retry-After", "WWW-Authenticate", "X-Request-Id",
)  # fmt: skip
"""What they may read, besides what anybody's page may (Cache-Control, Content-Type, …)."""
PREFLIGHT_S = 600
"""How long a browser remembers what it was told."""


def register(app: Flask, configuration: Settings) -> None:
    """
    To the pages of ALLOWED_ORIGINS the API answers, and to no other origin's. They come with a bearer: no cookie of ours is
    ever taken from another origin, so none of their readers can be made to act (`Access-Control-Allow-Credentials` is absent).
    """
    headers = dict(HEADERS)
    if configuration.public_url.startswith("https://"):
        headers["Strict-Transport-Security"] = f"max-age={YEAR_S}"

    def protect(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    app.after_request(protect)
    if configuration.allowed_origins:
        CORS(
            app,
            resources={rf"{BASE}/.*": {}},
            origins=sorted(configuration.allowed_origins),
            allow_headers=list(HEEDED),
            expose_headers=list(SHOWN),
            max_age=PREFLIGHT_S,
        )
