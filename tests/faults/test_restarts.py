"""Every process restarted in order under load: no call fails, no event is lost, and sockets come back to what they missed."""

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from realtime.client import TeamSocket
from tests.faults import chaos, proof
from tests.faults.load import UNANSWERED, Client, Team, make_teams
from tests.faults.stack import Stack, eventually, free_port, running

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(500)]
CLIENTS, TEAMS = 4, 2
WITHIN_S = 120.0


class Listener(threading.Thread):
    """A socket of the team that notes the number of each event it is shown, and how often it had to connect."""

    def __init__(self, url: str, team: Team) -> None:
        super().__init__(daemon=True)
        self.seqs: list[int] = []
        self.welcomes = 0
        self.error: BaseException | None = None
        self.socket = TeamSocket(url, team.id, lambda: team.credentials[0], longest_pause_s=1)

    def run(self) -> None:
        try:
            for frame in self.socket:
                if "seq" in frame and frame["type"] not in {"welcome", "heartbeat", "pong"}:
                    self.seqs.append(frame["seq"])
                self.welcomes += frame["type"] == "welcome"
        except BaseException as error:  # noqa: BLE001  whoever joins raises it
            self.error = error


def pids(stack: Stack, name: str) -> set[int]:
    """Of the program and its children."""
    program = stack.program(name)
    return {program.pid, *(child.pid for child in stack.children(name))} if program else set()


def reload_web(stack: Stack) -> None:
    """New web processes with the code as it is now, then the old ones finish what they are at: gunicorn's own way."""
    program = stack.program("web")
    assert program
    program.send_signal(signal.SIGHUP)  # type: ignore[no-untyped-call]
    before = {child.pid for child in stack.children("web")}
    eventually(
        lambda: len(stack.children("web")) == len(before) and not before & pids(stack, "web"),
        WITHIN_S,
        "reloaded",
    )


def ended(name: str) -> Callable[[Stack], None]:
    """Told to stop; it finishes what it is at, and supervisord starts another."""

    def restart(stack: Stack) -> None:
        before = pids(stack, name)
        program = stack.program(name)
        assert program
        program.terminate()  # type: ignore[no-untyped-call]
        eventually(lambda: bool(found := pids(stack, name)) and not before & found, WITHIN_S, f"{name} again")

    return restart


RESTARTS: Mapping[str, Callable[[Stack], None]] = {
    "web": reload_web,
    "worker": ended("worker"),
    "beat": ended("beat"),
    "web again": reload_web,
}


def await_answers(clients: Sequence[Client], what: str) -> None:
    """Returns once the clients were given some more answers."""
    before = chaos.answers(clients)
    eventually(lambda: chaos.answers(clients) > before + 20, WITHIN_S, what)


def await_shown(listener: Listener, head: int) -> None:
    """Returns once the listener was shown the log up to its head."""
    eventually(lambda: bool(listener.seqs) and listener.seqs[-1] >= head, 30, "shown")


def test_no_call_fails_and_no_event_is_lost(tmp_path: Path) -> None:
    with running(tmp_path, free_port()) as stack:
        teams = make_teams(stack.url, TEAMS)
        listeners = [Listener(stack.url, team) for team in teams]
        for listener in listeners:
            listener.start()
        eventually(lambda: all(listener.welcomes for listener in listeners), WITHIN_S, "connected")
        clients = [Client(stack.url, teams[number % TEAMS], number) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for name, restart in RESTARTS.items():
            await_answers(clients, f"load before {name}")
            restart(stack)
            eventually(stack.is_ready, WITHIN_S, f"ready after {name}")
            await_answers(clients, f"load after {name}")
        for client in clients:
            client.stop()
        for client in clients:
            client.join()
            assert client.error is None
        eventually(lambda: chaos.is_settled(stack), WITHIN_S, "everything projected and folded")
        with stack.database() as database:
            kept = [proof.read(database, team) for team in teams]
        for team, of_it, listener in zip(teams, kept, listeners, strict=True):
            assert proof.differences(team, of_it) == []
            failed = {
                status: count
                for status, count in team.statuses.items()
                if status == UNANSWERED or int(status) >= 500
            }
            assert (failed, team.unsure) == ({}, 0)
            assert of_it.calls == team.answered
            await_shown(listener, of_it.head)
            assert listener.seqs == list(range(listener.seqs[0], listener.seqs[-1] + 1))
            assert listener.welcomes >= 3  # once, and after each reload of the web processes
            assert listener.error is None
            listener.socket.close()
