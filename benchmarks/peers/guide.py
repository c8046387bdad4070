"""The guide's design, as many a tutorial has it: FastAPI, a dict of sets, awaited sends; it lets everyone in."""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis

teams: dict[str, set[WebSocket]] = defaultdict(set)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    listening = asyncio.create_task(listen())
    yield
    listening.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws/{team_id}")
async def serve(socket: WebSocket, team_id: str) -> None:
    await socket.accept()
    teams[team_id].add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        teams[team_id].discard(socket)


async def listen() -> None:
    pubsub = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True).pubsub()
    await pubsub.psubscribe("team:*")
    async for message in pubsub.listen():
        if message["type"] == "pmessage":
            await broadcast(message["channel"].removeprefix("team:"), message["data"])


async def broadcast(team_id: str, text: str) -> None:
    for socket in list(teams[team_id]):
        with suppress(RuntimeError, WebSocketDisconnect):  # it has gone meanwhile
            await socket.send_text(text)
