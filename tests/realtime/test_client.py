"""The Python client (realtime/client.py) against real servers, through a proxy that cuts its connections."""

import os
import random
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import trustme
from flask import Flask

from models.access.credentials import TOKEN_PREFIX, hash_secret, new_token
from realtime import client, hub
from realtime.client import Frame, NotConnected, Refused, TeamSocket
from tests.factories import Person, make_person
from tests.realtime.conftest import Connect, Team, drain, execute, project
from tests.realtime.test_gunicorn import Gunicorn


class Proxy:
    """Passes TCP connections on to `upstream`, and cuts them as a bad network does: anywhere, and without a goodbye."""

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self._tls = tls
        self.cuts = 0
        self.accepted = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._silent = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Cuts whatever is connected; returns how many connections that were."""
        with self._lock:
            cut = list(self._open)
            self._open.clear()
        for each in cut:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.cuts += len(cut)
        return len(cut)

    def fall_silent(self, silent: bool = True) -> None:
        """Swallows what the server sends, as a network does whose other end is gone."""
        (self._silent.set if silent else self._silent.clear)()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                downstream, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(downstream,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        host, port = self.upstream.split(":")
        with accepted, suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as upstream:
            downstream = self._tls.wrap_socket(accepted, server_side=True) if self._tls else accepted
            with self._lock:
                self._open.add(downstream)
                self.accepted += 1
            try:
                self._pass_on(downstream, upstream)
            finally:
                with self._lock:
                    self._open.discard(downstream)
                downstream.close()

    def _pass_on(self, downstream: socket.socket, upstream: socket.socket) -> None:
        while True:
            for source in select.select([downstream, upstream], [], [])[0]:
                # Small pieces, so that a cut may be within a frame; of TLS whole records, or a rest would wait unseen.
                data = source.recv(1 << 16 if self._tls else random.randint(1, 400))
                if not data:
                    return
                if source is downstream:
                    upstream.sendall(data)
                elif not self._silent.is_set():
                    downstream.sendall(data)


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


class Listening:
    """A TeamSocket, followed by a thread of its own as a program would."""

    def __init__(
        self,
        address: str,
        team: Team | UUID,
        credential: str | Callable[[], str],
        *,
        scheme: str = "http",
        **options: Any,
    ) -> None:
        ask = (lambda: credential) if isinstance(credential, str) else credential
        team_id = team.id if isinstance(team, Team) else team
        self.socket = TeamSocket(
            f"{scheme}://{address}", team_id, ask, **{"longest_pause_s": 0.05, **options}
        )
        self.frames: list[Frame] = []
        self.ended_by: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for frame in self.socket:
                with self._changed:
                    self.frames.append(frame)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001  looked at by the test
            self.ended_by = error
        with self._changed:
            self._changed.notify_all()

    def of_type(self, type_: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == type_]

    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.frames if "seq" in frame]

    def wait(self, condition: Callable[[], object], seconds: float = 20) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, seconds), (self.frames[-3:], self.ended_by)

    def welcomed(self, times: int = 1) -> "Listening":
        self.wait(lambda: len(self.of_type("welcome")) >= times)
        return self

    def end(self, seconds: float = 10) -> Exception | None:
        """What the iteration ended with."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self.ended_by

    def close(self) -> None:
        self.socket.close()
        assert self.end() is None


Listen = Callable[..., Listening]


@pytest.fixture
def listen() -> Iterator[Listen]:
    opened: list[Listening] = []

    def listen(*arguments: Any, **options: Any) -> Listening:
        opened.append(Listening(*arguments, **options))
        return opened[-1]

    yield listen
    for each in opened:
        each.socket.close()
        each.end()


# ------------------------------------------------------------------------------------------------ frames


def test_it_shows_what_its_team_sees_and_says_what_it_sends(
    server: str, listen: Listen, connect_to: Connect, team: Team
) -> None:
    other = connect_to(team, team.viewer)
    other.hello()
    ours = listen(server, team, team.member.token).welcomed()
    ours.socket.send("cursor", {"name": "Zoë", "x": [1, None]})
    seen: list[Frame] = []
    while not seen or seen[-1]["type"] != "cursor":
        seen.append(other.receive())
    assert seen[-1]["data"] == {"name": "Zoë", "x": [1, None]}
    ours.wait(lambda: ours.of_type("cursor"))
    first = team.head() + 1
    team.happen(3)
    drain()
    ours.wait(lambda: len(ours.seqs()) == 3)
    assert ours.seqs() == [first, first + 1, first + 2]
    assert ours.socket.last_seq == first + 2
    ours.socket.send("ping", 7)
    ours.wait(lambda: ours.of_type("pong"))
    ours.close()


def test_a_clients_message_is_no_word_of_the_servers(
    server: str, listen: Listen, connect_to: Connect, team: Team
) -> None:
    ours = listen(server, team, team.member.token).welcomed()
    before = ours.socket.last_seq
    mean = connect_to(team, team.admin)
    for type_ in ("reset", "welcome", "heartbeat", "redacted"):
        mean.send(type_, {"seq": 10**6, "heartbeat_s": 0})
    ours.wait(lambda: len([frame for frame in ours.frames if frame["origin"] == "client"]) == 4)
    assert ours.socket.last_seq == before
    team.happen()
    drain()
    ours.wait(lambda: ours.seqs() == [team.head()])
    assert len(ours.of_type("welcome")) == 2  # one of them a client's: it never had to connect again


def test_sending_needs_a_connection_and_a_message_that_fits(server: str, listen: Listen, team: Team) -> None:
    ours = listen(server, team, team.member.token).welcomed()
    with pytest.raises(ValueError, match="16384"):
        ours.socket.send("long", "x" * 20_000)
    ours.socket.send("long", "x" * 16_000)
    ours.wait(lambda: ours.of_type("long"))
    ours.close()
    with pytest.raises(NotConnected):
        ours.socket.send("late")


def test_many_threads_may_send(server: str, listen: Listen, team: Team) -> None:
    ours = listen(server, team, team.member.token).welcomed()

    def send(sender: int) -> None:
        for number in range(10):
            ours.socket.send("note", [sender, number])

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(6)]
    for thread in threads:
        thread.start()
    ours.wait(lambda: len(ours.of_type("note")) == 60)
    assert {tuple(frame["data"]) for frame in ours.of_type("note")} == {
        (sender, number) for sender in range(6) for number in range(10)
    }


def test_closing_ends_the_iteration_at_once_also_between_two_connections(
    server: str, listen: Listen, team: Team
) -> None:
    ours = listen(server, team, team.member.token).welcomed()
    ours.close()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    away = listen(nobody, team, team.member.token, longest_pause_s=600)
    time.sleep(0.2)
    away.close()


def test_its_state_is_told_again_after_a_cut(
    proxy: Proxy, listen: Listen, connect_to: Connect, team: Team
) -> None:
    ours = listen(proxy.address, team, team.member.token)
    ours.socket.set_state("writing")
    ours.welcomed()
    proxy.cut()
    ours.welcomed(2)
    other = connect_to(team, team.viewer)
    deadline = time.monotonic() + 20
    while str(team.member.id) not in {
        person["user_id"] for person in other.hello()["presence"] if person["state"] == "writing"
    }:
        assert time.monotonic() < deadline
        other.vanish()
        time.sleep(0.1)
        other = connect_to(team, team.viewer)


# ------------------------------------------------------------------------------------------------ resuming


CUTS = int(os.environ.get("CUTS", "220"))


@pytest.mark.timeout(300 + CUTS)
def test_hundreds_of_cuts_lose_nothing_and_repeat_nothing(proxy: Proxy, listen: Listen, team: Team) -> None:
    ours = listen(proxy.address, team, team.member.token, longest_pause_s=0.01).welcomed()
    start = ours.socket.last_seq
    assert start is not None
    chance = random.Random(5)
    while proxy.cuts < CUTS:
        if team.head() - start < 800:  # else it would be told to refetch if it did not get a word in between
            team.happen(chance.randint(1, 3), name="x" * chance.choice([1, 300, 3000]))
            drain() if chance.random() < 0.7 else project()
        time.sleep(chance.uniform(0, 0.06))
        proxy.cut()
    drain()
    ours.wait(lambda: ours.socket.last_seq == team.head(), 60)
    assert ours.seqs() == list(range(start + 1, team.head() + 1))


def test_a_killed_server_loses_nothing(tmp_path: Path, listen: Listen, team: Team) -> None:
    served = Gunicorn(tmp_path / "log")
    proxy = Proxy(served.address)
    ours = listen(proxy.address, team, team.member.token).welcomed()
    start = ours.socket.last_seq
    assert start is not None
    try:
        for times in range(2, 4):  # a worker, which its master replaces
            team.happen(2)
            drain()
            for worker in workers_of(served):
                os.kill(worker, signal.SIGKILL)
            team.happen(2)
            drain()
            ours.welcomed(times)
        for process in (*workers_of(served), served.process.pid):
            os.kill(process, signal.SIGKILL)
        served.process.wait(10)
        team.happen(2)
        drain()
        served = Gunicorn(tmp_path / "second.log")
        proxy.upstream = served.address
        ours.welcomed(4)
        team.happen(2)
        drain()
        ours.wait(lambda: ours.socket.last_seq == team.head())
        assert ours.seqs() == list(range(start + 1, start + 13))
        ours.close()
    finally:
        proxy.close()
        served.stop()


def workers_of(served: Gunicorn) -> list[int]:
    children = psutil.Process(served.process.pid).children()  # type: ignore[no-untyped-call]
    return [child.pid for child in children]


def test_another_run_goes_on_where_the_last_one_ended(server: str, listen: Listen, team: Team) -> None:
    first = team.head() + 1
    team.happen(4)
    drain()
    ours = listen(server, team, team.member.token, last_seq=first)
    ours.wait(lambda: len(ours.seqs()) == 3)
    assert ours.seqs() == [first + 1, first + 2, first + 3]


def test_too_far_behind_it_is_told_to_refetch_and_goes_on(
    server: str, listen: Listen, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MOST_REPLAYED", 3)
    before = team.head()
    team.happen(5)
    drain()
    ours = listen(server, team, team.member.token, last_seq=before)
    ours.wait(lambda: ours.of_type("reset"))
    assert ours.of_type("reset")[0]["data"] == {"seq": before + 5}
    team.happen()
    drain()
    ours.wait(lambda: ours.seqs() == [before + 6])


def test_it_notices_a_gap_and_fills_it(server: str, listen: Listen, team: Team) -> None:
    ours = listen(server, team, team.member.token).welcomed()
    start = ours.socket._last_seq
    assert start is not None
    team.happen(2)
    drain()
    ours.wait(lambda: len(ours.seqs()) == 2)
    ours.socket._last_seq = start  # as if they had not come
    team.happen()
    drain()
    ours.wait(lambda: len(ours.seqs()) == 5)
    assert ours.seqs()[2:] == [start + 1, start + 2, start + 3]


@pytest.mark.usefixtures("frequent_heartbeats")
def test_a_heartbeat_tells_of_a_missed_event(server: str, listen: Listen, team: Team) -> None:
    ours = listen(server, team, team.member.token).welcomed()
    team.happen(1)
    drain()
    ours.wait(lambda: len(ours.seqs()) == 1)
    ours.socket._last_seq = team.head() - 1
    ours.wait(lambda: len(ours.seqs()) == 2)


@pytest.mark.usefixtures("frequent_heartbeats")
def test_silence_is_noticed(
    proxy: Proxy, listen: Listen, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CONNECT_WITHIN_S", 0.5)
    ours = listen(proxy.address, team, team.member.token).welcomed()
    proxy.fall_silent()
    team.happen()
    drain()
    accepted = proxy.accepted
    deadline = time.monotonic() + 20
    while proxy.accepted == accepted:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    proxy.fall_silent(False)
    ours.wait(lambda: ours.seqs() == [team.head()])


def test_it_speaks_tls_and_resumes_over_it(server: str, listen: Listen, team: Team) -> None:
    authority = trustme.CA()
    offered, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(offered)
    authority.configure_trust(trusting)
    proxy = Proxy(server, tls=offered)
    address = proxy.address.replace("127.0.0.1", "localhost")
    try:
        ours = listen(address, team, team.member.token, scheme="https", tls=trusting).welcomed()
        start = ours.socket.last_seq
        assert start is not None
        for times in range(2, 5):
            team.happen(3, name="x" * 60_000)  # several records each
            ours.socket.send("note", "x" * 16_000)
            drain()
            proxy.cut()
            ours.welcomed(times)
        ours.wait(lambda: ours.socket.last_seq == team.head())
        assert ours.seqs() == list(range(start + 1, start + 10))
        mistrusting = listen(address, team, team.member.token, scheme="https")
        assert isinstance(mistrusting.end(), ssl.SSLCertVerificationError)
    finally:
        proxy.close()


# ------------------------------------------------------------------------------------------------ refusals


def test_who_may_not_enter_is_told_so(server: str, listen: Listen, team: Team, small_app: Flask) -> None:
    for stranger in (listen(server, team, make_person(small_app).token), listen(server, team, "ahq_wrong")):
        refused = stranger.end()
        assert isinstance(refused, Refused)
        assert refused.code == 1008


def test_who_is_removed_is_told_so(server: str, listen: Listen, team: Team) -> None:
    ours = listen(server, team, team.member.token).welcomed()
    team.remove(team.member)
    refused = ours.end()
    assert isinstance(refused, Refused)
    assert refused.code == 4001


def test_an_expired_session_is_renewed_and_nothing_is_missed(server: str, listen: Listen, team: Team) -> None:
    tokens = [team.member.token, sign_in(team.member)]
    asked: list[str] = []

    def credential() -> str:
        asked.append(tokens[len(asked)] if len(asked) < len(tokens) else tokens[-1])
        return asked[-1]

    ours = listen(server, team, credential).welcomed()
    start = ours.socket.last_seq
    assert start is not None
    execute("UPDATE sessions SET expires_at = now() WHERE token_hash = :hash", hash=hash_secret(tokens[0]))
    team.happen(3)
    drain()
    ours.welcomed(2)
    team.happen(3)
    drain()
    ours.wait(lambda: ours.socket.last_seq == team.head())
    assert ours.seqs() == list(range(start + 1, start + 7))
    assert asked == tokens


def test_fresh_credentials_that_are_all_refused_are_not_tried_for_ever(
    server: str, listen: Listen, team: Team
) -> None:
    asked: list[str] = []

    def credential() -> str:
        asked.append(f"ahq_{len(asked)}")
        return asked[-1]

    assert isinstance(listen(server, team, credential).end(), Refused)
    assert len(asked) == 2


def test_a_credential_that_can_not_be_had_now_is_asked_for_again(
    server: str, listen: Listen, team: Team
) -> None:
    failures = iter([ConnectionError("sign-in away"), ConnectionError("sign-in away")])

    def credential() -> str:
        for failure in failures:
            raise failure
        return team.member.token

    listen(server, team, credential).welcomed()

    def broken() -> str:
        raise LookupError

    assert isinstance(listen(server, team, broken).end(), LookupError)


def test_an_answer_that_is_no_handshake(server: str, team: Team) -> None:
    with pytest.raises(Refused) as refused:
        next(iter(TeamSocket(f"http://{server}/elsewhere", team.id, lambda: team.member.token)))
    assert refused.value.code == 404
    with pytest.raises(ValueError, match="ftp"):
        next(iter(TeamSocket("ftp://here", team.id, lambda: team.member.token)))


def sign_in(person: Person) -> str:
    """Another session of the person's."""
    token = new_token(TOKEN_PREFIX)
    execute(
        "INSERT INTO sessions (id, user_id, token_hash, expires_at)"
        " VALUES (gen_random_uuid(), :user, :hash, now() + interval '1 day')",
        user=person.id,
        hash=hash_secret(token),
    )
    return token
