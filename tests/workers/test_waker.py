"""Waking: few messages, none that piles up, and no request that waits for it."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisError

from api import resource
from api.embedded import ValkeyServer
from api.waker import AWAKE_KEY, Waker
from tests.factories import TeamSetting
from tests.servers import server_classes
from tests.workers.test_outbox import waiting

QUEUE = "outbox"


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A broker of the test's own, to stop as it likes."""
    directory: Path = tmp_path_factory.mktemp("valkey")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)  # root's server runs as another user
    server = server_classes()[1](directory / "data", durable=False).start()
    yield server
    server.stop()


@pytest.fixture
def broker(server: ValkeyServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def waker(server: ValkeyServer) -> Iterator[Waker]:
    waker = Waker(server.url)
    waker._celery.conf.update(broker_url=server.url)
    yield waker
    waker._celery.close()


def messages(broker: Redis) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in broker.lrange(QUEUE, 0, -1)]


def test_many_wakes_are_one_message_while_a_drain_is_awake(waker: Waker, broker: Redis) -> None:
    for _ in range(200):
        waker.wake()
        time.sleep(0.001)
    eventually(lambda: messages(broker))
    assert len(messages(broker)) == 1
    assert 0 < int(broker.pttl(AWAKE_KEY)) <= 2_000

    broker.delete(AWAKE_KEY)  # the drain went to sleep
    waker.wake()
    eventually(lambda: len(messages(broker)) == 2)


def test_the_message_names_the_drain_and_grows_stale(waker: Waker, broker: Redis) -> None:
    before = time.time()
    waker.wake()
    eventually(lambda: messages(broker))
    (message,) = messages(broker)
    headers = message["headers"]
    assert (headers["task"], headers["ignore_result"]) == ("outbox.drain", True)
    assert 0 < datetime.fromisoformat(headers["expires"]).timestamp() - before < 10


def test_it_goes_on_after_the_broker_was_away(server: ValkeyServer, waker: Waker, broker: Redis) -> None:
    waker.wake()
    eventually(lambda: messages(broker))
    server.stop()
    started = time.monotonic()
    for _ in range(100):
        waker.wake()
    assert time.monotonic() - started < 0.5
    eventually(lambda: not waker._asked.is_set())
    time.sleep(0.2)
    server.start()
    assert messages(broker) == []  # it lost everything

    def woken() -> bool:
        waker.wake()
        return len(messages(broker)) == 1

    eventually(woken)
    time.sleep(0.1)
    assert len(messages(broker)) == 1


def test_a_message_that_could_not_be_sent_leaves_no_key_behind(
    waker: Waker, broker: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key would keep the next one from sending."""
    failures: list[int] = []

    def fail(*_: Any, **__: Any) -> None:
        failures.append(1)
        raise RedisError("the broker went between the two")

    with monkeypatch.context() as patched:
        patched.setattr(waker._celery, "send_task", fail)
        waker.wake()
        eventually(lambda: failures)
        eventually(lambda: not broker.exists(AWAKE_KEY))
    waker.wake()
    eventually(lambda: len(messages(broker)) == 1)


def test_the_application_wakes_after_the_commit_of_an_event_and_only_then(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(resource, "wake_drain", lambda: seen.append(waiting(team.id)))
    before = waiting(team.id)
    assert team.owner.post(f"{team.path}/workspaces", json={"name": "Lab"}).status_code == 201
    assert seen == [before + 1]
    assert team.owner.get(f"{team.path}/workspaces").status_code == 200
    assert team.owner.patch(team.path, json={"name": "Design"}).status_code == 200
    assert seen == [before + 1]
    assert team.viewer.post(f"{team.path}/workspaces", json={"name": "Lab"}).status_code == 403
    assert seen == [before + 1, before + 2]  # a refusal is noted
