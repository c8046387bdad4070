"""Who may open sockets, how many and how busy; and that a dead peer is noticed."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import websocket
from flask import Flask

from api import create_app
from models.settings import Settings, settings
from realtime import connection, hub, sockets
from realtime.hub import Channel
from realtime.limits import TokenBucket
from tests.realtime.conftest import Client, Connect, Team, make_team

Configure = Callable[..., None]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Changes the settings that sockets are opened under."""

    def change(**changes: Any) -> None:
        changed: Settings = replace(settings(), **changes)
        monkeypatch.setattr(sockets, "settings", lambda: changed)

    return change


# ------------------------------------------------------------------------------------------------ origins


def status_for(connect_to: Connect, team: Team, origin: str, **options: Any) -> int:
    """Of the handshake; 101 opens a socket."""
    try:
        connect_to(team, team.member, origin=origin, **options).ready()
    except websocket.WebSocketBadStatusException as refused:
        return refused.status_code
    return 101


def test_a_client_that_is_no_browser_needs_no_origin(connect_to: Connect, team: Team) -> None:
    connect_to(team, team.member, suppress_origin=True).ready()


def test_our_own_pages_may_open_sockets(connect_to: Connect, team: Team, server: str) -> None:
    for origin in (f"http://{server}", f"https://{server}"):  # a proxy may speak TLS for us
        assert status_for(connect_to, team, origin) == 101
    assert status_for(connect_to, team, "https://Our.example", host="our.EXAMPLE") == 101


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "file://",
        "https://127.0.0.1",
        "http://127.0.0.1:1",
        "http://[",
        "https://app.example.com",
    ],
)
def test_foreign_pages_may_not(connect_to: Connect, team: Team, origin: str) -> None:
    header = {"Origin": origin}
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect_to(team, team.member, header=header, suppress_origin=True)
    assert refused.value.status_code == 403


def test_a_page_whose_name_only_looks_like_ours_may_not(connect_to: Connect, team: Team, server: str) -> None:
    for origin in (f"http://{server}.evil.example", f"http://x@{server}", f"http://evil.example/{server}"):
        assert status_for(connect_to, team, origin) == 403


def test_allowed_origins_may(connect_to: Connect, team: Team, configure: Configure) -> None:
    configure(allowed_origins=frozenset({"https://app.example.com", "http://localhost:3000"}))
    for origin, status in (
        ("https://app.example.com", 101),
        ("https://APP.example.com", 101),
        ("http://localhost:3000", 101),
        ("http://app.example.com", 403),
        ("https://app.example.com:444", 403),
        ("https://app.example.com.evil.example", 403),
        ("http://localhost", 403),
    ):
        assert status_for(connect_to, team, origin) == status, origin


def test_allowed_origins_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, origins in (
        (None, frozenset()),
        ("", frozenset()),
        ("https://A.example, http://b.example:1", {"https://a.example", "http://b.example:1"}),
    ):
        if value is not None:
            monkeypatch.setenv("ALLOWED_ORIGINS", value)
        assert Settings.from_environment().allowed_origins == origins


# ------------------------------------------------------------------------------------------------ how many, how busy


def test_a_team_has_at_most_so_many_connections(
    connect_to: Connect, team: Team, configure: Configure, small_app: Flask
) -> None:
    configure(team_connections=3)
    clients = [connect_to(team, person).ready() for person in (team.owner, team.member, team.member)]
    assert connect_to(team, team.viewer).close_code() == 1013
    other = make_team(small_app)
    connect_to(other, other.member).ready()
    clients.pop().vanish()
    deadline = time.monotonic() + 5
    while hub.local_hub().connections(team.id) > 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    connect_to(team, team.viewer).ready()
    assert connect_to(team, team.viewer).close_code() == 1013
    for client in clients:
        client.ready()


def test_the_clients_of_a_team_share_a_rate(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch, small_app: Flask
) -> None:
    clients = [connect_to(team, person, query="echo=false").ready() for person in (team.member, team.admin)]
    channel: Channel = hub.local_hub()._channels[team.id]
    monkeypatch.setattr(channel, "allowance", TokenBucket(rate=0.5, burst=5))
    for number in range(3):
        clients[0].send("cursor", number)
    assert [clients[1].receive()["data"] for _ in range(3)] == [0, 1, 2]
    for number in range(2):
        clients[1].send("cursor", number)
    assert [clients[0].receive()["data"] for _ in range(2)] == [0, 1]
    for client in clients:
        assert client.ask("cursor")["data"]["code"] == "rate_limited"
        client.ready()  # it stays, and is answered
    assert clients[0].hello()["seq"] == team.head()
    other = make_team(small_app)
    assert connect_to(other, other.member).ask("cursor")["type"] == "cursor"
    time.sleep(2.5)
    clients[0].send("cursor", "again")
    assert clients[1].receive_type("cursor")["data"] == "again"


# ------------------------------------------------------------------------------------------------ signs of life


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are asked after a second of silence and given up after five."""
    monkeypatch.setattr(connection, "PING_AFTER_S", 1.0)
    monkeypatch.setattr(connection, "DEAD_AFTER_S", 5.0)


def next_frame(client: Client) -> Any:
    """Control frames, too, and none of them answered."""
    return client.ws.recv_frame()  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("impatient")
def test_a_peer_that_is_silent_is_asked_and_then_cut(connect_to: Connect, team: Team) -> None:
    silent = connect_to(team, team.member).ready()
    started = time.monotonic()
    assert next_frame(silent).opcode == websocket.ABNF.OPCODE_PING
    assert time.monotonic() - started > 0.5
    while silent.raw.recv(1000):  # pings, which it does not answer
        pass
    assert 4 < time.monotonic() - started < 15
    assert hub.local_hub().connections(team.id) == 0


@pytest.mark.usefixtures("impatient")
def test_a_peer_that_answers_pings_lives(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member).ready()
    until = time.monotonic() + 8
    while time.monotonic() < until:
        frame = next_frame(client)
        assert frame.opcode == websocket.ABNF.OPCODE_PING
        client.ws.pong(frame.data)
    client.ready()


@pytest.mark.usefixtures("impatient")
def test_a_peer_that_speaks_is_not_asked(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PING_AFTER_S", 3.0)
    client = connect_to(team, team.member)
    for _ in range(12):
        client.send("ping")
        assert next_frame(client).opcode == websocket.ABNF.OPCODE_TEXT
        time.sleep(0.5)


def test_a_peer_that_sends_on_after_its_breach_is_cut(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member).ready()
    client.raw.sendall(b"\x83\x80abcd")
    client.raw.settimeout(10)
    started = time.monotonic()
    with suppress(OSError):  # however the system tells that it is over
        while time.monotonic() - started < 30:
            client.raw.sendall(bytes(10_000))
            time.sleep(0.01)
    assert time.monotonic() - started < 15
    assert hub.local_hub().connections(team.id) == 0


# ------------------------------------------------------------------------------------------------ roles of processes


def test_processes_serve_what_their_role_says(small_app: Flask) -> None:
    team = make_team(small_app)
    headers = {"Authorization": f"Bearer {team.owner.token}"}
    rest, live = f"/api/v1/teams/{team.id}", f"/ws/{team.id}"
    try:
        for role, (serves_rest, serves_sockets) in {
            "all": (True, True),
            "api": (True, False),
            "realtime": (False, True),
        }.items():
            client = create_app(replace(settings(), web_role=role)).test_client()
            assert client.get("/health/live").status_code == 200
            assert client.get("/health/ready").status_code == 200
            assert client.get(rest, headers=headers).status_code == (200 if serves_rest else 404), role
            # A plain GET is no handshake, but somebody is there to say so.
            assert client.get(live, headers=headers).status_code == (400 if serves_sockets else 404), role
    finally:
        create_app()  # the limiter is one a process


def test_a_role_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_ROLE", "sockets")
    with pytest.raises(Exception, match="WEB_ROLE"):
        Settings.from_environment()


def test_the_limit_of_connections_is_a_positive_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "-1", "many"):
        monkeypatch.setenv("TEAM_CONNECTIONS", value)
        with pytest.raises(Exception, match="TEAM_CONNECTIONS"):
            Settings.from_environment()
    monkeypatch.setenv("TEAM_CONNECTIONS", "1")
    assert Settings.from_environment().team_connections == 1


def test_goodbyes_are_spread_and_everyone_reads_theirs(connect_to: Connect, team: Team) -> None:
    clients: list[Client] = [connect_to(team, team.member).ready() for _ in range(120)]
    hub.close_all()
    assert {client.close_code() for client in clients} == {1001}
