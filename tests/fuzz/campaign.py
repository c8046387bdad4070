"""One run of schemathesis's engine against the application in this process, as one caller."""

import os
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from flask import Flask
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from tests.fuzz.scene import Scene

PHASES = ("examples", "coverage", "fuzzing", "stateful")
LONG = bool(os.environ.get("FUZZ"))
"""`make fuzz` looks for what is new, for as long as it is told to; `make check` goes the same short way each time."""
CASES = int(os.environ.get("CASES") or (20 if LONG else 2))
"""Examples of each operation and caller."""
WALKS = 6
"""Times CASES, where an example is a walk through the API and no operation's own."""
SECONDS = int(os.environ.get("SECONDS") or 0) or None
"""How long each phase of each caller goes on; None: until it has had its cases."""
SEED = int(os.environ.get("SEED") or (random.getrandbits(32) if LONG else 1))

CHECKS = {
    # It wants to know who may do what: tests/api/test_walk.py asks that of every route and every kind of caller.
    "ignored_auth": False,
    "object_level_authorization": False,
    # Whether data that a schema allows are right is for more than the schema to say: a token, a state, somebody's id.
    "positive_data_acceptance": False,
    # It takes a 404 of one resource for the absence of another that the same call names.
    "ensure_resource_availability": False,
}
"""What is not looked for, of all that schemathesis knows. The others are on: among them, no 5xx, and every status, content
type, header and body as documented."""


@dataclass
class Found:
    calls: int = 0
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """By operation."""
    failures: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Each kind of them once, with the calls that show it."""

    def __str__(self) -> str:
        shown = [f"{': '.join(key)}\n{how}" for key, how in self.failures.items()]
        return f"{len(shown)} kinds of failures in {self.calls} calls (SEED={SEED}):\n\n" + "\n\n".join(shown)

    def add(self, finished: events.ScenarioFinished) -> None:
        recorder = finished.recorder
        self.calls += len(recorder.interactions)
        for id_, interaction in recorder.interactions.items():
            if interaction.response is not None:
                operation = recorder.cases[id_].value.operation.label
                self.statuses[operation][interaction.response.status_code] += 1
        for checks in recorder.checks.values():
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    key = (failure.operation or "", failure.title, failure.message)
                    self.failures.setdefault(key, check.failure_info.code_sample)


def run(app: Flask, scene: Scene, *phases: str) -> Found:
    """Calls every operation as the scene's caller; what it found, failures and all."""
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app, config=_config(scene, phases))

    @schema.hook("after_call")
    def after_call(_context: Any, case: Any, response: Any) -> None:
        if case.method != "GET" and response.status_code < 300:
            scene.heal()

    found = Found()
    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished():
                found.add(event)
            case events.NonFatalError() | events.FatalError():
                raise RuntimeError(f"the fuzzer itself failed: {event}")
    return found


def _config(scene: Scene, phases: tuple[str, ...]) -> SchemathesisConfig:
    known = {
        f"{where}.{name}": {"dictionary": name, "probability": 0.9 if where == "path" else 0.5}
        for name in scene.known
        for where in ("path", "query", "body")
    }
    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            **({"max-time": SECONDS} if SECONDS else {}),
            "workers": 1,
            "continue-on-failure": True,
            "headers": {"Authorization": f"Bearer {scene.caller.token}"} if scene.caller else {},
            "dictionaries": {name: {"values": values} for name, values in scene.known.items()},
            "parameters": known,
            "generation": {
                "max-examples": CASES * (WALKS if phases == ("stateful",) else 1),
                "deterministic": not LONG,
                "database": "none",
                "no-shrink": True,
            },
            "phases": {phase: {"enabled": phase in phases} for phase in PHASES},
            "checks": {name: {"enabled": enabled} for name, enabled in CHECKS.items()},
            "suppress-health-check": ["all"],
            "cache": {"enabled": False},  # what an earlier run learned makes this one another
        }
    )
