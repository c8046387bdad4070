"""The handler of `/ws/<team_id>`: enter the team, then hand the connection to the hub."""

import math
import threading
from functools import cache
from uuid import UUID

import structlog
from flask import Blueprint, Flask, current_app, request
from flask_sock import Sock
from limits import parse_many
from simple_websocket.ws import Server
from werkzeug.exceptions import BadRequest, Forbidden, TooManyRequests
from werkzeug.wrappers import Response
from wsproto.utilities import RemoteProtocolError

from models.access.actor import Named, Origin
from models.access.credentials import Credential
from models.access.entry import Access, Position, enter_to_listen, enter_with_ticket
from models.database import single_statements, transaction
from models.errors import NotFound, PermissionDenied, Unauthenticated, Unavailable
from models.settings import settings
from realtime import refusals
from realtime.connection import Connection, local_reactor
from realtime.conversation import Conversation
from realtime.hub import local_hub
from realtime.limits import Refusals
from realtime.messages import CloseCode
from realtime.transport import Closing

log = structlog.get_logger("realtime.sockets")

HEARTBEAT_S = 25.0

blueprint = Blueprint("realtime", __name__)
sock = Sock()  # type: ignore[no-untyped-call]


class NotStarted(threading.Thread):
    """Stands in for simple-websocket's reader: the reactor reads (realtime/connection.py)."""

    def start(self) -> None:
        pass


def register(app: Flask, *, heartbeat_s: float = HEARTBEAT_S) -> None:
    """Serves `/ws/<team_id>`; who has said hello hears from the server every `heartbeat_s` seconds."""
    app.config["SOCK_SERVER_OPTIONS"] = {"thread_class": NotStarted}
    app.config["HEARTBEAT_S"] = heartbeat_s
    app.register_blueprint(blueprint)


@blueprint.before_request
def decline_extensions() -> None:
    """No compression: deflating a frame for each socket costs ten times its sending."""
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


@blueprint.before_request
def check_origin() -> None:
    """A browser says whose page opens the socket: ours, or one of ALLOWED_ORIGINS. Other clients say nothing."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    ours = {f"{scheme}://{request.host}".casefold() for scheme in ("http", "https")}
    if origin.casefold() not in ours | settings().allowed_origins:
        raise Forbidden("Pages of this origin may not open sockets here.")


@blueprint.before_request
def refuse_guessing() -> None:
    """
    An address that was refused as often as it might sign in waits; else each of its guesses would ask the database. As HTTP, for a
    socket that is accepted first costs more; a browser tries again as after any lost connection.
    """
    wait_s = local_refusals().wait_s(request.remote_addr or "")
    if wait_s > 0:
        raise TooManyRequests(
            f"This address was refused too often; wait {math.ceil(wait_s)} s.", retry_after=math.ceil(wait_s)
        )


@cache
def local_refusals() -> Refusals:
    """This process's."""
    return Refusals(parse_many(settings().rate_limit_auth))


@blueprint.errorhandler(RemoteProtocolError)
def refuse_handshake(_error: RemoteProtocolError) -> Response:
    return BadRequest("This is no WebSocket handshake that RFC 6455 allows.").get_response()


@sock.route("/ws/<team_id>", bp=blueprint, endpoint="serve")  # type: ignore[no-untyped-call,untyped-decorator]
def serve(server: Server, team_id: str) -> None:
    """
    Takes the socket over from the web server and returns: nothing of the request, and no thread, outlives the handshake.
    Never raises: Flask would write its error page into the stream.
    """
    server.connected = False  # flask-sock would say goodbye
    connection = local_reactor().adopt(server.sock)
    try:
        _converse(connection, team_id)
    except Closing as closing:
        if closing.code == CloseCode.POLICY_VIOLATION:
            local_refusals().add(request.remote_addr or "")
        connection.close(closing.code, closing.reason)
    except Exception:
        log.exception("socket failed", connection_id=str(connection.id))
        connection.close(CloseCode.INTERNAL_ERROR)
    local_reactor().follow(connection)  # one that was refused, too: for its answer to our goodbye
    if server.mode != "gunicorn":  # others cut the connection when their handler returns
        connection.wait()


def _converse(connection: Connection, team_id: str) -> None:
    access, position = _enter(team_id)
    hub = local_hub()
    if hub.connections(access.team_id) >= settings().team_connections:
        raise Closing(CloseCode.TRY_AGAIN_LATER, "The team has as many connections here as it may.")
    subscriber = hub.join(
        connection,
        access,
        position,
        echo=request.args.get("echo") != "false",
        heartbeat_s=current_app.config["HEARTBEAT_S"],
    )
    conversation = Conversation(hub, subscriber)
    connection.attach(conversation.hear, conversation.end)


def _enter(team_id: str) -> tuple[Access, Position]:
    """The access, and where the team's log stands, read at once; raises Closing for who may not enter."""
    try:
        if ticket := request.args.get("ticket"):
            with transaction() as session:
                return enter_with_ticket(session, ticket, UUID(team_id), _origin())
        with single_statements() as session:
            return enter_to_listen(session, _credential(), UUID(team_id))
    except (Unauthenticated, NotFound, PermissionDenied, ValueError) as error:
        if isinstance(error, PermissionDenied) and isinstance(error.by, Named):
            _note(error.by, error.missing)
        raise Closing(CloseCode.POLICY_VIOLATION, "You may not read this team.") from error
    except Unavailable as error:
        raise Closing(CloseCode.TRY_AGAIN_LATER, error.detail) from error


def _note(by: Named, missing: str) -> None:
    try:
        refusals.note(by, missing, method="GET")
    except Unavailable as error:
        raise Closing(CloseCode.TRY_AGAIN_LATER, error.detail) from error


def _credential() -> Credential:
    """Of the query, or of the header."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    presented = request.args.get("token") or (secret.strip() if scheme.lower() == "bearer" else "")
    return Credential(presented, _origin())


def _origin() -> Origin:
    return Origin(ip_address=request.remote_addr, user_agent=request.headers.get("User-Agent"))
