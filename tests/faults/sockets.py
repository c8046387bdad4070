"""
Thousands of sockets in a process of their own, each of which checks that it is shown every event once and in order, however often
it is cut off: it comes back and says which number it saw last (docs/realtime.md).
"""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from benchmarks.child import Child

LONGEST_PAUSE_S = 3.0
OPEN_WITHIN_S = 30.0
AT_ONCE = 50
"""Handshakes that are under way."""


@dataclass(slots=True)
class Seen:
    """What one socket saw of its team."""

    team_id: str
    first: int | None = None
    """The number that the log stood at when it first came."""
    last: int = 0
    events: int = 0
    connects: int = 0
    resets: int = 0
    """Times it was told to fetch over REST, as it was too far behind."""
    wrong: list[str] = field(default_factory=list)
    """Gaps and repeats."""

    def show(self, frame: Mapping[str, Any]) -> None:
        if frame["type"] == "reset":
            self.resets += 1
            self.last = frame["data"]["seq"]
        if (seq := frame.get("seq")) is None:
            return
        if seq != self.last + 1:
            self.wrong.append(f"team {self.team_id}: {seq} after {self.last}")
        self.events += 1
        self.last = seq


class Sockets(Child):
    """The other process, from outside."""

    def __init__(self, url: str, wanted: Sequence[tuple[str, str]]) -> None:
        """Opens a socket for each pair of a team's id and a credential."""
        super().__init__(_run, url, wanted)

    def connected(self) -> int:
        """How many are connected and welcomed at the moment."""
        return int(self.call("connected"))

    def behind(self, heads: Mapping[str, int]) -> int:
        """How many have not seen their team's last number yet."""
        return int(self.call("behind", heads))

    def seen(self) -> list[Seen]:
        found: list[Seen] = self.call("seen")
        return found


def _run(pipe: Pipe, url: str, wanted: Sequence[tuple[str, str]]) -> None:
    asyncio.run(_Followers(pipe, url, wanted).run())


class _Followers:
    def __init__(self, pipe: Pipe, url: str, wanted: Sequence[tuple[str, str]]) -> None:
        self._pipe = pipe
        self._url = url.replace("http", "ws", 1)
        self._wanted = wanted
        self._sockets = [Seen(team_id) for team_id, _ in wanted]
        self._welcomed: set[int] = set()
        self._handshakes = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        calls: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(
            self._pipe.fileno(), lambda: calls.put_nowait(self._pipe.recv())
        )
        followers = [asyncio.create_task(self._follow(number)) for number in range(len(self._wanted))]
        while True:
            name, *arguments = await calls.get()
            for follower in followers:
                if follower.done():
                    follower.result()
            self._pipe.send(getattr(self, f"_{name}")(*arguments))

    def _connected(self) -> int:
        return len(self._welcomed)

    def _seen(self) -> list[Seen]:
        return self._sockets

    def _behind(self, heads: Mapping[str, int]) -> int:
        return sum(seen.last < heads[seen.team_id] for seen in self._sockets if seen.team_id in heads)

    async def _follow(self, number: int) -> None:
        team_id, credential = self._wanted[number]
        while True:
            with suppress(OSError, TimeoutError, WebSocketException):
                async with self._handshakes:
                    socket = await connect(
                        f"{self._url}/ws/{team_id}",
                        additional_headers={"Authorization": f"Bearer {credential}"},
                        compression=None,
                        ping_interval=None,
                        open_timeout=OPEN_WITHIN_S,
                        close_timeout=1,
                        proxy=None,
                    )
                async with socket:
                    await self._listen(number, socket)
            self._welcomed.discard(number)
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))

    async def _listen(self, number: int, socket: ClientConnection) -> None:
        seen = self._sockets[number]
        hello = {} if seen.first is None else {"last_seq": seen.last}
        await socket.send(json.dumps({"type": "hello", "data": hello}))
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "welcome":
                self._welcomed.add(number)
                seen.connects += 1
                if seen.first is None:
                    seen.first = seen.last = frame["data"]["seq"]
            elif number in self._welcomed:  # what comes before comes again
                seen.show(frame)
