"""The demo's replay agrees with the trace to the last number, and its check can fail."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from flask import Flask

from api import demo
from api.embedded import port_problem
from tests.factories import drain

pytestmark = pytest.mark.end_to_end


@pytest.mark.timeout(300)
def test_the_stack_replays_its_own_trace(tmp_path: Path) -> None:
    port = next(port for port in range(18_000 + os.getpid() % 1_000, 65_000) if not port_problem(port))
    environment = os.environ | {"AGENTHQ_DATA": str(tmp_path), "PORT": str(port)}
    for name in ("DATABASE_URL", "REDIS_URL"):  # the tests' own; this stack brings its servers
        environment.pop(name)
    done = subprocess.run(
        [sys.executable, "-m", "api.local", "--demo"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok\n") == 32
    assert "WRONG" not in done.stdout
    assert "All agrees with the trace." in done.stdout


@pytest.fixture
def api(app: Flask) -> demo.Api:
    return demo.Api(httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test/api/v1"))


@pytest.fixture
def replayed(api: demo.Api) -> demo.Team:
    """One team's part of the trace, replayed and logged."""
    changes = [change for change in demo.read_trace(demo.OWN_TRACE) if change.team == "Beacon"]
    (team,) = demo.prepare(api, changes)
    demo.replay(api, [team], changes)
    drain()
    demo.wait_for_log(api, [team])
    return team


def wrong(figures: list[demo.Figure]) -> set[str]:
    return {figure.what for figure in figures if figure.expected != figure.reported}


def test_another_trace_than_the_replayed_one_is_reported_wrong(
    api: demo.Api, replayed: demo.Team, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = demo.compare(api, replayed)
    assert demo.print_comparison(figures)
    assert "WRONG" not in capsys.readouterr().out

    first, *others = replayed.changes
    retitled = replace(replayed, changes=[replace(first, title="Another"), *others])
    assert wrong(demo.compare(api, retitled)) == {
        "tasks completed as in the trace",
        "log: task_created in the trace's order",
        "usage: llm_tokens_used",
    }
    shorter = demo.compare(api, replace(replayed, changes=replayed.changes[:-1]))
    assert {
        "tasks",
        "log: task_started",
        "log: numbered without a gap up to",
        "usage: tasks_created",
    } <= wrong(shorter)
    assert not demo.print_comparison(shorter)
    assert "WRONG" in capsys.readouterr().out


def test_a_call_that_the_demo_did_not_make_is_reported_wrong(api: demo.Api, replayed: demo.Team) -> None:
    api.calls[replayed.id] -= 1
    assert wrong(demo.compare(api, replayed)) == {"usage: api_calls"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "can't be read"),
        ("", "has no changes"),
        ("no json\n", "line 1 is no JSON"),
        ('{"team": "A", "actor": "b", "workspace": "c", "title": "d", "files": "e"}\n', "line 1: {'files'"),
        ("[]\n", "line 1: "),
    ],
)
def test_a_trace_that_is_none_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, complaint: str
) -> None:
    trace = tmp_path / "trace.ndjson"
    if content is not None:
        trace.write_text(content)
    assert demo.main(["--trace", str(trace)]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_change_without_a_title_gets_one() -> None:
    assert demo.UNTITLED in {change.title for change in demo.read_trace(demo.OWN_TRACE)}
