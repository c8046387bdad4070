"""
The WebSocket below the messages: whole messages in, frames out; no I/O here.

simple-websocket makes the handshake. Its own reader and writer stay unused: its `send` drops the rest of a partial
write, which corrupts the stream under gevent, its reader writes from a second thread, buffers without bound and dies of
a malformed frame while the handler waits for ever.
"""

import struct
from collections.abc import Iterator

from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import Opcode

from realtime.messages import LARGEST_MESSAGE, CloseCode

FINAL = 0x80


class Closing(Exception):
    """The connection ends with this close code and reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Goodbye(Closing):
    """As the peer wants it, which waits for our answer and no more."""


def encode_frame(opcode: Opcode, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455, 5.2)."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", FINAL | opcode, length) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", FINAL | opcode, 126, length) + payload
    return struct.pack("!BBQ", FINAL | opcode, 127, length) + payload


def text_frame(payload: bytes) -> bytes:
    return encode_frame(Opcode.TEXT, payload)


def close_frame(code: int, reason: str) -> bytes:
    """A goodbye; of the reason as many whole characters as a control frame holds."""
    fitting = reason.encode()[:123].decode(errors="ignore")
    return encode_frame(Opcode.CLOSE, struct.pack("!H", code) + fitting.encode())


class Inbox:
    """What a client sent, put together from its frames by wsproto."""

    __slots__ = ("_broken", "_message", "_protocol")

    def __init__(self) -> None:
        self._protocol = Protocol(ConnectionType.SERVER)
        self._message = bytearray()
        self._broken = False

    def receive(self, data: bytes) -> Iterator[str | bytes | Ping]:
        """
        Each message and ping that `data` completes. Raises Closing when the peer says goodbye, breaks the protocol or sends
        more than LARGEST_MESSAGE bytes at once. After a breach it reads nothing more: nobody could say what it means, and
        kept it would grow for as long as the peer does not read our goodbye.
        """
        if self._broken:
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            match event:
                case CloseConnection():
                    self._broken = self._protocol.state is ConnectionState.OPEN
                    raise (Closing if self._broken else Goodbye)(*_answer_to(event))
                case Ping():
                    yield event
                case TextMessage() | BytesMessage():
                    yield from self._grow(event)

    def _grow(self, part: TextMessage | BytesMessage) -> Iterator[str | bytes]:
        self._message += part.data.encode() if isinstance(part.data, str) else part.data
        if len(self._message) > LARGEST_MESSAGE:
            self._message.clear()  # the peer may send on until it reads our goodbye
            raise Closing(CloseCode.MESSAGE_TOO_BIG, f"A message has at most {LARGEST_MESSAGE} bytes.")
        if part.message_finished:
            whole, self._message = self._message, bytearray()
            yield whole.decode() if isinstance(part, TextMessage) else bytes(whole)


def _answer_to(goodbye: CloseConnection) -> tuple[int, str]:
    """The close code and reason that answer the peer's; what may not be sent (RFC 6455, 7.4.1) becomes 1000."""
    code = int(goodbye.code)
    return (1000 if code in {1005, 1006, 1015} else code), goodbye.reason or ""
