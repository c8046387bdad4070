"""The browsers' client (api/static/realtime.js), run by node against a real server."""

import json
import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from models.access.credentials import hash_secret
from realtime import hub
from tests.realtime.conftest import Connect, Team, drain, execute, serving
from tests.realtime.test_client import Proxy, sign_in

MODULE = Path(__file__).parents[2] / "api" / "static" / "realtime.js"
NODE = shutil.which("node")
FIRST_WITH_WEBSOCKET = (20, 10)

PROGRAM = """
import { createInterface } from "node:readline";
const [module, origin, teamId, tokens, options] = process.argv.slice(1).map((each) => JSON.parse(each));
const { TeamSocket, ticketsFrom } = await import(module);
const ticket = ticketsFrom(origin, teamId, () => (tokens.length > 1 ? tokens.shift() : tokens[0]));
const team = new TeamSocket(origin, teamId, { ticket, longestPauseMs: 50, ...options });
const show = (kind, detail) => console.log(JSON.stringify({ kind, detail, people: [...team.people], lastSeq: team.lastSeq }));
for (const kind of ["event", "message", "presence", "welcome", "reset", "error", "pong", "status"]) {
  team.addEventListener(kind, ({ detail }) => show(kind, detail));
}
team.addEventListener("refused", ({ detail }) => show("refused", { code: detail.code }));
createInterface({ input: process.stdin }).on("line", (line) => {
  const [method, ...given] = JSON.parse(line);
  try { team[method](...given); } catch (error) { show("thrown", error.name); }
}).on("close", () => process.exit());
team.open();
"""


def test_the_module_is_served_to_browsers(client: FlaskClient) -> None:
    with client.get("/static/realtime.js") as served:
        assert (served.status_code, served.mimetype) == (200, "text/javascript")
        assert served.data == MODULE.read_bytes()
        assert served.headers["Cache-Control"] == "no-cache"
        etag = served.headers["ETag"]
    with client.get("/static/realtime.js", headers={"If-None-Match": etag}) as again:
        assert (again.status_code, again.data) == (304, b"")
    for elsewhere in ("nothing.js", "../assets.py", "%2e%2e/assets.py", ""):
        assert client.get(f"/static/{elsewhere}").status_code == 404


def node() -> list[str]:
    """The command that runs a module with a WebSocket; skips where there is none."""
    if NODE is None:
        pytest.skip("node is not installed")
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = map(int, re.findall(r"\d+", version)[:2])
    if (major, minor) < FIRST_WITH_WEBSOCKET:
        pytest.skip(f"node {version.strip()} has no WebSocket")
    return [NODE, *(["--experimental-websocket"] if major < 22 else []), "--input-type=module"]


@pytest.fixture(scope="module")
def api_server(app: Flask) -> Iterator[str]:
    """The address of the whole application: tickets are asked of its API."""
    with serving(app) as address:
        yield address


@pytest.fixture
def proxy(api_server: str) -> Iterator[Proxy]:
    proxy = Proxy(api_server)
    yield proxy
    proxy.close()


class Page:
    """A program that uses the module, as a page does."""

    def __init__(self, address: str, team: Team, *tokens: str, **options: Any) -> None:
        arguments = (MODULE.as_uri(), f"http://{address}", str(team.id), tokens, options)
        self._process = subprocess.Popen(
            [*node(), "-e", PROGRAM, *map(json.dumps, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.shown: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._changed:
                self.shown.append(json.loads(line))
                self._changed.notify_all()

    def call(self, method: str, *arguments: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()

    def of_kind(self, kind: str) -> list[Any]:
        return [each["detail"] for each in self.shown if each["kind"] == kind]

    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.of_kind("event")]

    @property
    def last_seq(self) -> int:
        last_seq: int = self.shown[-1]["lastSeq"]
        return last_seq

    def people(self) -> dict[str, Any]:
        return dict(self.shown[-1]["people"]) if self.shown else {}

    def wait(self, condition: Callable[[], object], seconds: float = 30) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, seconds), self.shown[-3:]

    def welcomed(self, times: int = 1) -> "Page":
        self.wait(lambda: len(self.of_kind("welcome")) >= times)
        return self

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._reader.join(10)
        self._process.stdout.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page() -> Iterator[Open]:
    opened: list[Page] = []

    def open_page(*arguments: Any, **options: Any) -> Page:
        opened.append(Page(*arguments, **options))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


def test_it_shows_what_its_team_sees_and_who_is_there(
    api_server: str, open_page: Open, connect_to: Connect, team: Team
) -> None:
    page = open_page(api_server, team, team.member.token).welcomed()
    page.wait(lambda: str(team.member.id) in page.people())
    other = connect_to(team, team.viewer, address=api_server)
    other.hello()
    page.wait(lambda: str(team.viewer.id) in page.people())
    page.call("setState", "writing")
    page.wait(lambda: page.people()[str(team.member.id)] == {"state": "writing", "devices": 1})
    other.vanish()
    page.wait(lambda: str(team.viewer.id) not in page.people())
    first = team.head() + 1
    team.happen(3)
    drain()
    page.wait(lambda: page.seqs() == [first, first + 1, first + 2])
    page.call("send", "cursor", {"name": "Zoë"})
    page.wait(lambda: page.of_kind("message"))
    assert page.of_kind("message")[0]["data"] == {"name": "Zoë"}
    page.call("send", "long", "x" * 20_000)
    page.wait(lambda: page.of_kind("thrown") == ["RangeError"])
    page.call("close")
    page.wait(lambda: page.of_kind("status") == ["connecting", "connected", "closed"])


def test_a_clients_message_is_no_word_of_the_servers(
    api_server: str, open_page: Open, connect_to: Connect, team: Team
) -> None:
    page = open_page(api_server, team, team.member.token).welcomed()
    before = page.last_seq
    mean = connect_to(team, team.admin, address=api_server)
    for type_ in ("reset", "welcome", "heartbeat", "redacted", "presence_left"):
        mean.send(type_, {"seq": 10**6, "heartbeat_s": 0, "presence": []})
    page.wait(lambda: len(page.of_kind("message")) == 5)
    assert page.last_seq == before
    assert not page.of_kind("reset")


@pytest.mark.timeout(300)
def test_a_hundred_cuts_lose_nothing_and_repeat_nothing(proxy: Proxy, open_page: Open, team: Team) -> None:
    page = open_page(proxy.address, team, team.member.token, longestPauseMs=10).welcomed()
    start = page.last_seq
    chance = random.Random(5)
    for turn in range(100):
        team.happen(chance.randint(1, 3), name="x" * chance.choice([1, 3000]))
        drain()
        time.sleep(chance.uniform(0, 0.1))
        welcomes = len(page.of_kind("welcome"))
        proxy.cut()
        if turn % 5 == 0:  # in between it may not get that far
            page.welcomed(welcomes + 1)
    team.happen()
    drain()
    page.wait(lambda: page.last_seq == team.head(), 60)
    assert page.seqs() == list(range(start + 1, team.head() + 1))


def test_silence_is_noticed(
    proxy: Proxy, open_page: Open, team: Team, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "HEARTBEAT_S", 0.3)
    page = open_page(proxy.address, team, team.member.token).welcomed()
    proxy.fall_silent()
    team.happen()
    drain()
    page.wait(lambda: "waiting" in page.of_kind("status"))
    proxy.fall_silent(False)
    proxy.cut()  # or node waits for the ticket that was swallowed
    page.wait(lambda: page.seqs() == [team.head()])


def test_too_far_behind_it_is_told_to_refetch_and_goes_on(
    api_server: str, open_page: Open, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MOST_REPLAYED", 3)
    before = team.head()
    team.happen(5)
    drain()
    page = open_page(api_server, team, team.member.token, lastSeq=before)
    page.wait(lambda: page.of_kind("reset"))
    team.happen()
    drain()
    page.wait(lambda: page.seqs() == [before + 6])


def test_who_is_removed_is_told_so(api_server: str, open_page: Open, team: Team) -> None:
    page = open_page(api_server, team, team.member.token).welcomed()
    team.remove(team.member)
    page.wait(lambda: page.of_kind("refused") == [{"code": 404}])
    page.wait(lambda: page.of_kind("status")[-1] == "closed")


def test_an_expired_session_is_renewed_and_nothing_is_missed(
    api_server: str, open_page: Open, team: Team
) -> None:
    tokens = [team.member.token, sign_in(team.member)]
    page = open_page(api_server, team, *tokens).welcomed()
    start = page.last_seq
    execute("UPDATE sessions SET expires_at = now() WHERE token_hash = :hash", hash=hash_secret(tokens[0]))
    team.happen(3)
    drain()
    page.welcomed(2)
    team.happen(3)
    drain()
    page.wait(lambda: page.last_seq == team.head())
    assert page.seqs() == list(range(start + 1, start + 7))
