"""Clients that work all the while and note what they were answered, so that it can be compared with what was kept."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

PATIENCE_S = 120.0
"""How long a client asks again for an answer that it insists on."""
LEASE_S = 5
TIMEOUT_S = 15.0
"""Longer than the product takes to say that it can't count a call (api/metering.py)."""
UNANSWERED = "cut off"


@dataclass
class Team:
    """What a team's clients asked for and were told. What was cut off may have come to be or not."""

    id: str
    workspace_id: str
    credentials: Sequence[str]
    lock: threading.Lock = field(default_factory=threading.Lock)
    answered: int = 0
    """Calls that count: those answered below 500 and not 429."""
    unsure: int = 0
    """Calls that were cut off or refused with 5xx: counted or not, nobody was told."""
    statuses: Counter[int | str] = field(default_factory=Counter)
    created: dict[str, str | None] = field(default_factory=dict)
    """A task's id by its title, which is unique; None where no answer came."""
    completing: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By task: the tokens that each attempt to complete it said."""
    completed: dict[str, int] = field(default_factory=dict)
    """By task: the tokens of the attempt that was answered with success."""
    failed: set[str] = field(default_factory=set)
    reported: dict[str, tuple[str, int, bool]] = field(default_factory=dict)
    """By external_id: metric, quantity, and whether it was ever answered with success."""
    request_ids: set[str] = field(default_factory=set)
    stale: list[str] = field(default_factory=list)
    """Reads of the usage that showed fewer calls than were answered before they began, and exports and invoices that were wrong."""

    @property
    def path(self) -> str:
        return f"/api/v1/teams/{self.id}"


class Client(threading.Thread):
    """One connection, one request at a time, until told to stop."""

    def __init__(self, url: str, team: Team, seed: int, *, pause_s: float = 0.0) -> None:
        """It rests `pause_s` after each piece of work."""
        super().__init__(name=f"client {seed}", daemon=True)
        self.team = team
        self._pause_s = pause_s
        self.error: BaseException | None = None
        self._going = threading.Event()
        self._going.set()
        self._random = random.Random(seed)
        credential = team.credentials[seed % len(team.credentials)]
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {credential}"},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    def stop(self) -> None:
        self._going.clear()

    def run(self) -> None:
        works = self.works()
        try:
            with self._http:
                while self._going.is_set():
                    self._random.choice(works)()
                    time.sleep(self._pause_s)
        except BaseException as error:  # noqa: BLE001  whoever joins raises it
            self.error = error

    def works(self) -> Sequence[Callable[[], None]]:
        """What it does, by chance one or another."""
        return (self._create, self._create, self._work, self._work, self._report, self._read, self._err)

    def ask(self, method: str, path: str, *, key: str | None = None, **request: Any) -> httpx.Response | None:
        """One attempt; None when the answer was cut off. `path` begins after the team's."""
        request_id = uuid4().hex
        headers = {"X-Request-Id": request_id} | ({"Idempotency-Key": key} if key else {})
        answer: httpx.Response | None = None
        with suppress(httpx.TransportError):
            answer = self._http.request(method, self.team.path + path, headers=headers, **request)
        counts = answer is not None and answer.status_code < 500 and answer.status_code != 429
        with self.team.lock:
            self.team.request_ids.add(request_id)
            self.team.statuses[UNANSWERED if answer is None else answer.status_code] += 1
            self.team.answered += counts
            self.team.unsure += answer is None or answer.status_code >= 500
        if not counts:
            time.sleep(0.05)  # a client that hammers a server that is down measures nothing
        return answer

    def insist(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Asks again under one Idempotency-Key until there is an answer, as a client should."""
        key, give_up = uuid4().hex, time.monotonic() + PATIENCE_S
        while True:
            answer = self.ask(method, path, key=key, **request)
            if answer is not None and answer.status_code < 500 and "still running" not in answer.text:
                return answer
            assert time.monotonic() < give_up, f"{method} {path} is not answered"
            time.sleep(0.1)

    def _either(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        return (self.insist if self._random.random() < 0.5 else self.ask)(method, path, **request)

    def _create(self) -> None:
        title = f"Task {uuid4().hex}"
        self.team.created[title] = None
        path = f"/workspaces/{self.team.workspace_id}/tasks"
        answer = self._either("POST", path, json={"title": title})
        if answer is not None and answer.status_code == 201:
            self.team.created[title] = answer.json()["id"]

    def _work(self) -> None:
        """Claims a task and completes it, mostly; or fails it, or forgets it until its lease runs out."""
        claimed = self.ask(
            "POST", f"/workspaces/{self.team.workspace_id}/tasks/claim", json={"lease_s": LEASE_S}
        )
        if claimed is None or claimed.status_code != 200:
            return
        task_id, lease_id = claimed.json()["id"], claimed.json()["lease_id"]
        fate = self._random.random()
        if fate < 0.05:
            return
        if fate < 0.15:
            answer = self._either(
                "POST", f"/tasks/{task_id}/fail", json={"lease_id": lease_id, "error": "No"}
            )
            if answer is not None and answer.status_code == 200:
                self.team.failed.add(task_id)
            return
        tokens = self._random.randint(1, 100_000)
        body = {"lease_id": lease_id, "llm_tokens_used": tokens, "result": {"tokens": tokens}}
        with self.team.lock:
            self.team.completing[task_id].add(tokens)
        answer = self._either("POST", f"/tasks/{task_id}/complete", json=body)
        if answer is not None and answer.status_code == 200:
            self.team.completed[task_id] = tokens

    def _report(self) -> None:
        events = [
            {
                "external_id": uuid4().hex,
                "metric": self._random.choice(("llm_tokens_used", "storage_bytes")),
                "quantity": self._random.randint(1, 1_000_000),
            }
            for _ in range(self._random.randint(1, 5))
        ]
        self._note_reported(events, sure=False)
        answer = self._either("POST", "/usage", json={"events": events})
        if self._random.random() < 0.3:  # sent twice, counted once; and what was cut off, made sure of
            answer = self._either("POST", "/usage", json={"events": events}) or answer
        if answer is not None and answer.status_code == 202:
            self._note_reported(events, sure=True)

    def _note_reported(self, events: Sequence[dict[str, Any]], *, sure: bool) -> None:
        for event in events:
            self.team.reported[event["external_id"]] = (event["metric"], event["quantity"], sure)

    def _read(self) -> None:
        if self._random.random() < 0.5:
            self.ask("GET", "")
            return
        with self.team.lock:
            answered = self.team.answered
        since, until = (datetime.now(UTC).date() + timedelta(days=days) for days in (-2, 1))
        answer = self.ask("GET", "/usage", params={"from": str(since), "to": str(until)})
        if answer is not None and answer.status_code == 200:
            shown = sum(day["api_calls"] for day in answer.json()["items"])
            if shown < answered:
                self.team.stale.append(f"{answered} calls were answered, {shown} shown")

    def _err(self) -> None:
        """Calls whose answers are errors count as well."""
        if self._random.random() < 0.5:
            self.ask("GET", f"/tasks/{uuid4()}")
        else:
            self.ask("POST", f"/workspaces/{self.team.workspace_id}/tasks", json={"title": ""})


def make_teams(url: str, number: int) -> list[Team]:
    """Each with an owner, a workspace and, besides the owner's session, an API key."""
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http:
        return [_make_team(http) for _ in range(number)]


def _make_team(http: httpx.Client) -> Team:
    def post(path: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
        answer = http.post(f"/api/v1{path}", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()

    email, password = f"{uuid4().hex}@example.com", uuid4().hex
    token = post("/auth/register", email=email, password=password, name="Owner")["token"]
    owner = {"Authorization": f"Bearer {token}"}
    team_id = post("/teams", owner, name="Chaos")["id"]
    workspace_id = post(f"/teams/{team_id}/workspaces", owner, name="Chaos")["id"]
    permissions = ["teams:read", "tasks:read", "tasks:create", "tasks:update", "usage:read", "usage:create"]
    key = post(f"/teams/{team_id}/api-keys", owner, name="Agent", permissions=permissions)["key"]
    team = Team(team_id, workspace_id, (token, key))
    team.answered = 2  # the workspace and the key
    return team
