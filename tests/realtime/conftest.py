"""A real server in threads, real clients, and teams in which things happen."""

import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import websocket
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7
from werkzeug.serving import WSGIRequestHandler, make_server

from api.embedded import ValkeyServer
from models.access.credentials import KEY_PREFIX, hash_secret, new_token
from models.access.entry import enter, enter_team
from models.access.permissions import Permission
from models.database import transaction
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import activity, members, teams
from models.operations.activity import Projected
from models.queries import members as member_queries
from models.queries import teams as team_queries
from models.queries import users
from models.queries.audiences import audiences_of
from models.settings import settings
from models.tables import Agent, ApiKey, Workspace, WorkspaceMember
from realtime import hub
from realtime.publisher import connect, publish_events
from tests.factories import Person, make_person
from tests.realtime.served import make_app
from tests.servers import server_classes


class SilentHandler(WSGIRequestHandler):
    def log_request(self, *_args: object) -> None:
        """Its line would hold `?token=`."""


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serves the application, its sockets too, in threads of this process; the address."""
    served = make_server("127.0.0.1", 0, app, threaded=True, request_handler=SilentHandler)
    served.daemon_threads = True  # type: ignore[attr-defined]  # a ThreadingMixIn's
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{served.port}"
    hub.close_all()
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture(scope="session")
def small_app() -> Flask:
    return make_app()


@pytest.fixture(scope="session")
def server(small_app: Flask) -> Iterator[str]:
    """The address of a threaded server in this process."""
    with serving(small_app) as address:
        yield address


@pytest.fixture
def own_valkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ValkeyServer]:
    """A Valkey that a test may kill, with a hub that follows it."""
    valkey = server_classes()[1](tmp_path / "valkey", durable=False).start()
    monkeypatch.setenv("REDIS_URL", valkey.url)
    settings.cache_clear()
    hub.local_hub.cache_clear()
    yield valkey
    hub.close_all()
    hub.local_hub.cache_clear()
    monkeypatch.undo()
    settings.cache_clear()
    valkey.stop()


@dataclass
class Team:
    """A team with an owner, another admin, a member and a viewer."""

    id: UUID
    owner: Person
    admin: Person
    member: Person
    viewer: Person

    def happen(self, count: int = 1, *, name: str = "Research", at: UUID | None = None) -> None:
        """Records so many events, for the drain to find; in the workspace `at`, or each in one that is gone."""
        with transaction() as session:
            access = enter_team(session, self.owner.credential, self.id)
            for _ in range(count):
                record(session, access, WorkspaceCreated(workspace_id=at or uuid7(), name=name))

    def private_workspace(self, *listed: Person) -> UUID:
        """A workspace that nobody was told of yet."""
        with transaction() as session:
            workspace = Workspace(
                team_id=self.id, name="Board", visibility="private", created_by=self.owner.id
            )
            session.add(workspace)
            session.flush()
            for person in listed:
                session.add(WorkspaceMember(team_id=self.id, workspace_id=workspace.id, user_id=person.id))
            return workspace.id

    def with_key(
        self, person: Person, *, scope: Sequence[str] = tuple(Permission), agent_role: str | None = None
    ) -> Person:
        """The person, coming with an API key of theirs; with `agent_role`, one that an agent of this role presents."""
        key = new_token(KEY_PREFIX)
        with transaction() as session:
            agent = None
            if agent_role:
                name = f"agent {secrets.token_hex(4)}"
                agent = Agent(team_id=self.id, name=name, role=agent_role, created_by=person.id)
                session.add(agent)
                session.flush()
            session.add(
                ApiKey(
                    team_id=self.id,
                    user_id=person.id,
                    agent_id=agent.id if agent else None,
                    name="Key",
                    prefix=key[:8],
                    key_hash=hash_secret(key),
                    permissions=list(scope),
                    expires_at=datetime.now(UTC) + timedelta(days=1),
                )
            )
        return replace(person, token=key)

    def head(self) -> int:
        with transaction() as session:
            head: int = session.execute(
                text("SELECT seq FROM activity_heads WHERE team_id = :id"), {"id": self.id}
            ).scalar_one()
            return head

    def remove(self, person: Person) -> None:
        with transaction() as session:
            access = enter_team(session, self.owner.credential, self.id)
            team = team_queries.get(session, access, for_update=True)
            members.remove(session, access, team, member_queries.get(session, access, person.id))

    def make_viewer(self, person: Person) -> None:
        with transaction() as session:
            access = enter_team(session, self.owner.credential, self.id)
            team = team_queries.get(session, access, for_update=True)
            member = member_queries.get(session, access, person.id)
            members.change_role(session, access, team, member, role="viewer")


def execute(statement: str, **parameters: object) -> None:
    with transaction() as session:
        session.execute(text(statement), parameters)


def project() -> list[Projected]:
    """Moves the outbox to the log, as a worker does that dies before it publishes."""
    moved: list[Projected] = []
    while True:
        with transaction() as session:
            batch = activity.project(session, limit=500)
        if not batch:
            return moved
        moved += batch


def drain() -> Sequence[Projected]:
    """Moves the outbox to the log and publishes it."""
    moved = project()
    publish(moved)
    return moved


def publish(projected: Sequence[Projected]) -> None:
    with transaction() as session:
        audiences = audiences_of(session, projected)
    publish_events(connect(settings().redis_url), projected, audiences)


@pytest.fixture
def team(small_app: Flask) -> Team:
    return make_team(small_app)


def make_team(app: Flask) -> Team:
    """A team whose making is in the log already."""
    owner, admin, member, viewer = (make_person(app, name) for name in ("Owner", "Admin", "Member", "Viewer"))
    with transaction() as session:
        team_id = teams.create(session, enter(session, owner.credential), name="Design").id
    with transaction() as session:
        access = enter_team(session, owner.credential, team_id)
        team = team_queries.get(session, access, for_update=True)
        members.add(session, access, team, user=users.get(session, admin.id), role="admin")
        members.add(session, access, team, user=users.get(session, member.id), role="member")
        members.add(session, access, team, user=users.get(session, viewer.id), role="viewer")
    project()
    return Team(team_id, owner, admin, member, viewer)


class Client:
    """A WebSocket client, of websocket-client."""

    def __init__(self, address: str, path: str, *, receive_buffer: int | None = None, **options: Any) -> None:
        sockopt = [(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)] if receive_buffer else []
        self.ws = websocket.create_connection(
            f"ws://{address}{path}",
            timeout=10,
            sockopt=sockopt,
            skip_utf8_validation=True,  # in Python it takes 40 ms for 100 kB; json.loads does it too
            **options,
        )

    def send(self, type_: str, data: Any = None) -> None:
        self.ws.send(json.dumps({"type": type_, "data": data}))

    def receive(self) -> dict[str, Any]:
        """The next message; fails if the server says goodbye in its place."""
        opcode, payload = self.ws.recv_data()
        assert opcode == websocket.ABNF.OPCODE_TEXT, (opcode, payload)
        received: dict[str, Any] = json.loads(payload)
        return received

    def ready(self) -> "Client":
        """Itself, once it has joined the team: the handshake is over before that."""
        assert self.ask("ping")["type"] == "pong"
        return self

    def receive_type(self, type_: str) -> dict[str, Any]:
        received = self.receive()
        assert received["type"] == type_, received
        return received

    def seqs(self, count: int) -> list[int]:
        """The numbers of the next so many messages, which must be events."""
        return [self.receive()["seq"] for _ in range(count)]

    def ask(self, type_: str, data: Any = None) -> dict[str, Any]:
        self.send(type_, data)
        return self.receive()

    def hello(self, **data: Any) -> dict[str, Any]:
        welcome = self.ask("hello", data)
        assert welcome["type"] == "welcome", welcome
        data_: dict[str, Any] = welcome["data"]
        return data_

    def is_quiet(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes but the answer to a ping."""
        time.sleep(seconds)
        return self.ask("ping", "quiet") == {"type": "pong", "data": "quiet", "origin": "server"}

    @property
    def raw(self) -> socket.socket:
        """The TCP connection below."""
        assert self.ws.sock
        return self.ws.sock

    def vanish(self) -> None:
        """Ends the TCP connection without a goodbye."""
        self.ws.shutdown()  # type: ignore[no-untyped-call]

    def close_code(self) -> int:
        """The code of the server's goodbye, whatever it says before."""
        return self.read_to_the_end()[1]

    def read_to_the_end(self) -> tuple[list[dict[str, Any]], int]:
        """All messages before the server's goodbye, each of them whole, and the goodbye's code."""
        received: list[dict[str, Any]] = []
        while True:
            opcode, payload = self.ws.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return received, struct.unpack("!H", payload[:2])[0]
            received.append(json.loads(payload))


Connect = Callable[..., Client]


@pytest.fixture
def connect_to(server: str) -> Iterator[Connect]:
    """Opens sockets: `connect_to(team, person)`; they are closed at the test's end."""
    with ExitStack() as open_clients:

        def open_client(
            team: Team | UUID | str,
            person: Person | None = None,
            *,
            query: str = "",
            address: str = server,
            **options: Any,
        ) -> Client:
            team_id = team.id if isinstance(team, Team) else team
            token = f"token={person.token}&" if person else ""
            client = Client(address, f"/ws/{team_id}?{token}{query}", **options)
            open_clients.callback(client.vanish)
            return client

        yield open_client


@pytest.fixture
def frequent_heartbeats(monkeypatch: pytest.MonkeyPatch, small_app: Flask) -> None:
    monkeypatch.setitem(small_app.config, "HEARTBEAT_S", 0.3)
