"""A short run of what `make chaos` does for long; and the comparison finds what it is there to find."""

from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.faults import chaos, proof
from tests.faults.load import Team
from tests.faults.proof import Kept
from tests.faults.stack import VICTIMS

KILLS = 16


@pytest.mark.end_to_end
@pytest.mark.timeout(900)  # half a minute, where nothing else runs
def test_what_is_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    report = chaos.run(tmp_path, KILLS, seed=1)
    assert report.differences == []
    assert report.kills.total() == KILLS
    assert set(report.kills) == set(VICTIMS)
    assert report.answered > KILLS * chaos.BETWEEN
    assert report.unsure > 0  # or nothing was hit
    assert all(
        {"task_created", "task_started", "task_completed"} <= {action for _, _, action, *_ in kept.log}
        for kept in report.kept
    )


DAY = date(2026, 3, 1)
TASK, TITLE = "0190", "Task 1"


@pytest.fixture
def team() -> Team:
    """Told of ten calls, a task with 7 tokens and a report of 5 bytes; one call was cut off."""
    team = Team("a", "b", ("c",), answered=10, unsure=1)
    team.created[TITLE] = TASK
    team.completing[TASK] = {7}
    team.completed[TASK] = 7
    team.reported["x"] = ("storage_bytes", 5, True)
    team.request_ids = {"r1", "r2", "r3"}
    return team


@pytest.fixture
def kept() -> Kept:
    """What such a team should leave behind."""
    ledger = [
        (f"task:{TASK}:created:tasks_created", "tasks_created", 1),
        (f"task:{TASK}:completed:tasks_completed", "tasks_completed", 1),
        (f"task:{TASK}:completed:llm_tokens_used", "llm_tokens_used", 7),
        ("external:x", "storage_bytes", 5),
    ]
    log: list[Any] = [
        (1, "e1", "task_created", TASK, "r1", {}),
        (2, "e2", "task_started", TASK, "r2", {}),
        (3, "e3", "task_completed", TASK, "r3", {"llm_tokens_used": 7}),
    ]
    tasks = [(TASK, TITLE, "completed", 1, 7, {"tokens": 7})]
    return Kept(10, ledger, tasks, log, 3, [(DAY, "api_calls", 10, 10, 10)], 10)


def test_what_agrees_is_no_difference(team: Team, kept: Kept) -> None:
    assert proof.differences(team, kept) == []
    assert proof.differences(team, replace(kept, calls=11, quota=11)) == []  # the one that was cut off


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"calls": 9, "quota": 9}, "10 calls answered, 1 unsure, 9 counted"),
        ({"calls": 12, "quota": 12}, "10 calls answered, 1 unsure, 12 counted"),
        ({"quota": 9}, "the quota says 9"),
        ({"days": [(DAY, "api_calls", 10, 9, 10)]}, "daily 9"),
        ({"days": [(DAY, "api_calls", 10, 10, 11)]}, "breakdown 11"),
        ({"tasks": []}, "was created, and is not there"),
        ({"tasks": [(TASK, TITLE, "processing", 1, 7, None)]}, "is processing with 7"),
        ({"tasks": [(TASK, TITLE, "completed", 1, 8, {"tokens": 8})]}, "which nobody reported"),
        ({"ledger": []}, "None by the ledger"),
        ({"ledger": [("external:y", "storage_bytes", 5)]}, "which was not reported so"),
        ({"ledger": [("external:x", "storage_bytes", 6)]}, "which was not reported so"),
        ({"log": []}, "its head is 3"),
        ({"head": 4}, "its head is 4"),
    ],
)
def test_what_does_not_agree_is_found(team: Team, kept: Kept, changes: dict[str, Any], told: str) -> None:
    assert told in "\n".join(proof.differences(team, replace(kept, **changes)))


def test_what_is_there_twice_is_found(team: Team, kept: Kept) -> None:
    """A task, a ledger row, an event, and what a request did."""
    again = "0191"
    twice = replace(kept, tasks=[*kept.tasks, (again, TITLE, "pending", 0, 0, None)])
    assert f"{TITLE} is there 2 times" in "\n".join(proof.differences(team, twice))
    twice = replace(kept, ledger=[*kept.ledger, kept.ledger[-1]])
    assert "a key is in the ledger twice" in "\n".join(proof.differences(team, twice))
    seq, event_id, *rest = kept.log[-1]
    twice = replace(kept, log=[*kept.log, (seq + 1, event_id, *rest)], head=4)
    found = "\n".join(proof.differences(team, twice))
    assert "an event is in the log twice" in found
    assert "is in the log 2 times" in found
    assert "'task_completed': 2" in found


def test_a_log_that_tells_of_something_else_is_found(team: Team, kept: Kept) -> None:
    strange: Any = (4, "e4", "task_created", "0192", "r9", {})
    found = "\n".join(proof.differences(team, replace(kept, log=[*kept.log, strange], head=4)))
    assert "tells of task 0192, which is not there" in found
    strange = (4, "e4", "task_updated", TASK, "r9", {})
    found = "\n".join(proof.differences(team, replace(kept, log=[*kept.log, strange], head=4)))
    assert "names the request r9, which nobody made" in found


def test_what_was_answered_and_is_missing_is_found(team: Team, kept: Kept) -> None:
    team.reported["y"] = ("storage_bytes", 1, True)
    team.stale.append("3 calls were answered, 2 shown")
    team.failed.add(TASK)
    team.statuses[500] = 2
    found = "\n".join(proof.differences(team, kept))
    assert "2 calls were answered 500" in found
    assert "y was accepted, and is not counted" in found
    assert "3 calls were answered, 2 shown" in found
    assert "was failed, and is completed" in found


def test_the_report_adds_up(team: Team) -> None:
    team.statuses = Counter({200: 2, "cut off": 1})
    report = chaos.Report(1.0, Counter(), {}, [team, team], [], [])
    assert (report.answered, report.unsure) == (20, 2)
    assert report.statuses == {200: 4, "cut off": 2}
