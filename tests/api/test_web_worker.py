"""Slow and oversized clients against the real web server: they are let go, and nobody waits for them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask

from tests.factories import Person, make_person

ROOT = Path(__file__).parents[2]
HEAD_S, BODY_S, READ_S, IDLE_S = 2.0, 3.0, 3.0, 5.0
CONFIGURATION = f"""
__file__ = "{ROOT}/api/gunicorn.conf.py"
exec(compile(open(__file__).read(), __file__, "exec"))
web_worker.HEAD_S, web_worker.BODY_S, web_worker.READ_S = {HEAD_S}, {BODY_S}, {READ_S}
workers, keepalive = 1, {IDLE_S:.0f}
"""
MANY = 1500


class Server:
    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = probe.getsockname()
        configuration, self.log = directory / "gunicorn.conf.py", directory / "log"
        configuration.write_text(CONFIGURATION)
        command = [sys.executable, "-m", "gunicorn", "-c", str(configuration), "wsgi:app"]
        environment = {**os.environ, "PORT": str(self.address[1]), "DATABASE_POOL_SIZE": "2"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        deadline = time.monotonic() + 60
        while True:
            try:
                assert self.live() == 200
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def live(self) -> int:
        return self.ask(b"GET /health/live HTTP/1.1\r\nHost: hq\r\nConnection: close\r\n\r\n")

    def ask(self, request: bytes) -> int:
        """The status of the answer; 0 if there is none."""
        with self.connect() as client:
            client.sendall(request)
            return status(client)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def status(client: socket.socket) -> int:
    head = client.recv(12)
    return int(head[9:12] or 0)


def closes_within(client: socket.socket, seconds: float) -> bool:
    """Whether the server hangs up within so long, whatever it says before."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(tmp_path_factory.mktemp("gunicorn"))
    yield served
    served.stop()
    assert "Traceback" not in served.log.read_text()


@pytest.fixture(scope="module")
def person(app: Flask) -> Person:
    return make_person(app)


HALF = b"GET /health/live HTTP/1.1\r\nHost: hq\r\nX-Slow: "


def test_half_open_requests_are_cut_and_nobody_waits_for_them(server: Server) -> None:
    """However they trickle, each gets as long for its head, and no longer."""
    began = time.monotonic()
    slow = []
    try:
        for _ in range(MANY):
            client = server.connect()
            client.sendall(HALF)
            slow.append(client)
        opened = time.monotonic()
        while time.monotonic() < opened + HEAD_S:
            asked = time.monotonic()
            assert server.live() == 200
            assert time.monotonic() - asked < 1.5
            for client in slow[-100:]:
                trickle(client)
            time.sleep(0.2)
        for client in slow:
            assert closes_within(client, 5)
        assert time.monotonic() - began > HEAD_S
    finally:
        for client in slow:
            client.close()


def trickle(client: socket.socket) -> None:
    with suppress(ConnectionError):  # cut already
        client.sendall(b"x")


def test_a_head_in_pieces_is_answered_in_time(server: Server) -> None:
    with server.connect() as client:
        for piece in (b"GET /health/live", b" HTTP/1.1\r\n", b"Host: hq\r\n", b"\r\n"):
            client.sendall(piece)
            time.sleep(HEAD_S / 10)
        assert status(client) == 200


def test_a_connection_that_says_nothing_is_cut(server: Server) -> None:
    with server.connect() as client:
        assert closes_within(client, HEAD_S + 3)


def test_between_requests_there_is_more_time(server: Server) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: hq\r\n\r\n"
    with server.connect() as client:
        for _ in range(2):
            client.sendall(request)
            assert read_answer(client).startswith(b"HTTP/1.1 200")
            time.sleep(HEAD_S + 1)  # and less than IDLE_S
        client.sendall(request + request)  # the second is there before the first is answered
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 2:
            answers += client.recv(65536)
        assert closes_within(client, IDLE_S + 3)


def post(person: Person, length: int) -> bytes:
    return (
        f"PATCH /api/v1/me HTTP/1.1\r\nHost: hq\r\nAuthorization: Bearer {person.token}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_slow_bodies_keep_no_connection_of_the_database(server: Server, person: Person) -> None:
    """There are two, and twenty bodies that do not end."""
    body = b'{"name": "Kim"}'
    slow = [server.connect() for _ in range(20)]
    try:
        for client in slow:
            client.sendall(post(person, 100) + b"{")
        time.sleep(0.5)
        asked = time.monotonic()
        assert server.ask(post(person, len(body)) + body) == 200
        assert time.monotonic() - asked < 1.5
        for client in slow:
            assert closes_within(client, BODY_S + 3)
    finally:
        for client in slow:
            client.close()


def test_a_body_in_pieces_is_taken_in_time_and_refused_afterwards(server: Server, person: Person) -> None:
    body = b'{"name": "Kim"}'
    for pause, answered in ((BODY_S / 30, 200), (BODY_S / 10, 400)):
        with server.connect() as client:
            client.sendall(post(person, len(body)))
            for byte in body:
                try:
                    client.sendall(bytes([byte]))
                except ConnectionError:
                    break
                time.sleep(pause)
            assert status(client) == answered


def test_a_reader_that_does_not_read_is_cut(server: Server) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(server.address)
        request = b"GET /api/openapi.json HTTP/1.1\r\nHost: hq\r\n\r\n"
        client.sendall(request * 20)
        time.sleep(READ_S + 2)
        read = 0
        try:
            while data := client.recv(65536):
                read += len(data)
        except ConnectionError:
            pass
    with server.connect() as client:
        client.sendall(request)
        whole = len(read_answer(client))
    assert read < 20 * whole


def read_answer(client: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def with_line(length: int) -> bytes:
    line = b"GET /health/live?" + b"x" * (length - len(b"GET /health/live? HTTP/1.1")) + b" HTTP/1.1\r\n"
    return line + b"Host: hq\r\n\r\n"


def with_field(length: int) -> bytes:
    return b"GET /health/live HTTP/1.1\r\nHost: hq\r\nX: " + b"x" * (length - len(b"X: ")) + b"\r\n\r\n"


def with_fields(count: int) -> bytes:
    return b"GET /health/live HTTP/1.1\r\nHost: hq\r\n" + b"X: y\r\n" * (count - 1) + b"\r\n"


@pytest.mark.parametrize(
    ("make", "fits"),
    [(with_line, 4094), (with_field, 8188), (with_fields, 100)],
    ids=["line", "field", "fields"],
)
def test_both_sides_of_each_limit_of_a_head(server: Server, make: Callable[[int], bytes], fits: int) -> None:
    assert server.ask(make(fits)) == 200
    assert server.ask(make(fits + 4)) in {400, 414, 431}


def chunked(length: int, person: Person) -> bytes:
    body = b'{"name": "Kim"}'.ljust(length)
    head = (
        f"PATCH /api/v1/me HTTP/1.1\r\nHost: hq\r\nAuthorization: Bearer {person.token}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    return head.encode() + f"{length:x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


def test_a_body_of_no_announced_length_has_a_mebibyte_at_the_most(server: Server, person: Person) -> None:
    assert server.ask(chunked(1024 * 1024, person)) == 200
    assert server.ask(chunked(1024 * 1024 + 1, person)) == 413


def test_a_body_that_is_cut_short_changes_nothing(server: Server, person: Person) -> None:
    """Though what came of it is a whole JSON object."""
    whole = chunked(200, person)
    for request in (post(person, 200) + b'{"name": "Cut"}', whole[:-10], whole.replace(b"c8\r\n", b"x\r\n")):
        with server.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            assert status(client) == 400
    assert person.get("/me").json["name"] == "Kim"
    assert server.ask(whole) == 200
