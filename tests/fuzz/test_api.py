"""
The whole API under schemathesis, as each kind of caller: no server error, and every answer as docs/openapi.json says.

`make check` goes a short way that is the same each time; `make fuzz` goes on for as long as it is told to.
"""

import pytest
from flask import Flask

from tests.fuzz.campaign import LONG, run
from tests.fuzz.scene import CALLERS, make_scene

OPERATIONS = 143
"""At the least; there may be more."""


@pytest.mark.timeout(0 if LONG else 240)
@pytest.mark.parametrize("caller", CALLERS)
def test_every_answer_is_documented(app: Flask, caller: str) -> None:
    found = run(app, make_scene(app, caller), "fuzzing", *(["coverage"] if LONG else []))
    assert not found.failures, str(found)
    assert len(found.statuses) >= OPERATIONS
    succeeded = [
        name for name, statuses in found.statuses.items() if any(status < 300 for status in statuses)
    ]
    assert len(succeeded) >= {"nobody": 3, "outsider": 12, "viewer": 30, "member": 40}.get(caller, 60), (
        sorted(succeeded)
    )
