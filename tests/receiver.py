"""A customer's server that webhooks are sent to: it keeps what it gets, and answers as it is told."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def seq(self) -> int:
        return int(self.json["data"]["seq"])

    @property
    def signatures(self) -> list[str]:
        return self.headers["webhook-signature"].split(" ")

    def signature_by(self, secret: str) -> str:
        """As the specification (standardwebhooks.com) says it, told anew here."""
        assert secret.startswith("whsec_")
        key = base64.b64decode(secret[len("whsec_") :])
        content = b".".join(
            (self.headers["webhook-id"].encode(), self.headers["webhook-timestamp"].encode(), self.body)
        )
        return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


@dataclass
class Reply:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after_s: float = 0.0
    raw: Callable[[Any], None] | None = None
    """Writes to the socket itself, and no HTTP."""


class Receiver:
    def __init__(self, answer: Callable[[Received], Reply] | None = None) -> None:
        self.answer = answer or (lambda received: Reply())
        self.received: list[Received] = []
        self.connections = 0
        self.url = ""

    @property
    def seqs(self) -> list[int]:
        return [each.seq for each in self.received]

    def reply(self, *replies: Reply) -> None:
        """One after the other; the last for all that follows."""
        left = list(replies)
        self.answer = lambda received: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def receiving(
    answer: Callable[[Received], Reply] | None = None, *, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    receiver = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            receiver.connections += 1
            super().setup()

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # Its sender died in the middle: no request was received.
                self.close_connection = True
                return
            received = Received(self.path, dict(self.headers.items()), body)
            receiver.received.append(received)
            reply = receiver.answer(received)
            time.sleep(reply.after_s)
            if reply.raw is not None:
                self.close_connection = True
                reply.raw(self.connection)
                return
            self.send_response_only(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are what the tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    scheme = "http"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https"
    receiver.url = f"{scheme}://127.0.0.1:{server.server_port}/hook?from=us"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
