"""
The WebSocket below the messages: whole messages in, frames out.

simple-websocket makes the handshake. Its own reader and writer stay unused: its `send` drops the rest of a partial
write, which corrupts the stream under gevent, its reader writes from a second thread, buffers without bound and dies of
a malformed frame while the handler waits for ever.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from simple_websocket.ws import Server
from wsproto import WSConnection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import Opcode

from realtime.messages import LARGEST_MESSAGE, CloseCode

SEND_TIMEOUT_S = 10.0
"""A peer that takes nothing for so long is given up."""
RECEIVE_BYTES = 4096
FINAL = 0x80


class Closing(Exception):
    """The connection ends with this close code and reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


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


class Transport:
    """One thread reads, another writes; `abort` may come from any."""

    def __init__(self, server: Server) -> None:
        server.connected = False  # flask-sock would say goodbye a second time
        self._socket: socket.socket = server.sock
        self._socket.settimeout(SEND_TIMEOUT_S)
        with suppress(OSError):  # no TCP
            self._socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )  # else a frame waits 40 ms for an ACK
        self._protocol: WSConnection = server.ws
        self._goodbye_read = False

    def receive(self) -> Iterator[str | bytes | Ping]:
        """
        Each message and ping, until the peer is gone. Raises Closing when it says goodbye, breaks the protocol or sends
        more than LARGEST_MESSAGE bytes at once.
        """
        message = bytearray()
        for event in self._events():
            match event:
                case CloseConnection():
                    raise Closing(*_answer_to(event))
                case Ping():
                    yield event
                case TextMessage() | BytesMessage():
                    message += event.data.encode() if isinstance(event.data, str) else event.data
                    if len(message) > LARGEST_MESSAGE:
                        raise Closing(
                            CloseCode.MESSAGE_TOO_BIG, f"A message has at most {LARGEST_MESSAGE} bytes."
                        )
                    if event.message_finished:
                        yield message.decode() if isinstance(event, TextMessage) else bytes(message)
                        message.clear()

    def discard(self) -> None:
        """Reads on without looking until the peer is gone or has said goodbye, so that it gets to read ours."""
        events = self._events()
        while not self._goodbye_read and next(events, None):
            pass

    def send(self, frames: bytes) -> None:
        """Writes all of it; raises OSError, after which the stream can't go on."""
        self._socket.sendall(frames)

    def abort(self) -> None:
        """Cuts the connection; whoever reads or writes on it learns so at once."""
        with suppress(OSError):  # it is cut already
            self._socket.shutdown(socket.SHUT_RDWR)

    def _events(self) -> Iterator[Event]:
        while received := self._read():
            self._protocol.receive_data(received)
            for event in self._protocol.events():
                self._goodbye_read |= isinstance(event, CloseConnection)
                yield event

    def _read(self) -> bytes:
        while True:
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except TimeoutError:
                continue  # the time is for sending; a client may be silent
            except OSError:
                return b""


def _answer_to(goodbye: CloseConnection) -> tuple[int, str]:
    """The close code and reason that answer the peer's; what may not be sent (RFC 6455, 7.4.1) becomes 1000."""
    code = int(goodbye.code)
    return (1000 if code in {1005, 1006, 1015} else code), goodbye.reason or ""
