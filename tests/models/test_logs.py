"""Every road into the log, and no secret at its end."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import structlog

from models.access.credentials import Credential, new_token
from models.logs import SCRUBBED, configure_logs
from models.settings import settings

TOKEN = new_token()
SECRET = "hunter2hunter2"


@dataclass
class Road:
    """Where the lines arrive, as the product configures it."""

    stream: io.StringIO

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.text.splitlines()
        parsed: dict[str, Any] = json.loads(line)
        return parsed


@pytest.fixture
def road(monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs(level="INFO", format_="json")
    yield Road(stream)
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level
    monkeypatch.undo()
    configure_logs(level=settings().log_level, format_=settings().log_format)


class Holder:
    def __repr__(self) -> str:
        return f"Holder({TOKEN})"


class Failure(Exception):
    pass


def fail() -> None:
    raise Failure(f"connecting with {TOKEN} to redis://user:{SECRET}@host/0")


def raise_and_log(log: Callable[..., Any]) -> None:
    try:
        fail()
    except Failure:
        log("it failed")


def structured() -> Any:
    return structlog.get_logger("a.test.of.ours")


def plain() -> logging.Logger:
    return logging.getLogger("a.library")


ROADS: dict[str, Callable[[], object]] = {
    "in the event": lambda: structured().info(f"signed in with {TOKEN}"),
    "in a field": lambda: structured().info("signed in", given=f"Bearer {TOKEN}"),
    "by a field's name": lambda: structured().info("x", password=SECRET, new_password=SECRET),
    "by other names": lambda: structured().info(
        "x",
        Authorization=SECRET,
        api_key=SECRET,
        apikey=SECRET,
        cookie=SECRET,
        client_secret=SECRET,
        ticket=SECRET,
    ),
    "in a nested dict": lambda: structured().info("x", body={"a": [{"password": SECRET, "t": TOKEN}]}),
    "under a nested secret name": lambda: structured().info("x", body={"tokens": {"first": SECRET}}),
    "in a tuple": lambda: structured().info("x", pair=("ok", TOKEN)),
    "in a set": lambda: structured().info("x", some={TOKEN}),
    "in bytes": lambda: structured().info("x", raw=TOKEN.encode()),
    "in an object": lambda: structured().info("x", holder=Holder()),
    "in an exception": lambda: structured().info("x", error=Failure(TOKEN)),
    "in a query": lambda: structured().info("x", url=f"/ws/1?token={SECRET}&a=b"),
    "later in a query": lambda: structured().info("x", url=f"/ws/1?a=b&token={SECRET}"),
    "a ticket in a query": lambda: structured().info("x", url=f"/ws/1?ticket={SECRET}"),
    "in a URL": lambda: structured().info("x", url=f"postgresql://agent:{SECRET}@host/name"),
    "in a URL without a user": lambda: structured().info("x", url=f"redis://:{SECRET}@host/0"),
    "in a traceback": lambda: raise_and_log(structured().exception),
    "a header": lambda: structured().info("x", headers=f"Authorization: Bearer {SECRET}"),
    "bound to the context": lambda: (
        structlog.contextvars.bind_contextvars(session=TOKEN),
        structured().info("x"),
    ),
    "positional": lambda: structured().info("signed in with %s", TOKEN),
    "of a library": lambda: plain().warning("connecting to redis://user:%s@host", SECRET),
    "of a library's request line": lambda: plain().warning('"GET /ws/1?token=%s HTTP/1.1" 101', SECRET),
    "of a library's traceback": lambda: raise_and_log(plain().exception),
    "of a library's extra": lambda: plain().warning("x", extra={"password": SECRET, "given": TOKEN}),
    "of a library's object": lambda: plain().warning("%r", Holder()),
    "of a credential": lambda: plain().warning("%s %r", Credential(TOKEN), [Credential(TOKEN)]),
}


@pytest.mark.parametrize("log", ROADS.values(), ids=ROADS)
def test_no_secret_arrives(log: Callable[[], object], road: Road) -> None:
    log()
    assert road.line["level"] in {"info", "warning", "error"}
    for form in (TOKEN, TOKEN.removeprefix("ahq_"), SECRET):
        assert form not in road.text


def test_what_is_no_secret_arrives_whole(road: Road) -> None:
    team = UUID("01234567-89ab-7def-8123-456789abcdef")
    structured().info(
        "request",
        status=200,
        ms=1.5,
        ok=True,
        none=None,
        team=team,
        url="http://host:80/a?b=c",
        body={"a": [1]},
    )
    line = road.line
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "a.test.of.ours",
        "status": 200,
        "ms": 1.5,
        "ok": True,
        "none": None,
        "team": str(team),
        "url": "http://host:80/a?b=c",
        "body": {"a": [1]},
    }


def test_a_scrubbed_line_keeps_the_rest(road: Road) -> None:
    structured().info(
        "x", url=f"redis://user:{SECRET}@host:6379/0", path=f"/ws/1?token={SECRET}&a=b", password="p"
    )
    line = road.line
    assert (line["url"], line["path"], line["password"]) == (
        f"redis://{SCRUBBED}@host:6379/0",
        f"/ws/1?token={SCRUBBED}&a=b",
        SCRUBBED,
    )


def test_a_traceback_is_text_of_its_line(road: Road) -> None:
    raise_and_log(structured().exception)
    assert "Traceback (most recent call last)" in road.line["exception"]
    assert "Failure" in road.line["exception"]


def test_levels_and_request_ids(road: Road) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structured().debug("not shown")
    plain().debug("not shown")
    plain().info("shown")
    assert (road.line["event"], road.line["request_id"]) == ("shown", "r-1")


def test_the_format_for_people_is_scrubbed_too() -> None:
    script = f"""
import structlog
from models.logs import configure_logs
configure_logs(level="INFO", format_="console")
log = structlog.get_logger("x")
log.info("with {TOKEN}", password="{SECRET}", plain="shown")
try:
    raise ValueError("{TOKEN}")
except ValueError:
    log.exception("failed")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert "shown" in done.stderr
    assert "ValueError" in done.stderr
    assert TOKEN not in done.stderr
    assert SECRET not in done.stderr
