"""Calls that follow from each other's answers: what is made is used, changed, deleted and used again."""

import pytest
from flask import Flask

from tests.fuzz.campaign import LONG, run
from tests.fuzz.scene import make_scene


@pytest.mark.timeout(0 if LONG else 240)
@pytest.mark.parametrize("caller", ["admin", "member", "key"] if LONG else ["admin"])
def test_every_answer_to_calls_that_follow_from_others_is_documented(app: Flask, caller: str) -> None:
    found = run(app, make_scene(app, caller), "stateful")
    assert not found.failures, str(found)
    assert found.calls > 20
