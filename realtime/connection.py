"""A connection: a bounded queue of frames, and the one thread that writes them."""

import threading
from collections import deque
from collections.abc import Iterator
from uuid import UUID

from uuid_utils.compat import uuid7
from wsproto.events import Ping
from wsproto.frame_protocol import Opcode

from realtime.messages import CloseCode
from realtime.transport import Closing, Transport, close_frame, encode_frame, text_frame

MOST_FRAMES = 256
MOST_BYTES = 1 << 20
"""What may wait for a slow reader; more closes its connection, so that it harms nobody else."""
LINGER_S = 1.0
"""How long a peer may take to answer our goodbye."""


class Connection:
    """Any thread may `offer` and `close`; one thread, the handler's, reads. Nothing here blocks but `offer_patiently`."""

    def __init__(self, transport: Transport) -> None:
        self.id: UUID = uuid7()
        self._transport = transport
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._frames = 0  # waiting, or being written
        self._bytes = 0
        self._closing: Closing | None = None
        self._reader_done = threading.Event()
        self._writer = threading.Thread(target=self._write, name=f"socket-{self.id}", daemon=True)

    def start(self) -> None:
        self._writer.start()

    def receive(self) -> Iterator[str | bytes]:
        """The client's messages while the connection is open; pings are answered on the way. Raises Closing."""
        for received in self._transport.receive():
            if self._closing:
                return
            if isinstance(received, Ping):
                self.offer(encode_frame(Opcode.PONG, bytes(received.payload)))
            else:
                yield received

    def say(self, payload: bytes) -> None:
        """Queues a message for this connection alone."""
        self.offer(text_frame(payload))

    def offer(self, frame: bytes) -> None:
        """Queues an encoded frame; closes the connection if too much waits already."""
        with self._changed:
            if self._closing:
                return
            if self._has_room(frame):
                self._append(frame)
            else:
                self._close(Closing(CloseCode.TOO_SLOW, "The client reads too slowly; resume with hello."))

    def offer_patiently(self, frame: bytes) -> None:
        """Queues an encoded frame as soon as there is room; raises Closing if the connection ends meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._has_room(frame))
            if self._closing:
                raise self._closing
            self._append(frame)

    def close(self, code: int, reason: str = "") -> None:
        """Says goodbye as soon as the frame being written is out; the others are dropped. The first goodbye counts."""
        with self._changed:
            if not self._closing:
                self._close(Closing(code, reason))

    def abort(self) -> None:
        self._transport.abort()

    def finish(self) -> None:
        """Called by the reader at its end: returns once the goodbyes are exchanged, or their time is over."""
        self.close(1000)
        self._transport.discard()
        self._reader_done.set()
        self._writer.join()

    def _has_room(self, frame: bytes) -> bool:
        return not self._frames or (self._frames < MOST_FRAMES and self._bytes + len(frame) <= MOST_BYTES)

    def _append(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self._frames += 1
        self._bytes += len(frame)
        self._changed.notify_all()

    def _close(self, closing: Closing) -> None:
        self._closing = closing
        self._waiting.clear()
        self._changed.notify_all()

    def _write(self) -> None:
        try:
            while frames := self._next_frames():
                self._transport.send(b"".join(frames))
                self._written(frames)
            if self._closing:
                self._transport.send(close_frame(self._closing.code, self._closing.reason))
                self._reader_done.wait(LINGER_S)
        except OSError:
            self.close(CloseCode.TOO_SLOW)  # it will not be read; nothing more shall be queued
        finally:
            self._transport.abort()

    def _next_frames(self) -> list[bytes]:
        """All that waits, once anything does; nothing when the connection is closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting)
            frames = list(self._waiting)
            self._waiting.clear()
            return frames

    def _written(self, frames: list[bytes]) -> None:
        with self._changed:
            self._frames -= len(frames)
            self._bytes -= sum(map(len, frames))
            self._changed.notify_all()
