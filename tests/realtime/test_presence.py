"""Who is online: by person over devices and processes, and nobody who is gone."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from api.embedded import ValkeyServer
from models.settings import settings
from realtime import hub, presence
from realtime.messages import Present
from realtime.presence import Entry, merge, present
from realtime.publisher import connect
from tests.factories import Person
from tests.realtime.conftest import Client, Connect, Team, drain, make_team
from tests.realtime.test_gunicorn import Gunicorn
from tests.servers import server_classes

GATHERED = 4 * presence.GATHER_S
"""Until whatever is to be announced has been."""


def about(person: Person, state: str = "online", devices: int = 1) -> dict[str, Any]:
    return {"user_id": str(person.id), "state": state, "devices": devices}


def people(client: Client) -> list[dict[str, Any]]:
    """Who is online, as a welcome tells it."""
    client.send("hello")
    while (welcome := client.receive())["type"] != "welcome":
        assert welcome["type"].startswith("presence_"), welcome
    told: list[dict[str, Any]] = welcome["data"]["presence"]
    return sorted(told, key=lambda each: each["user_id"])


def by_id(*told: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(told, key=lambda each: each["user_id"])


def told(client: Client) -> tuple[str, dict[str, Any]]:
    """The next frame, which must be of somebody's presence."""
    frame = client.receive()
    assert set(frame) == {"type", "user_id", "data", "origin", "at"}, frame
    assert frame["origin"] == "server"
    kind = frame["type"].removeprefix("presence_")
    return kind, {"user_id": frame["user_id"], **frame["data"]}


def eventually(holds: Callable[[], bool], seconds: float) -> float:
    """How many seconds it took to hold; fails if it does not within so many."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds
        time.sleep(0.5)  # a hello counts as twenty messages
    return time.monotonic() - started


def settle() -> None:
    time.sleep(GATHERED)


def rest(team: Team) -> list[Present]:
    """Who is online, as GET /presence tells it."""
    return present(connect(settings().redis_url), team.id)


# ------------------------------------------------------------------------------------------------ joined, left, changed


def test_a_welcome_tells_who_is_online(connect_to: Connect, team: Team, small_app: Flask) -> None:
    other = make_team(small_app)
    connect_to(other, other.member).ready()
    connect_to(team, team.member).ready()
    connect_to(team, team.member).ready()
    client = connect_to(team, team.viewer)
    assert people(client) == by_id(about(team.member, devices=2), about(team.viewer))
    assert client.is_quiet(GATHERED)


def test_joining_and_leaving_is_announced_once_a_person(connect_to: Connect, team: Team) -> None:
    watcher = connect_to(team, team.viewer)
    watcher.hello()
    first = connect_to(team, team.member).ready()
    assert told(watcher) == ("joined", about(team.member))
    second = connect_to(team, team.member).ready()
    assert watcher.is_quiet(GATHERED)
    first.vanish()
    assert watcher.is_quiet(GATHERED)
    second.vanish()
    assert told(watcher) == ("left", about(team.member, devices=0))
    assert watcher.is_quiet(GATHERED)


def test_devices_that_come_together_join_once(connect_to: Connect, team: Team) -> None:
    watcher = connect_to(team, team.viewer)
    watcher.hello()
    for _ in range(3):
        connect_to(team, team.member).ready()
    kind, joined = told(watcher)
    assert (kind, joined["user_id"], joined["state"]) == ("joined", str(team.member.id), "online")
    assert watcher.is_quiet(GATHERED)


def test_before_hello_there_is_no_presence(connect_to: Connect, team: Team) -> None:
    silent = connect_to(team, team.viewer).ready()
    passing = connect_to(team, team.member)
    passing.hello()
    passing.send("presence", {"state": "away"})
    settle()
    passing.vanish()
    assert silent.is_quiet(GATHERED)


def test_who_said_hello_is_not_told_again(connect_to: Connect, team: Team) -> None:
    connect_to(team, team.member).ready()
    client = connect_to(team, team.viewer)
    assert people(client) == by_id(about(team.member), about(team.viewer))
    assert people(client) == by_id(about(team.member), about(team.viewer))
    assert client.is_quiet(GATHERED)


def test_a_reload_is_no_news(connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "GATHER_S", 1.5)
    leaving = connect_to(team, team.member).ready()
    watcher = connect_to(team, team.viewer)
    watcher.hello()
    time.sleep(2)
    assert watcher.is_quiet(0)
    for _ in range(3):
        leaving.vanish()
        leaving = connect_to(team, team.member).ready()
    assert watcher.is_quiet(2.5)


def test_who_is_removed_from_the_team_leaves(connect_to: Connect, team: Team) -> None:
    removed = connect_to(team, team.member).ready()
    watcher = connect_to(team, team.viewer)
    watcher.hello()
    team.remove(team.member)
    assert removed.close_code() == 4001
    assert told(watcher) == ("left", about(team.member, devices=0))
    drain()
    assert watcher.receive_type("member_removed")


# ------------------------------------------------------------------------------------------------ within a gathering


@pytest.fixture
def slow_gathering(monkeypatch: pytest.MonkeyPatch, connect_to: Connect, team: Team) -> Client:
    """Changes wait for two seconds from now on; a watcher who said hello before."""
    watcher = connect_to(team, team.owner)
    watcher.hello()
    settle()
    monkeypatch.setattr(presence, "GATHER_S", 2.0)
    time.sleep(0.5)  # the pause that had begun
    return watcher


def test_who_was_told_of_someone_who_leaves_at_once_is_told_that(
    connect_to: Connect, team: Team, slow_gathering: Client
) -> None:
    passing = connect_to(team, team.member).ready()
    client = connect_to(team, team.viewer)
    assert about(team.member) in people(client)
    passing.vanish()
    assert told(client) == ("left", about(team.member, devices=0))
    assert told(slow_gathering) == ("joined", about(team.viewer))
    assert slow_gathering.is_quiet()
    assert client.is_quiet()


def test_who_came_between_a_leaving_and_a_return_is_told_of_the_return(
    connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = connect_to(team, team.member).ready()
    watcher = connect_to(team, team.owner)
    watcher.hello()
    settle()
    monkeypatch.setattr(presence, "GATHER_S", 2.0)
    time.sleep(0.5)
    leaving.vanish()
    client = connect_to(team, team.viewer).ready()
    eventually(lambda: about(team.member) not in client.hello()["presence"], 1)
    connect_to(team, team.member).ready()
    assert told(client) == ("joined", about(team.member))
    assert told(watcher) == ("joined", about(team.viewer))
    assert watcher.is_quiet()
    assert client.is_quiet()


def test_who_was_told_a_state_that_does_not_last_is_told_the_next(
    connect_to: Connect, team: Team, slow_gathering: Client
) -> None:
    changing = connect_to(team, team.owner).ready()
    slow_gathering.send("presence", {"state": "away"})
    changing.send("presence", {"state": "away"})
    client = connect_to(team, team.viewer).ready()
    eventually(lambda: about(team.owner, "away", 2) in client.hello()["presence"], 1)
    assert changing.ask("ping")["type"] == "pong"
    changing.send("presence", {"state": "online"})
    assert told(client) == ("changed", about(team.owner, "online", 2))
    assert client.is_quiet()
    assert told(slow_gathering) == ("joined", about(team.viewer))
    assert slow_gathering.is_quiet()


# ------------------------------------------------------------------------------------------------ states


@pytest.mark.parametrize("state", ["away", "online", "in a meeting", "x", "é" * 50, "\N{GRINNING FACE}"])
def test_a_person_sets_their_state(connect_to: Connect, team: Team, state: str) -> None:
    watcher, person = connect_to(team, team.viewer), connect_to(team, team.member).ready()
    watcher.hello()
    person.send("presence", {"state": "before"})
    assert told(watcher) == ("changed", about(team.member, "before"))
    person.send("presence", {"state": state})
    assert told(watcher) == ("changed", about(team.member, state))
    person.send("presence", {"state": state})
    assert watcher.is_quiet(GATHERED)
    assert about(team.member, state) in people(watcher)


NO_STATES: list[Any] = [None, 1, True, [], "", "x" * 51, "a\nb", "\x00", "\u202e", "\u2028"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "away",
        {},
        *({"state": state} for state in NO_STATES),
    ],
    ids=repr,
)
def test_a_state_that_is_none_gets_an_error(connect_to: Connect, team: Team, data: object) -> None:
    client = connect_to(team, team.member)
    client.hello()
    assert client.ask("presence", data)["data"]["code"] == "malformed_message"
    assert people(client) == [about(team.member)]


def test_a_viewer_has_a_state_too(connect_to: Connect, team: Team) -> None:
    """It is no publication."""
    watcher, viewer = connect_to(team, team.member), connect_to(team, team.viewer).ready()
    watcher.hello()
    viewer.send("presence", {"state": "away"})
    assert told(watcher) == ("changed", about(team.viewer, "away"))


def test_a_person_is_online_if_any_device_is(connect_to: Connect, team: Team) -> None:
    watcher = connect_to(team, team.viewer)
    phone, laptop = (connect_to(team, team.member).ready() for _ in range(2))
    watcher.hello()
    phone.send("presence", {"state": "away"})
    assert watcher.is_quiet(GATHERED)
    laptop.send("presence", {"state": "away"})
    assert told(watcher) == ("changed", about(team.member, "away", 2))
    phone.send("presence", {"state": "lunch"})
    assert told(watcher) == ("changed", about(team.member, "lunch", 2))
    phone.vanish()
    assert told(watcher) == ("changed", about(team.member, "away"))
    connect_to(team, team.member).ready()
    assert told(watcher) == ("changed", about(team.member, "online", 2))


def test_one_presence_of_several() -> None:
    online, away, early, late = (
        Entry(state, devices, at)
        for state, devices, at in (("online", 1, 1.0), ("away", 2, 9.0), ("a", 4, 5.0), ("b", 8, 6.0))
    )
    assert merge([]) is None
    for entries in ([online, away, early, late], [late, early, away, online]):
        assert merge(entries) == Entry("online", 15, 1.0)
        assert merge(entries[:3] if entries[0] is late else entries[1:]) == Entry("b", 14, 6.0)
    assert merge([away]) == away


# ------------------------------------------------------------------------------------------------ over processes


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Gunicorn]]:
    """Starts processes of a test's own."""
    started: list[Gunicorn] = []

    def start() -> Gunicorn:
        started.append(Gunicorn(tmp_path / f"log {len(started)}"))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    served = Gunicorn(tmp_path_factory.mktemp("gunicorn") / "log")
    yield served
    served.stop()
    assert "Traceback" not in served.log.read_text()


def test_processes_see_each_others_people(gunicorn: Gunicorn, connect_to: Connect, team: Team) -> None:
    here = connect_to(team, team.member)
    here.hello()
    there = connect_to(team, team.viewer, address=gunicorn.address)
    there.hello()
    assert told(here) == ("joined", about(team.viewer))
    assert eventually(lambda: people(there) == by_id(about(team.member), about(team.viewer)), 5) < 5
    there.send("presence", {"state": "away"})
    assert told(here) == ("changed", about(team.viewer, "away"))
    elsewhere = connect_to(team, team.viewer).ready()
    assert told(here) == ("changed", about(team.viewer, "online", 2))
    expected = [(team.member.id, 1), (team.viewer.id, 2)]
    eventually(lambda: sorted((each.user_id, each.devices) for each in rest(team)) == sorted(expected), 5)
    there.vanish()
    assert here.is_quiet(GATHERED)
    elsewhere.vanish()
    assert told(here) == ("left", about(team.viewer, devices=0))
    eventually(lambda: [each.user_id for each in rest(team)] == [team.member.id], 5)


def test_a_newcomer_in_another_process_soon_knows_everyone(
    gunicorn: Gunicorn, connect_to: Connect, team: Team
) -> None:
    """Its process has just begun to follow the team; what welcome could not tell comes as joined."""
    for _ in range(2):
        connect_to(team, team.member).ready()
    settle()
    newcomer = connect_to(team, team.viewer, address=gunicorn.address)
    if about(team.member, devices=2) not in people(newcomer):
        assert told(newcomer) == ("joined", about(team.member, devices=2))
    assert newcomer.is_quiet(GATHERED)


def test_a_killed_processs_people_are_gone(
    serve: Callable[[], Gunicorn], connect_to: Connect, team: Team
) -> None:
    victim = serve()
    survivor = connect_to(team, team.member)
    survivor.hello()
    connect_to(team, team.viewer, address=victim.address).ready()
    assert told(survivor) == ("joined", about(team.viewer))
    connect_to(team, team.member, address=victim.address).ready()
    eventually(lambda: len(rest(team)) == 2, 5)
    eventually(lambda: about(team.member, devices=2) in people(survivor), 5)
    kill(victim)
    started = time.monotonic()
    assert told(survivor) == ("left", about(team.viewer, devices=0))
    assert time.monotonic() - started < 6
    assert [(each.user_id, each.devices) for each in rest(team)] == [(team.member.id, 1)]  # at once, too
    assert people(survivor) == [about(team.member)]


def kill(served: Gunicorn) -> None:
    """The arbiter too, which would start another worker."""
    workers = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    served.process.kill()
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)
    served.process.wait(10)


def test_a_stopped_process_says_that_its_people_left(
    serve: Callable[[], Gunicorn], connect_to: Connect, team: Team
) -> None:
    stopping = serve()
    survivor = connect_to(team, team.member)
    survivor.hello()
    connect_to(team, team.viewer, address=stopping.address).ready()
    assert told(survivor) == ("joined", about(team.viewer))
    stopping.process.send_signal(signal.SIGTERM)
    assert told(survivor) == ("left", about(team.viewer, devices=0))
    assert stopping.process.wait(20) == 0


# ------------------------------------------------------------------------------------------------ Redis


def test_no_key_is_without_a_time_to_live(
    gunicorn: Gunicorn, connect_to: Connect, team: Team, redis: Redis
) -> None:
    connect_to(team, team.member).ready()
    connect_to(team, team.viewer, address=gunicorn.address).ready()
    leaving = connect_to(team, team.admin).ready()
    settle()
    leaving.vanish()
    settle()
    keys = list(redis.scan_iter("presence:*"))
    assert f"presence:team:{team.id}".encode() in keys
    assert sum(key.startswith(b"presence:process:") for key in keys) >= 2
    for key in keys:
        assert redis.pttl(key) != -1, key
    assert all(redis.ttl(key) <= presence.KEPT_S for key in keys)


def test_nothing_of_a_team_without_sockets_remains(connect_to: Connect, team: Team, redis: Redis) -> None:
    client = connect_to(team, team.member).ready()
    eventually(lambda: len(rest(team)) == 1, 5)
    client.vanish()
    eventually(lambda: not redis.exists(f"presence:team:{team.id}"), 5)


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


def test_presence_comes_back_after_redis_lost_everything(
    connect_to: Connect, team: Team, own_valkey: ValkeyServer, serve: Callable[[], Gunicorn]
) -> None:
    other = serve()
    here = connect_to(team, team.member)
    there = connect_to(team, team.viewer, address=other.address)
    everyone = {team.member.id, team.viewer.id}
    here.hello()
    there.hello()
    eventually(lambda: {each.user_id for each in rest(team)} == everyone, 5)

    own_valkey.stop()
    time.sleep(1)
    own_valkey.start()
    eventually(lambda: {each.user_id for each in rest(team)} == everyone, 30)
    newcomer = connect_to(team, team.admin).ready()
    eventually(lambda: {each["user_id"] for each in people(newcomer)} >= set(map(str, everyone)), 30)
    redis = Redis.from_url(own_valkey.url)
    assert all(redis.pttl(key) != -1 for key in redis.scan_iter("presence:*"))


def test_who_leaves_while_redis_is_away_is_gone_when_it_is_back(
    connect_to: Connect, team: Team, own_valkey: ValkeyServer
) -> None:
    """It kept what it had: only nobody could reach it meanwhile."""
    client = connect_to(team, team.member).ready()
    eventually(lambda: len(rest(team)) == 1, 5)
    redis = Redis.from_url(own_valkey.url)
    redis.config_set("maxclients", 1)
    redis.client_kill_filter(skipme=True)
    client.vanish()
    settle()
    settle()
    redis.config_set("maxclients", 1000)
    eventually(lambda: not redis.exists(f"presence:team:{team.id}"), 10)
