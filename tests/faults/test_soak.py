"""Seconds of what `make soak` does for minutes; and its own checks find what they are there to find."""

from pathlib import Path

import pytest

from tests.faults import soak
from tests.faults.sockets import Seen

SECONDS, SOCKETS = 25.0, 60


@pytest.mark.end_to_end
@pytest.mark.timeout(900)  # a minute, where nothing else runs
def test_a_mixed_load_with_faults_loses_and_repeats_nothing(tmp_path: Path) -> None:
    report = soak.run(tmp_path, SECONDS, sockets=SOCKETS)
    # Memory is told, but seconds say nothing of it: processes are still filling their caches.
    assert [each for each in report.differences if " grew from " not in each] == []
    wanted = {"Redis restarted", "PostgreSQL restarted", "a web process killed", "a worker's process killed"}
    if soak.LIBFAKETIME:
        wanted |= {"a clock an hour ahead", "the clock set back"}
    assert {fault.name for fault in report.faults} == wanted
    assert len(report.seen) == SOCKETS
    assert all(each.connects >= 1 for each in report.seen)
    assert sum(each.connects for each in report.seen) > SOCKETS  # some were cut off, and came back
    assert sum(each.events for each in report.seen) > 100
    assert report.exports > 0
    assert all(len(figures) == 3 and any(figures) for figures in report.memory_mb.values())


def shown(*frames: dict[str, object], last: int) -> Seen:
    seen = Seen("a", first=last, last=last)
    for frame in frames:
        seen.show(frame)
    return seen


def test_a_socket_that_is_shown_all_in_order_has_nothing_to_say() -> None:
    seen = shown(
        {"type": "task_created", "seq": 6},
        {"type": "heartbeat", "data": {"seq": 6}},
        {"type": "redacted", "seq": 7},
        last=5,
    )
    assert (seen.wrong, seen.last, seen.events) == ([], 7, 2)
    assert soak.missed([seen], {"a": 7}) == []


def test_a_gap_a_repeat_and_what_did_not_come_are_found() -> None:
    assert shown({"type": "task_created", "seq": 7}, last=5).wrong == ["team a: 7 after 5"]
    repeated = shown({"type": "task_created", "seq": 6}, {"type": "task_created", "seq": 6}, last=5)
    assert repeated.wrong == ["team a: 6 after 6"]
    assert soak.missed([repeated], {"a": 8}) == [
        "team a: 6 after 6",
        "1 sockets of team a did not see its last events",
    ]


def test_after_a_reset_it_goes_on_from_there() -> None:
    seen = shown({"type": "reset", "data": {"seq": 900}}, {"type": "task_created", "seq": 901}, last=5)
    assert (seen.wrong, seen.last, seen.resets) == ([], 901, 1)


@pytest.mark.parametrize(
    ("figures", "grew"),
    [([100.0, 120.0, 129.0], False), ([100.0, 120.0, 131.0], True), ([20.0, 30.0, 49.0], False)],
)
def test_memory_that_grows_is_found(figures: list[float], grew: bool) -> None:
    assert bool(soak.grown({"web process": figures})) == grew
