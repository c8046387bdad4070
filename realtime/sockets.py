"""The handler of `/ws/<team_id>`: enter the team, then answer what the client says until one of the two says goodbye."""

import threading
import time
from uuid import UUID

import structlog
from flask import Blueprint, Flask, current_app, request
from flask_sock import Sock
from redis import RedisError
from simple_websocket.ws import Server
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response
from wsproto.utilities import RemoteProtocolError

from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import Access, enter_team
from models.database import transaction
from models.errors import DomainError, NotFound, PermissionDenied, Unauthenticated, Unavailable
from models.settings import settings
from realtime import channels, messages
from realtime.channels import Position
from realtime.connection import Connection
from realtime.hub import Hub, Subscriber, local_hub
from realtime.messages import ClientMessage, CloseCode
from realtime.publisher import connect, publish_message
from realtime.transport import Closing, Transport

log = structlog.get_logger("realtime.sockets")

HEARTBEAT_S = 25.0
MESSAGES_PER_S, MESSAGES_AT_ONCE = 50.0, 100.0
HELLO_COST = 20
"""A hello may read a thousand rows, so it counts as so many messages."""

blueprint = Blueprint("realtime", __name__)
sock = Sock()  # type: ignore[no-untyped-call]


class UnsupportedMessage(DomainError):
    """A reserved type that this release does not serve."""

    code = "unsupported"


class NotStarted(threading.Thread):
    """Stands in for simple-websocket's reader: the handler itself reads (realtime/transport.py says why)."""

    def start(self) -> None:
        pass


def register(app: Flask, *, heartbeat_s: float = HEARTBEAT_S) -> None:
    """Serves `/ws/<team_id>`; who has said hello hears from the server every `heartbeat_s` seconds."""
    app.config["SOCK_SERVER_OPTIONS"] = {"thread_class": NotStarted}
    app.config["HEARTBEAT_S"] = heartbeat_s
    app.register_blueprint(blueprint)


@blueprint.before_request
def decline_extensions() -> None:
    """No compression: deflating a frame for each socket costs ten times its sending (research/realtime.md, 4c)."""
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


@blueprint.errorhandler(RemoteProtocolError)
def refuse_handshake(_error: RemoteProtocolError) -> Response:
    return BadRequest("This is no WebSocket handshake that RFC 6455 allows.").get_response()


@sock.route("/ws/<team_id>", bp=blueprint, endpoint="serve")  # type: ignore[no-untyped-call,untyped-decorator]
def serve(server: Server, team_id: str) -> None:
    """
    A socket from its handshake to its end. Never raises: Flask would write its error page into the stream.

    The handler's thread reads, the connection's writes; no database connection is held.
    """
    connection = Connection(Transport(server))
    connection.start()
    try:
        _converse(connection, team_id)
    except Closing as closing:
        connection.close(closing.code, closing.reason)
    except Exception:
        log.exception("socket failed", connection_id=str(connection.id))
        connection.close(CloseCode.INTERNAL_ERROR)
    finally:
        connection.finish()


def _converse(connection: Connection, team_id: str) -> None:
    access, position = _enter(team_id)
    hub = local_hub()
    subscriber = hub.join(
        connection,
        access,
        position,
        echo=request.args.get("echo") != "false",
        heartbeat_s=current_app.config["HEARTBEAT_S"],
    )
    try:
        Conversation(hub, subscriber, access).run()
    finally:
        hub.leave(subscriber)


def _enter(team_id: str) -> tuple[Access, Position]:
    """The access, and where the team's log stands, from one short transaction; raises Closing for who may not enter."""
    try:
        with transaction() as session:
            access = enter_team(session, _credential(), UUID(team_id), channels.JOIN)
            return access, channels.position(session, access)
    except (Unauthenticated, NotFound, PermissionDenied, ValueError) as error:
        raise Closing(CloseCode.POLICY_VIOLATION, "You may not read this team.") from error
    except Unavailable as error:
        raise Closing(CloseCode.TRY_AGAIN_LATER, error.detail) from error


def _credential() -> Credential:
    """Of the query, which is all that browsers can set, or of the header."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    presented = request.args.get("token") or (secret.strip() if scheme.lower() == "bearer" else "")
    agent = request.headers.get("User-Agent")
    return Credential(presented, Origin(ip_address=request.remote_addr, user_agent=agent))


class TokenBucket:
    """Lets `rate` a second through, and up to `burst` at once after a pause."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._filled_at = time.monotonic()

    def take(self, cost: float = 1) -> bool:
        """Whether there was enough; if not, nothing is taken."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._left < cost:
            return False
        self._left -= cost
        return True


class Conversation:
    """What one client says to its team, and what it is answered."""

    def __init__(self, hub: Hub, subscriber: Subscriber, access: Access) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._connection = subscriber.connection
        self._access = access
        self._allowance = TokenBucket(MESSAGES_PER_S, MESSAGES_AT_ONCE)

    def run(self) -> None:
        """Until the connection ends; raises Closing with the code to end it with."""
        for received in self._connection.receive():
            self._spend(1)
            try:
                self._answer(messages.parse(received))
            except DomainError as refusal:
                self._connection.say(messages.error(refusal))

    def _answer(self, sent: ClientMessage) -> None:
        match sent.type:
            case "hello":
                self._hello(messages.last_seq(sent.data))
            case "ping":
                self._connection.say(messages.pong(sent.data))
            case "presence":
                raise UnsupportedMessage("Presence is not available.")
            case _:
                self._publish(sent)

    def _hello(self, last_seq: int | None) -> None:
        self._spend(HELLO_COST - 1)
        try:
            self._hub.welcome(self._subscriber, last_seq)
        except Unavailable as error:  # half replayed, it can't go on without a gap
            raise Closing(CloseCode.TRY_AGAIN_LATER, error.detail) from error

    def _publish(self, sent: ClientMessage) -> None:
        if channels.PUBLISH not in self._subscriber.permissions:
            raise PermissionDenied(channels.PUBLISH.value)
        payload = messages.message(self._access.user_id, sent)
        try:
            publish_message(
                connect(settings().redis_url), self._access.team_id, payload, sender=self._connection.id
            )
        except RedisError as error:
            raise Unavailable("The message was not sent; events still arrive. Try again shortly.") from error

    def _spend(self, cost: float) -> None:
        if not self._allowance.take(cost):
            raise Closing(CloseCode.TOO_MANY_MESSAGES, f"At most {MESSAGES_PER_S:.0f} messages a second.")
