"""The protocol of `/ws/<team_id>`, line by line."""

import json
import socket
import time
from typing import Any
from uuid import UUID

import pytest
import websocket
from flask import Flask
from limits import parse_many
from sqlalchemy import text

from models.database import transaction
from models.errors import Unavailable
from realtime import hub, sockets
from realtime.conversation import Conversation
from realtime.limits import Refusals, TokenBucket
from tests.factories import make_person
from tests.realtime.conftest import Connect, Team, drain, execute, make_team, project


def test_the_first_frame_is_the_message_that_the_client_sent(connect_to: Connect, team: Team) -> None:
    """The guide's own test."""
    client = connect_to(team, team.member)
    client.ws.send('{"type": "task_created", "data": {"task_id": "123"}}')
    shown = client.receive()
    assert (shown["type"], shown["data"]) == ("task_created", {"task_id": "123"})
    assert (shown["origin"], shown["user_id"]) == ("client", str(team.member.id))
    assert "seq" not in shown


def test_what_was_committed_before_a_client_came_is_not_its_first_frame(
    connect_to: Connect, team: Team
) -> None:
    team.happen()
    client = connect_to(team, team.member).ready()
    drain()
    team.happen()
    drain()
    assert client.receive()["seq"] == team.head()
    assert client.is_quiet()


# ------------------------------------------------------------------------------------------------ entering


def test_the_credential_may_be_in_the_header(connect_to: Connect, team: Team) -> None:
    connect_to(team, header={"Authorization": f"Bearer {team.member.token}"}).ready()


def test_no_credential_or_a_wrong_one_is_closed_with_1008(connect_to: Connect, team: Team) -> None:
    assert connect_to(team).close_code() == 1008
    assert connect_to(team, query="token=ahq_wrong").close_code() == 1008
    assert connect_to(team, query=f"token={'x' * 300}").close_code() == 1008
    assert connect_to(team, query="token=%00").close_code() == 1008
    assert connect_to(team, header={"Authorization": "Basic eDp5"}).close_code() == 1008


def test_an_address_that_was_refused_too_often_waits(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = Refusals(parse_many("3 per hour;5 per day"))
    monkeypatch.setattr(sockets, "local_refusals", lambda: refusals)
    for _ in range(3):
        connect_to(team, team.member).ready()
        assert connect_to(team, query="token=ahq_guess").close_code() == 1008
    for credential in ("ahq_guess", team.member.token):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            connect_to(team, query=f"token={credential}")
        assert refused.value.status_code == 429
        assert refused.value.resp_headers is not None
        assert 3590 <= int(refused.value.resp_headers["retry-after"]) <= 3600


def test_refusals_are_of_an_address_and_end() -> None:
    refusals = Refusals(parse_many("2 per second"))
    refusals.add("192.0.2.1")
    assert refusals.wait_s("192.0.2.1") == 0
    refusals.add("192.0.2.1")
    while (wait_s := refusals.wait_s("192.0.2.1")) > 0:
        assert wait_s <= 1
        assert refusals.wait_s("192.0.2.2") == 0
        time.sleep(wait_s)


def test_a_stranger_is_closed_with_1008(connect_to: Connect, team: Team, small_app: Flask) -> None:
    assert connect_to(team, make_person(small_app)).close_code() == 1008
    assert connect_to(UUID(int=1), team.member).close_code() == 1008
    assert connect_to("not-a-uuid", team.member).close_code() == 1008
    connect_to(team, team.member).ready()


def test_a_role_that_may_not_read_is_closed_with_1008(connect_to: Connect, team: Team) -> None:
    give_own_role(team, "realtime:publish")
    assert connect_to(team, team.viewer).close_code() == 1008
    give_own_role(team, "realtime:read")
    connect_to(team, team.viewer).ready()


def test_an_api_key_enters_its_own_team_within_its_scope(
    connect_to: Connect, team: Team, small_app: Flask
) -> None:
    reads, publishes = (
        team.with_key(team.member, scope=[scope]) for scope in ("realtime:read", "realtime:publish")
    )
    connect_to(team, reads).ready()
    connect_to(team, header={"Authorization": f"Bearer {reads.token}"}).ready()
    assert connect_to(team, publishes).close_code() == 1008
    assert connect_to(make_team(small_app), reads).close_code() == 1008


def give_own_role(team: Team, permission: str) -> None:
    """The viewer's role becomes one of the team's own, which grants this alone."""
    resource, action = permission.split(":")
    execute(
        "INSERT INTO permissions (id, team_id, role, resource, action)"
        " VALUES (gen_random_uuid(), :team, 'guest', :resource, :action)",
        team=team.id,
        resource=resource,
        action=action,
    )
    execute(
        "UPDATE team_members SET role = 'guest' WHERE team_id = :team AND user_id = :user",
        team=team.id,
        user=team.viewer.id,
    )


def test_a_database_that_is_away_asks_to_try_again(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(sockets, "enter_to_listen", away)
    assert connect_to(team, team.member).close_code() == 1013


def test_a_fault_of_ours_closes_with_1011_and_writes_no_http(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Conversation, "_answer", fail)
    client = connect_to(team, team.member)
    client.send("anything")
    opcode, payload = client.ws.recv_data()
    assert (opcode, payload[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1011).to_bytes(2))


def test_a_handshake_that_is_none_is_answered_with_400(server: str, team: Team) -> None:
    host, port = server.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            f"GET /ws/{team.id} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert raw.recv(100).split()[1] == b"400"


# ------------------------------------------------------------------------------------------------ messages


def test_a_message_reaches_every_socket_of_the_team_and_no_other(
    connect_to: Connect, team: Team, small_app: Flask
) -> None:
    sender, receiver = connect_to(team, team.member), connect_to(team, team.viewer).ready()
    other_team = make_team(small_app)
    stranger = connect_to(other_team, other_team.member).ready()
    sender.send("cursor", {"x": 1})
    assert sender.receive() == receiver.receive()
    assert stranger.is_quiet()


def test_a_sender_may_decline_its_own_messages(connect_to: Connect, team: Team) -> None:
    sender = connect_to(team, team.member, query="echo=false").ready()
    other = connect_to(team, team.member).ready()
    sender.send("cursor", 1)
    assert other.receive_type("cursor")["data"] == 1
    other.send("cursor", 2)
    assert sender.receive_type("cursor")["data"] == 2


def test_a_servers_type_from_a_client_is_marked_as_its_own(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    for type_ in ("welcome", "reset", "heartbeat", "error", "pong", "member_removed"):
        assert client.ask(type_, {"seq": 5})["origin"] == "client"


def test_publishing_needs_the_permission(connect_to: Connect, team: Team) -> None:
    viewer, member = connect_to(team, team.viewer), connect_to(team, team.member).ready()
    refusal = viewer.ask("cursor")
    assert refusal["type"] == "error"
    assert (refusal["data"]["code"], refusal["data"]["missing"]) == ("permission_denied", "realtime:publish")
    member.send("cursor")
    assert viewer.receive_type("cursor")["user_id"] == str(team.member.id)


def denials(team: Team) -> list[tuple[Any, ...]]:
    """Of the team's outbox and its counts: who, what, how, and how often besides."""
    drain()
    with transaction() as session:
        found = session.execute(
            text(
                "SELECT l.user_id, l.api_key_id, l.metadata->>'permission', l.metadata->>'method', l.metadata->>'route', r.repeats"
                " FROM activity_logs l JOIN refused_attempts r ON r.team_id = l.team_id"
                " AND r.actor_id = coalesce(l.api_key_id, l.user_id) AND r.permission = l.metadata->>'permission'"
                " WHERE l.team_id = :id AND l.outcome = 'denied' ORDER BY l.seq"
            ),
            {"id": team.id},
        )
        return [tuple(row) for row in found]


def test_what_is_refused_over_a_socket_is_in_the_log_and_counted(connect_to: Connect, team: Team) -> None:
    for client in (connect_to(team, team.viewer), connect_to(team, team.viewer)):
        for _ in range(3):
            assert client.ask("cursor")["data"]["missing"] == "realtime:publish"
    key = team.with_key(team.member, scope=["realtime:read"])
    assert connect_to(team, key).ask("cursor")["data"]["missing"] == "realtime:publish"
    (viewers, keys) = denials(team)
    assert viewers == (team.viewer.id, None, "realtime:publish", "PUBLISH", "/ws/{team_id}", 5)
    assert (keys[0], keys[1] is not None, *keys[2:]) == (
        *(team.member.id, True, "realtime:publish", "PUBLISH", "/ws/{team_id}", 0),
    )


def test_a_member_whose_socket_is_refused_is_in_the_log_and_a_stranger_is_not(
    connect_to: Connect, team: Team, small_app: Flask
) -> None:
    key = team.with_key(team.member, scope=["tasks:read"])
    for _ in range(2):
        assert connect_to(team, key).close_code() == 1008
    assert connect_to(team, make_person(small_app)).close_code() == 1008
    with transaction() as session:
        session.execute(
            text("UPDATE team_members SET suspended_at = now() WHERE user_id = :id"), {"id": team.viewer.id}
        )
    assert connect_to(team, team.viewer).close_code() == 1008
    found = denials(team)
    assert [(row[0], row[2], row[3], row[5]) for row in found] == [
        (team.member.id, "realtime:read", "GET", 1),
        (team.viewer.id, "membership", "GET", 0),
    ]


@pytest.mark.parametrize("agent_role", [None, "member"], ids=["key", "agent"])
def test_a_key_publishes_within_its_scope(connect_to: Connect, team: Team, agent_role: str | None) -> None:
    may = team.with_key(team.member, scope=["realtime:read", "realtime:publish"], agent_role=agent_role)
    may_not = team.with_key(team.member, scope=["realtime:read", "tasks:create"], agent_role=agent_role)
    assert connect_to(team, may).ask("cursor")["user_id"] == str(team.member.id)
    assert connect_to(team, may_not).ask("cursor")["data"]["missing"] == "realtime:publish"


def test_an_agent_publishes_if_both_its_role_and_its_makers_do(connect_to: Connect, team: Team) -> None:
    for person, role, may in (
        (team.member, "member", True),
        (team.member, "viewer", False),
        (team.viewer, "member", False),
    ):
        answer = connect_to(team, team.with_key(person, agent_role=role)).ask("cursor")
        assert (answer["type"] == "cursor") is may


@pytest.mark.parametrize(
    "frame", ["", "no json", "[]", '"type"', "{}", '{"type": ""}', '{"type": 5}', "[" * 5000]
)
def test_a_malformed_message_gets_an_error_and_the_socket_stays(
    connect_to: Connect, team: Team, frame: str
) -> None:
    client = connect_to(team, team.member)
    client.ws.send(frame)
    assert client.receive_type("error")["data"]["code"] == "malformed_message"
    assert client.ask("cursor")["type"] == "cursor"


def test_a_binary_frame_gets_an_error_and_the_socket_stays(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    client.ws.send_binary(b'{"type": "cursor"}')
    assert client.receive_type("error")["data"]["code"] == "malformed_message"
    assert client.ask("cursor")["type"] == "cursor"


def padded(size: int) -> str:
    frame = '{"type": "a", "data": "%s"}'
    return frame % ("x" * (size - len(frame) + 2))


def test_a_message_has_at_most_16_kib(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    client.ws.send(padded(16 * 1024))
    assert client.receive()["type"] == "a"
    client.ws.send(padded(16 * 1024 + 1))
    assert client.close_code() == 1009


def test_the_size_is_counted_in_bytes_and_over_fragments(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    client.ws.send(json.dumps({"type": "a", "data": "ü" * 9000}, ensure_ascii=False))
    assert client.close_code() == 1009
    fragmented = connect_to(team, team.member)
    text = websocket.ABNF.OPCODE_TEXT
    fragmented.ws.send_frame(websocket.ABNF.create_frame('{"type": "a",', text, fin=0))
    fragmented.ws.send_frame(websocket.ABNF.create_frame('"data": 1}', websocket.ABNF.OPCODE_CONT, fin=1))
    assert fragmented.receive()["data"] == 1
    for _ in range(2):
        fragmented.ws.send_frame(websocket.ABNF.create_frame("x" * 9000, text, fin=0))
        text = websocket.ABNF.OPCODE_CONT
    assert fragmented.close_code() == 1009


def test_invalid_utf_8_is_closed_with_1007(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    client.ws.send_frame(websocket.ABNF.create_frame(b"\xff\xfe", websocket.ABNF.OPCODE_TEXT))
    assert client.close_code() == 1007


def test_a_broken_frame_is_closed_with_1002(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    client.raw.sendall(b"\x83\x80abcd")  # a reserved opcode
    assert client.close_code() == 1002


def test_more_than_the_burst_is_closed_with_4029(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member, query="echo=false")
    for _ in range(100):
        client.send("ping")
    assert client.receive()["type"] == "pong"
    for _ in range(100):
        client.send("ping")
    assert client.close_code() == 4029


def test_a_token_bucket_refills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bucket = TokenBucket(rate=50, burst=100)
    assert [bucket.take() for _ in range(101)] == [True] * 100 + [False]
    now += 0.1
    assert bucket.take(5)
    assert not bucket.take(0.5)
    now += 1000
    assert not bucket.take(101)
    assert bucket.take(100)


# ------------------------------------------------------------------------------------------------ control


def test_ping_is_answered_in_both_protocols(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    assert client.ask("ping", [1]) == {"type": "pong", "data": [1], "origin": "server"}
    client.ws.ping("here?")
    opcode, frame = client.ws.recv_data_frame(control_frame=True)
    assert (opcode, bytes(frame.data)) == (websocket.ABNF.OPCODE_PONG, b"here?")


def test_a_client_that_says_goodbye_is_answered_at_once(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    started = time.monotonic()
    client.ws.send_close(4321, b"bye")
    assert client.close_code() == 4321
    assert client.raw.recv(1) == b""
    assert time.monotonic() - started < 0.5


def test_a_goodbye_without_a_code_is_answered(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    client.ws.send_frame(websocket.ABNF.create_frame(b"", websocket.ABNF.OPCODE_CLOSE))
    assert client.close_code() == 1000


def test_a_client_that_vanishes_leaves_nothing_behind(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member).ready()
    assert team.id in hub.local_hub().team_ids()
    client.vanish()
    deadline = time.monotonic() + 5
    while team.id in hub.local_hub().team_ids():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_all_says_1001(connect_to: Connect, team: Team) -> None:
    clients = [connect_to(team, team.member).ready(), connect_to(team, team.viewer).ready()]
    hub.close_all()
    assert [client.close_code() for client in clients] == [1001, 1001]
    connect_to(team, team.member).ready()


# ------------------------------------------------------------------------------------------------ hello


def test_hello_is_welcomed(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    welcome = client.hello()
    assert welcome["seq"] == team.head()
    assert UUID(welcome["connection_id"])
    assert welcome["heartbeat_s"] == 25.0
    team.happen()
    drain()
    assert client.seqs(1) == [welcome["seq"] + 1]


def test_hello_resumes_after_last_seq_and_goes_on_live(connect_to: Connect, team: Team) -> None:
    before = team.head()
    team.happen(5)
    drain()
    client = connect_to(team, team.member)
    assert client.hello(last_seq=before)["seq"] == before + 5
    team.happen(3)
    drain()
    assert client.seqs(8) == list(range(before + 1, before + 9))
    assert client.is_quiet()


def test_resuming_from_the_head_or_from_the_beginning(connect_to: Connect, team: Team) -> None:
    head = team.head()
    assert connect_to(team, team.member).hello(last_seq=head)["seq"] == head
    from_the_beginning = connect_to(team, team.member)
    from_the_beginning.hello(last_seq=0)
    assert from_the_beginning.seqs(head) == list(range(1, head + 1))
    assert from_the_beginning.is_quiet()


@pytest.mark.parametrize("behind", [1000, 1001])
def test_at_most_a_thousand_events_are_replayed(connect_to: Connect, team: Team, behind: int) -> None:
    before = team.head()
    team.happen(behind)
    project()
    client = connect_to(team, team.member)
    assert client.hello(last_seq=before)["seq"] == before + behind
    if behind == 1000:
        assert client.seqs(1000) == list(range(before + 1, before + 1001))
    else:
        assert client.receive_type("reset")["data"] == {"seq": before + behind}
    team.happen()
    drain()
    assert client.seqs(1) == [before + behind + 1]
    assert client.is_quiet()


def test_a_client_ahead_of_the_log_is_reset(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    client.hello(last_seq=team.head() + 1)
    assert client.receive_type("reset")["data"] == {"seq": team.head()}
    team.happen()
    drain()
    assert client.seqs(1) == [team.head()]


def test_a_log_whose_beginning_is_gone_resets(connect_to: Connect, team: Team) -> None:
    team.happen(5)
    drain()
    execute("SELECT purge_activity(:team, 3, 100)", team=team.id)
    client = connect_to(team, team.member)
    client.hello(last_seq=2)
    assert client.receive_type("reset")["data"] == {"seq": team.head()}
    complete = connect_to(team, team.member)
    complete.hello(last_seq=3)
    assert complete.seqs(1) == [4]


@pytest.mark.parametrize("last_seq", [-1, True, "5", 1.5])
def test_a_bad_last_seq_gets_an_error_and_may_be_mended(
    connect_to: Connect, team: Team, last_seq: object
) -> None:
    client = connect_to(team, team.member)
    assert client.ask("hello", {"last_seq": last_seq})["data"]["code"] == "malformed_message"
    assert client.hello(last_seq=team.head())["seq"] == team.head()


def test_a_database_that_is_away_during_the_replay_asks_to_try_again(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect_to(team, team.member).ready()

    def away(*_args: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(hub.Hub, "_replayable", away)
    client.send("hello", {"last_seq": 0})
    assert client.close_code() == 1013


@pytest.mark.usefixtures("frequent_heartbeats")
def test_heartbeats_come_after_hello_with_the_latest_seq(connect_to: Connect, team: Team) -> None:
    silent, greeted = connect_to(team, team.member).ready(), connect_to(team, team.member)
    assert greeted.hello()["heartbeat_s"] == 0.3
    assert greeted.receive_type("heartbeat")["data"] == {"seq": team.head()}
    team.happen()
    drain()
    received = [greeted.receive() for _ in range(3)]
    [event] = [shown for shown in received if shown["type"] == "workspace_created"]
    assert received[-1] == {"type": "heartbeat", "data": {"seq": event["seq"]}, "origin": "server"}
    assert silent.seqs(1) == [event["seq"]]
    assert silent.is_quiet()


def test_nothing_logs_a_token(connect_to: Connect, team: Team, capfd: pytest.CaptureFixture[str]) -> None:
    client = connect_to(team, team.member)
    client.ask("cursor")
    assert connect_to(team, query="token=ahq_a-wrong-one").close_code() == 1008
    output = "".join(capfd.readouterr())
    assert team.member.token not in output
    assert "ahq_a-wrong-one" not in output
