"""What the hub owes every socket: each event once, in order, whatever is lost on the way; and nobody who may not listen."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import event

from api.embedded import ValkeyServer
from models.access.entry import enter_team
from models.database import engine, transaction
from models.errors import Unavailable
from models.settings import settings
from realtime import hub
from realtime.channels import Entry, standing, team_channel
from realtime.connection import MOST_BYTES
from realtime.messages import Envelope
from realtime.publisher import connect
from tests.factories import Person
from tests.realtime.conftest import Client, Connect, Team, drain, execute, make_team, project, publish
from tests.servers import server_classes


def next_seqs(team: Team, count: int) -> list[int]:
    return list(range(team.head() + 1, team.head() + 1 + count))


# ------------------------------------------------------------------------------------------------ each event once


def test_events_come_at_once(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.viewer).ready()
    expected = next_seqs(team, 20)
    team.happen(20)
    started = time.monotonic()
    drain()
    assert client.seqs(20) == expected
    assert time.monotonic() - started < 0.5


def test_what_was_never_published_comes_from_the_log(connect_to: Connect, team: Team) -> None:
    """The worker died between its commit and its publication."""
    client = connect_to(team, team.member).ready()
    expected = next_seqs(team, 3)
    team.happen(3)
    project()
    started = time.monotonic()
    assert client.seqs(3) == expected
    assert time.monotonic() - started < 1.5


def test_a_gap_is_filled_before_what_follows_it(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member).ready()
    expected = next_seqs(team, 7)
    team.happen(5)
    project()
    team.happen(2)
    drain()
    assert client.seqs(7) == expected
    assert client.is_quiet(1)


def test_a_gap_larger_than_a_page_is_filled(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PAGE", 3)
    client = connect_to(team, team.member).ready()
    expected = next_seqs(team, 10)
    team.happen(10)
    project()
    assert client.seqs(10) == expected
    assert client.is_quiet(1)


def test_repeated_and_disordered_publications_are_shown_once_in_order(
    connect_to: Connect, team: Team
) -> None:
    client = connect_to(team, team.member).ready()
    expected = next_seqs(team, 6)
    team.happen(6)
    rows = [row for row in project() if row.team_id == team.id]
    publish([*rows[3:], *rows[:4], *reversed(rows), *rows])
    assert client.seqs(6) == expected
    assert client.is_quiet(1)


def test_replay_and_live_events_meet_without_gap_or_repeat(connect_to: Connect, team: Team) -> None:
    """Clients say hello again and again while events keep coming, every third of them lost on the way."""
    first, total = team.head() + 1, 300

    def work() -> None:
        for number in range(total // 5):
            team.happen(5)
            project() if number % 3 == 0 else drain()

    worker = threading.Thread(target=work)
    worker.start()
    last_seq = first - 1
    while last_seq < first + total - 1:
        client = connect_to(team, team.member)
        client.send("hello", {"last_seq": last_seq})
        while (received := client.receive())["type"] != "welcome":
            assert received["seq"] > last_seq  # a live one from before the server read the hello
        seqs = client.seqs(min(17, first + total - 1 - last_seq))
        assert seqs == list(range(last_seq + 1, last_seq + 1 + len(seqs)))
        last_seq = seqs[-1]
        client.vanish()
    worker.join()


def test_a_malformed_publication_is_dropped_and_the_next_one_shown(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member).ready()
    redis = connect(settings().redis_url)
    for garbage in (b"", b"no envelope", b"\x01short", Envelope(b"{}", seq=2**64 - 1).seal()):
        redis.publish(team_channel(team.id), garbage)
    expected = next_seqs(team, 1)
    team.happen()
    drain()
    assert client.seqs(1) == expected


# ------------------------------------------------------------------------------------------------ Redis away


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


def test_redis_killed_and_started_again_delays_and_loses_nothing(
    connect_to: Connect, team: Team, own_valkey: ValkeyServer
) -> None:
    client = connect_to(team, team.member).ready()
    expected = next_seqs(team, 9)
    team.happen(2)
    drain()
    assert client.seqs(2) == expected[:2]

    own_valkey.stop()
    team.happen(3)
    drain()  # warns, and raises nothing
    assert client.seqs(3) == expected[2:5]
    assert client.ask("cursor")["data"]["code"] == "unavailable"
    newcomer = connect_to(team, team.viewer).ready()

    own_valkey.start()
    team.happen(4)
    drain()
    assert client.seqs(4) == expected[5:]
    assert newcomer.seqs(4) == expected[5:]
    wait_for_the_subscription()
    assert client.ask("cursor") == newcomer.receive_type("cursor")
    team.happen()
    started = time.monotonic()
    drain()
    assert client.seqs(1) == [team.head()]
    assert time.monotonic() - started < 0.5


def wait_for_the_subscription() -> None:
    deadline = time.monotonic() + 5
    while hub.local_hub().unsubscribed_team_ids():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cut_subscription_is_taken_up_again(
    connect_to: Connect, team: Team, own_valkey: ValkeyServer
) -> None:
    client = connect_to(team, team.member).ready()
    expected = next_seqs(team, 12)
    redis = Redis.from_url(own_valkey.url)
    for _ in range(3):
        team.happen(2)
        drain()
        redis.client_kill_filter(_type="pubsub")
        team.happen(2)
        drain()
    assert client.seqs(12) == expected
    redis.close()


# ------------------------------------------------------------------------------------------------ rights


def closes_with_4001(client: Client) -> bool:
    started = time.monotonic()
    assert client.close_code() == 4001
    return time.monotonic() - started <= 1.0


def test_a_removed_member_is_closed_within_a_second(connect_to: Connect, team: Team) -> None:
    removed, stays = connect_to(team, team.member).ready(), connect_to(team, team.viewer).ready()
    team.remove(team.member)
    assert closes_with_4001(removed)
    stays.ready()


CREDENTIALS = ["session", "api_key", "agent"]
CAUSES = {
    "revoked": "DELETE FROM {credentials} WHERE user_id = :user",
    "expired": "UPDATE {credentials} SET expires_at = now() WHERE user_id = :user",
    "removed": "DELETE FROM team_members WHERE team_id = :team AND user_id = :user",
    "suspended": "UPDATE team_members SET suspended_at = now() WHERE team_id = :team AND user_id = :user",
    "in a role that may not read": "UPDATE team_members SET role = 'none' WHERE team_id = :team AND user_id = :user",
    "without the second factor asked for": "UPDATE teams SET two_factor_required = true WHERE id = :team",
}
"""What ends a member's rights, and nobody else's."""
CAUSES_OF_KEYS = {
    "out of the key's scope": "UPDATE api_keys SET permissions = '{{realtime:publish}}' WHERE user_id = :user",
}
CAUSES_OF_AGENTS = {
    "an agent whose role may not read": "UPDATE agents SET role = 'none' WHERE created_by = :user",
    "an agent that is gone": "DELETE FROM agents WHERE created_by = :user",
}


def coming_with(credential: str, team: Team, person: Person) -> Person:
    match credential:
        case "session":
            return person
        case "api_key":
            return team.with_key(person)
        case _:
            return team.with_key(person, agent_role="member")


def end_rights(team: Team, credential: str, statement: str) -> None:
    table = "sessions" if credential == "session" else "api_keys"
    parameters = {"team": team.id, "user": team.member.id}
    execute(
        statement.format(credentials=table),
        **{name: value for name, value in parameters.items() if f":{name}" in statement},
    )


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_whose_rights_end_is_closed_within_a_second(
    connect_to: Connect, team: Team, credential: str, cause: str
) -> None:
    confirm_second_factor(team.viewer)
    ends, stays = (coming_with(credential, team, person) for person in (team.member, team.viewer))
    closing, staying = connect_to(team, ends).ready(), connect_to(team, stays).ready()
    end_rights(team, credential, CAUSES[cause])
    assert closes_with_4001(closing)
    assert connect_to(team, ends).close_code() == 1008
    time.sleep(hub.CHECK_S)
    staying.ready()


def confirm_second_factor(person: Person) -> None:
    execute(
        "INSERT INTO second_factors (user_id, secret, confirmed_at) VALUES (:user, 'x', now())",
        user=person.id,
    )


@pytest.mark.parametrize(
    ("credential", "statement"),
    [
        *(
            pytest.param(kind, CAUSES_OF_KEYS[cause], id=cause)
            for kind in ("api_key", "agent")
            for cause in CAUSES_OF_KEYS
        ),
        *(pytest.param("agent", statement, id=cause) for cause, statement in CAUSES_OF_AGENTS.items()),
    ],
)
def test_a_key_that_may_not_read_any_more_is_closed_and_its_makers_session_stays(
    connect_to: Connect, team: Team, credential: str, statement: str
) -> None:
    key = coming_with(credential, team, team.member)
    closing, person = connect_to(team, key).ready(), connect_to(team, team.member).ready()
    end_rights(team, credential, statement)
    assert closes_with_4001(closing)
    assert connect_to(team, key).close_code() == 1008
    time.sleep(hub.CHECK_S)
    person.ready()


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_second_factor_that_is_not_confirmed_is_none(
    connect_to: Connect, team: Team, credential: str
) -> None:
    client = connect_to(team, coming_with(credential, team, team.member)).ready()
    execute("INSERT INTO second_factors (user_id, secret) VALUES (:user, 'x')", user=team.member.id)
    end_rights(team, credential, CAUSES["without the second factor asked for"])
    assert closes_with_4001(client)


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_deleted_teams_sockets_are_closed_within_a_second(
    connect_to: Connect, team: Team, credential: str, small_app: Flask
) -> None:
    other = make_team(small_app)
    staying = connect_to(other, coming_with(credential, other, other.member)).ready()
    client = connect_to(team, coming_with(credential, team, team.member)).ready()
    execute("UPDATE teams SET deleted_at = now() WHERE id = :team", team=team.id)
    assert closes_with_4001(client)
    staying.ready()


def test_a_demoted_member_may_not_publish_within_a_second(connect_to: Connect, team: Team) -> None:
    client = connect_to(team, team.member)
    assert client.ask("cursor")["type"] == "cursor"
    team.make_viewer(team.member)
    time.sleep(1)
    assert client.ask("cursor")["data"]["code"] == "permission_denied"


@pytest.mark.parametrize(
    ("credential", "statement"),
    [
        ("api_key", "UPDATE api_keys SET permissions = '{realtime:read}' WHERE user_id = :user"),
        ("agent", "UPDATE api_keys SET permissions = '{realtime:read}' WHERE user_id = :user"),
        ("agent", "UPDATE agents SET role = 'viewer' WHERE created_by = :user"),
        ("api_key", "UPDATE team_members SET role = 'viewer' WHERE user_id = :user"),
        ("agent", "UPDATE team_members SET role = 'viewer' WHERE user_id = :user"),
    ],
)
def test_a_key_whose_power_shrinks_may_not_publish_within_a_second(
    connect_to: Connect, team: Team, credential: str, statement: str
) -> None:
    """Its scope is narrowed, its agent's role changed, or its maker demoted."""
    client = connect_to(team, coming_with(credential, team, team.member))
    assert client.ask("cursor")["type"] == "cursor"
    execute(statement, user=team.member.id)
    time.sleep(1)
    assert client.ask("cursor")["data"]["code"] == "permission_denied"


def test_rights_are_those_that_entering_would_give(team: Team) -> None:
    """Entering and looking again are two statements; they agree on everyone, whoever comes with what."""
    scope = ["realtime:read", "tasks:read", "no:such"]
    comers = [
        comer
        for person in (team.owner, team.admin, team.member, team.viewer)
        for comer in (
            person,
            team.with_key(person),
            team.with_key(person, scope=scope),
            team.with_key(person, agent_role="viewer"),
            team.with_key(person, scope=scope, agent_role="member"),
        )
    ]
    with transaction() as session:
        accesses = [enter_team(session, comer.credential, team.id) for comer in comers]
        found = standing(session, [Entry.of(access) for access in accesses])
    assert found == [access.permissions for access in accesses]
    assert len(found) == len(comers)


def test_a_key_stands_in_its_own_team_alone(team: Team, small_app: Flask) -> None:
    """Though its maker is a member of both."""
    other = make_team(small_app)
    execute(
        "INSERT INTO team_members (id, team_id, user_id, role) VALUES (gen_random_uuid(), :team, :user, 'admin')",
        team=other.id,
        user=team.member.id,
    )
    with transaction() as session:
        entries = [
            Entry.of(enter_team(session, comer.credential, team.id))
            for comer in (team.member, team.with_key(team.member))
        ]
        elsewhere = [Entry(other.id, (str(other.id), *entry.as_text[1:])) for entry in entries]
        assert None not in standing(session, entries)
        assert [found is not None for found in standing(session, elsewhere)] == [True, False]


def test_sockets_stay_while_the_database_is_away(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect_to(team, team.member).ready()
    with monkeypatch.context() as patched:

        def away(*_args: object) -> None:
            raise Unavailable("away")

        patched.setattr(hub, "standing", away)
        patched.setattr(hub, "_read", away)
        expected = next_seqs(team, 2)
        team.happen(2)
        project()
        time.sleep(1.5)
        assert client.ask("cursor")["type"] == "cursor"
    assert client.seqs(2) == expected


def test_a_check_costs_as_many_statements_as_one_socket_does(connect_to: Connect, team: Team) -> None:
    for person in (team.owner, team.member, team.viewer):
        for credential in CREDENTIALS:
            connect_to(team, coming_with(credential, team, person)).ready()
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine(), "before_cursor_execute", count)
    try:
        time.sleep(3 * hub.CHECK_S)
    finally:
        event.remove(engine(), "before_cursor_execute", count)
    checks = [statement for statement in statements if "unnest" in statement]
    assert 2 <= len(checks) <= 4
    assert len(statements) <= 2 * len(checks) + 2


# ------------------------------------------------------------------------------------------------ slow readers


def test_a_slow_reader_is_closed_with_4008_and_harms_nobody(connect_to: Connect, team: Team) -> None:
    slow = connect_to(team, team.member, receive_buffer=4096).ready()
    healthy = connect_to(team, team.viewer).ready()
    first = team.head() + 1
    read: list[int] = []
    total = 150
    for _ in range(total // 5):
        team.happen(5, name="x" * 100_000)
        drain()
        read += healthy.seqs(5)
    assert read == list(range(first, first + total))
    shown, code = slow.read_to_the_end()
    assert code == 4008
    assert [message["seq"] for message in shown] == list(range(first, first + len(shown)))
    assert len(shown) < total


def test_a_slow_reader_within_the_bound_gets_everything(connect_to: Connect, team: Team) -> None:
    slow = connect_to(team, team.member, receive_buffer=4096).ready()
    size = MOST_BYTES // 16
    expected = next_seqs(team, 10)
    team.happen(10, name="x" * (size // 2))
    drain()
    time.sleep(1)
    assert slow.seqs(10) == expected


def test_a_long_replay_waits_for_a_slow_reader(connect_to: Connect, team: Team) -> None:
    before = team.head()
    team.happen(400, name="x" * 10_000)
    project()
    slow = connect_to(team, team.member, receive_buffer=4096)
    slow.hello(last_seq=before)
    time.sleep(1)
    assert slow.seqs(400) == list(range(before + 1, before + 401))
