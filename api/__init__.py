"""`create_app`: the application, put together."""

from flask import Flask
from flask_migrate import Migrate
from werkzeug.middleware.proxy_fix import ProxyFix

from api import (
    activity,
    activity_exports,
    api_keys,
    assets,
    backfills,
    billing,
    cli,
    docs,
    erasures,
    errors,
    health,
    invitations,
    invoices,
    ledger,
    limits,
    members,
    metering,
    metrics,
    passwords,
    payments,
    permissions,
    presence,
    proof,
    protection,
    requests,
    reservations,
    roles,
    second_factors,
    tasks,
    teams,
    usage,
    users,
    webhooks,
    workspaces,
)
from api.console import account, accounts, jump, keys, language, overview, page
from api.console import activity as activity_page
from api.console import backfills as backfills_page
from api.console import invoices as invoices_page
from api.console import ledger as ledger_page
from api.console import members as members_page
from api.console import roles as roles_page
from api.console import settings as settings_page
from api.console import tasks as tasks_page
from api.console import usage as usage_page
from api.console import webhooks as webhooks_page
from api.json import Json
from api.resource import declared, requires
from models.access.permissions import Permission
from models.base import Base
from models.logs import configure_logs
from models.settings import API, REALTIME, Settings, settings
from realtime import sockets

BLUEPRINTS = (
    users,
    passwords,
    second_factors,
    erasures,
    teams,
    members,
    invitations,
    roles,
    permissions,
    api_keys,
    workspaces,
    tasks,
    activity,
    proof,
    activity_exports,
    usage,
    ledger,
    reservations,
    backfills,
    billing,
    invoices,
    payments,
    presence,
    webhooks,
)
PAGES = (
    accounts,
    account,
    overview,
    tasks_page,
    members_page,
    roles_page,
    activity_page,
    usage_page,
    ledger_page,
    backfills_page,
    invoices_page,
    keys,
    webhooks_page,
    settings_page,
    jump,
)
"""Each adds its pages to the console's blueprint as it is imported."""
LARGEST_BODY = 1024 * 1024


def create_app(configuration: Settings | None = None) -> Flask:
    """A new application; raises RuntimeError if any route does not declare what it needs."""
    configuration = configuration or settings()
    configure_logs(level=configuration.log_level, format_=configuration.log_format)
    app = Flask("agenthq", static_folder=None)
    app.json = Json(app)
    app.config |= {
        "API_TITLE": "AgentHQ",
        "API_VERSION": "v1",
        "OPENAPI_VERSION": "3.0.3",
        "MAX_CONTENT_LENGTH": LARGEST_BODY,
    }
    if configuration.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=configuration.trusted_proxies)  # type: ignore[method-assign]
    # Before a request in this order, after it in the opposite one: counted, then framed and logged.
    protection.register(app, configuration)
    requests.register(app)
    if configuration.web_role != REALTIME:  # whose routes are all exempt
        limits.register(app, configuration)
    metering.register(app)
    metrics.register(app)
    api = app.extensions[docs.EXTENSION] = docs.OpenApi(app)
    errors.register(app)  # after flask-smorest, whose error format is not ours
    if configuration.web_role != REALTIME:
        for noun in BLUEPRINTS:
            api.register_blueprint(noun.blueprint)
    limits.limiter.exempt(metrics.blueprint)
    for plain in (health.blueprint, docs.blueprint, assets.blueprint):
        limits.limiter.exempt(plain)
        app.register_blueprint(plain)
    language.register(app)
    if configuration.web_role != REALTIME:
        app.register_blueprint(page.blueprint)
    if configuration.web_role != API:
        sockets.register(app)
        limits.limiter.exempt(sockets.blueprint)
        requires(Permission.realtime_read)(app.view_functions[f"{sockets.blueprint.name}.serve"])
    cli.register(app)
    Migrate(app, db=Base, directory="migrations")
    refuse_undeclared_routes(app)
    return app


def refuse_undeclared_routes(app: Flask) -> None:
    """Deny by default: a route that does not say what it needs never gets to serve."""
    undeclared = [
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not declared(app.view_functions[rule.endpoint], method)
    ]
    if undeclared:
        raise RuntimeError(
            f"These routes do not declare what they need (api.resource.requires): {sorted(undeclared)}"
        )
