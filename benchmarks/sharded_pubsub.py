"""
What a Redis Cluster makes of the product's channels: PUBLISH, which every node passes on to every other, beside SPUBLISH, which stays
with the node that has the channel's slot (docs/scale.md). The product itself publishes to one Redis so far.

`python -m benchmarks.sharded_pubsub [--small]`. Three nodes of the embedded Valkey; a channel a team, each with one subscriber that
is connected to the node of its slot; events of 250 bytes, published to that node. The ways take turns. All nodes, the publisher and the
subscribers share this machine, so only the processor time a message means anything.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from redis import Redis, RedisError
from uuid_utils.compat import uuid7

from api.embedded import ValkeyServer
from benchmarks.measuring import print_table

NODES = 3
SLOTS = 16_384
PAYLOAD = b"x" * 250
AT_ONCE = 200
"""Messages that the publisher sends before it reads the answers."""
WAYS: Mapping[str, tuple[str, str]] = {
    "PUBLISH": ("SUBSCRIBE", "PUBLISH"),
    "SPUBLISH": ("SSUBSCRIBE", "SPUBLISH"),
}


class Node(ValkeyServer):
    def _configuration(self) -> Mapping[str, object]:
        more = {
            "cluster-enabled": "yes",
            "cluster-require-full-coverage": "no",
            "masterauth": self._password(),
        }
        return {**super()._configuration(), **more}

    def _password(self) -> str:
        return self._file("password").read_text()

    @property
    def port(self) -> int:
        return int(self._file("port").read_text())

    def seconds(self) -> float:
        """Of the processor."""
        assert self._process is not None
        used = psutil.Process(self._process.pid).cpu_times()  # type: ignore[no-untyped-call]
        return float(used.user + used.system)


@contextmanager
def cluster() -> Iterator[Sequence[Node]]:
    """Nodes that know each other, and have a third of the slots each."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agenthq-bench-")))
        directory.chmod(0o755)  # root's servers run as another user
        nodes = [Node(directory / f"node-{number}", durable=False) for number in range(NODES)]
        for number, node in enumerate(nodes):
            node.start()
            stack.callback(node.stop)
            bounds = [round(SLOTS * part / NODES) for part in (number, number + 1)]
            with Redis.from_url(node.url) as redis:
                redis.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[0], bounds[1] - 1)
                redis.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        deadline = time.monotonic() + 30
        while not all(_knows_all(node) for node in nodes):
            if time.monotonic() > deadline:
                raise TimeoutError("the nodes do not find each other")
            time.sleep(0.1)
        yield nodes


def _knows_all(node: Node) -> bool:
    with Redis.from_url(node.url) as redis:
        return f"cluster_slots_ok:{SLOTS}" in redis.execute_command("CLUSTER", "INFO").decode()


def node_of(nodes: Sequence[Node], channel: str) -> Node:
    with Redis.from_url(nodes[0].url) as redis:
        slot = int(redis.execute_command("CLUSTER", "KEYSLOT", channel))
    return nodes[min(NODES - 1, slot * NODES // SLOTS)]


class Subscribers(threading.Thread):
    """One connection a node, subscribed to its channels; counts what comes."""

    def __init__(self, node: Node, channels: Sequence[str], subscribe: str) -> None:
        super().__init__(daemon=True)
        self.received = 0
        self._connection = Redis.from_url(
            node.url, socket_timeout=None, protocol=2
        ).connection_pool.get_connection()
        for channel in channels:
            self._connection.send_command(subscribe, channel)  # type: ignore[no-untyped-call]
            self._connection.read_response()

    def run(self) -> None:
        while True:
            try:
                self._connection.read_response()
            except (OSError, RedisError):
                return
            self.received += 1

    def close(self) -> None:
        self._connection.disconnect()  # type: ignore[no-untyped-call]


def measure(nodes: Sequence[Node], way: str, teams: int, messages: int) -> tuple[float, float, int]:
    """Messages a second, microseconds of all nodes' processors a message, and how many came."""
    subscribe, publish = WAYS[way]
    channels: dict[Node, list[str]] = {node: [] for node in nodes}
    for _ in range(teams):
        channel = f"team:{{{uuid7()}}}"
        channels[node_of(nodes, channel)].append(channel)
    listening = [Subscribers(node, of_node, subscribe) for node, of_node in channels.items()]
    for each in listening:
        each.start()
    publishers = {node: Redis.from_url(node.url).pipeline(transaction=False) for node in nodes}
    used, begun = sum(node.seconds() for node in nodes), time.perf_counter()
    sent = 0
    while sent < messages:
        for node, pipeline in publishers.items():
            for number in range(AT_ONCE):
                pipeline.execute_command(publish, channels[node][number % len(channels[node])], PAYLOAD)  # type: ignore[no-untyped-call]
            pipeline.execute()
            sent += AT_ONCE
    took = time.perf_counter() - begun
    time.sleep(0.5)
    used = sum(node.seconds() for node in nodes) - used
    received = sum(each.received for each in listening)
    for each in listening:
        each.close()
    if received != sent:
        raise RuntimeError(f"{way}: {received} of {sent} came")
    return sent / took, used * 1e6 / sent, received


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a moment of each: does it run?")
    small = parser.parse_args().small
    rounds, teams, messages = (1, 60, 3_000) if small else (5, 300, 60_000)
    measured: dict[str, list[tuple[float, float, int]]] = {way: [] for way in WAYS}
    with cluster() as nodes:
        for number in range(rounds):
            for way in list(WAYS)[:: -1 if number % 2 else 1]:
                measured[way].append(measure(nodes, way, teams, messages))
    print(f"{NODES} nodes, {teams} teams' channels, {messages:,} messages a round, {rounds} rounds; medians")
    print_table(
        ("way", "messages/s", "µs of all nodes a message"),
        [
            [
                way,
                *(
                    f"{statistics.median(each[at] for each in figures):,.{digits}f}"
                    for at, digits in ((0, 0), (1, 1))
                ),
            ]
            for way, figures in measured.items()
        ],
    )


if __name__ == "__main__":
    main()
