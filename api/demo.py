"""The demo: `python -m api.demo` replays a trace of work through the HTTP API, then checks what the API reports of it.

A trace is newline-delimited JSON, gzipped or not, a change a line:

    {"team": "Atlas", "actor": "mei", "workspace": "answers", "title": "First draft of the answer prompt", "files": 2}

Each team becomes a team, each actor a member of the teams that they work in (the first one the owner), each workspace a
workspace, and each change a task that its actor creates, starts and completes. What the API then says of tasks, log and
usage must agree with the trace to the last number. The users are new in each run, so it can be repeated on the same data.
"""

# ruff: noqa: T201 (what it finds is for the person at the terminal)

import argparse
import gzip
import re
import secrets
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from operator import eq
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import orjson
from marshmallow import EXCLUDE, Schema, ValidationError
from tqdm import tqdm

from api.schemas.base import Integer, Text
from models.plans import DEFAULT_PLAN, PLANS

T = TypeVar("T")
R = TypeVar("R")

OWN_TRACE = Path(__file__).with_name("demo_trace.ndjson")
THREADS = 8
CHUNK = 1_000
"""How many units of work wait in the thread pool: a bound on memory, whatever the trace's length."""
PAGE = 200
POLL_S = 0.2
PATIENCE_S = 60.0
"""How long the log may stand still, with events missing, before it counts as stuck."""
TOKENS_PER_FILE = 1_200
UNTITLED = "(no title)"
TEAM_PATH = re.compile(r"/teams/([^/]+)")
COUNTERS = ("tasks_created", "tasks_completed", "llm_tokens_used", "api_calls")


class TraceError(Exception):
    """Why a trace can't be replayed, worded for the person at the terminal."""


class ApiError(Exception):
    """The API refuses what the demo may do, or its log does not follow."""


def main(argv: Sequence[str] | None = None) -> int:
    """Replays and checks; 0 if all agrees, 1 if it does not or the API fails, 2 for a trace that can't be read."""
    arguments = _parse(argv)
    try:
        changes = read_trace(arguments.trace, arguments.limit)
        with httpx.Client(base_url=f"{arguments.url}/api/v1", timeout=60, trust_env=False) as client:
            return 0 if demonstrate(Api(client), changes) else 1
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ApiError, httpx.HTTPError) as error:
        print(f"error: {arguments.url}: {error or repr(error)}", file=sys.stderr)
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m api.demo", description="Replays a trace through the API and checks what it reports."
    )
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="where the API is (default: %(default)s)"
    )
    parser.add_argument(
        "--trace", type=Path, default=OWN_TRACE, help="NDJSON, gzipped or not (default: a small one)"
    )
    parser.add_argument("--limit", type=int, help="replay only the first so many changes")
    return parser.parse_args(argv)


def demonstrate(api: "Api", changes: Sequence["Change"]) -> bool:
    """Replays, waits for the log and prints what agrees, with times and rates; whether all of it does."""
    print(f"{len(changes):,} changes by {len({change.actor for change in changes}):,} people")
    begun = time.perf_counter()
    teams = prepare(api, changes)
    prepared, requests = time.perf_counter(), api.requests
    replay(api, teams, changes)
    replayed, requests = time.perf_counter(), api.requests - requests
    wait_for_log(api, teams)
    logged = time.perf_counter()
    agreed = print_comparison(check(api, teams))
    ended = time.perf_counter()
    seconds = replayed - prepared
    print(
        f"People, teams and workspaces made in {prepared - begun:.1f} s.\n"
        f"Changes replayed in {seconds:.1f} s: {len(changes) / seconds:,.1f} changes/s, {requests / seconds:,.1f} requests/s.\n"
        f"The log was complete {logged - replayed:.2f} s after the last answer; checked in {ended - logged:.1f} s.\n"
        f"Altogether {api.requests:,} requests in {ended - begun:.1f} s: {api.requests / (ended - begun):,.1f} requests/s.\n"
        + ("All agrees with the trace." if agreed else "WRONG: not all agrees with the trace.")
    )
    return agreed


# The trace


@dataclass(frozen=True, slots=True)
class Change:
    """A line of the trace."""

    team: str
    actor: str
    workspace: str
    title: str
    files: int

    @property
    def tokens(self) -> int:
        """What the task is said to have used: made up, but the same in each run."""
        return self.files * TOKENS_PER_FILE + len(self.title)


class ChangeSchema(Schema):
    """What a line must hold, by the rules of the API that takes it; what else it holds is its own affair."""

    class Meta:
        unknown = EXCLUDE

    team = Text(required=True, maximum=255)
    actor = Text(required=True, maximum=255)
    workspace = Text(required=True, maximum=255)
    title = Text(required=True, minimum=0, maximum=500)
    files = Integer(required=True, minimum=0, maximum=10**9)


def read_trace(path: Path, limit: int | None = None) -> list[Change]:
    """The first `limit` changes; raises TraceError with the line that is none."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            changes = [_change(path, number, line) for number, line in enumerate(islice(file, limit), 1)]
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path} can't be read: {error}") from error
    except ValueError as error:  # a negative limit
        raise TraceError(str(error)) from error
    if not changes:
        raise TraceError(f"{path} has no changes to replay")
    return changes


def _change(path: Path, number: int, line: bytes) -> Change:
    try:
        values = ChangeSchema().load(orjson.loads(line))
    except ValidationError as error:
        raise TraceError(f"{path}, line {number}: {error.messages}") from error
    except orjson.JSONDecodeError as error:
        raise TraceError(f"{path}, line {number} is no JSON: {error}") from error
    return Change(**values | {"title": values["title"] or UNTITLED})


# The replay


class Api:
    """The API as many people's client; remembers what it asked for, since the API must have counted the same."""

    def __init__(self, client: httpx.Client) -> None:
        self.begun = datetime.now(UTC)
        self.requests = 0
        self.calls: Counter[str] = Counter()
        """By team id, by the rule that the API counts by: answered below 500 and not 429."""
        self._client = client
        self._lock = threading.Lock()

    def call(self, method: str, path: str, token: str | None = None, body: Any = None, **query: Any) -> Any:
        """The answer's JSON, once the rate limit lets it through; raises ApiError for a refusal."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        while True:
            answer = self._client.request(method, path, headers=headers, json=body, params=query)
            self._count(path, answer.status_code)
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        if answer.is_error:
            raise ApiError(f"{method} {path} answers {answer.status_code}: {answer.text[:500]}")
        return answer.json()

    def pages(self, path: str, token: str) -> Iterator[Any]:
        """All items of a list, a page in memory at a time."""
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self.call("GET", path, token, **query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _count(self, path: str, status: int) -> None:
        team = TEAM_PATH.match(path)
        with self._lock:
            self.requests += 1
            if team and status < 500 and status != 429:
                self.calls[team[1]] += 1


class Person(NamedTuple):
    id: str
    token: str


@dataclass
class Team:
    """A team of the trace, and what the API made of it."""

    name: str
    id: str
    changes: Sequence[Change]
    people: Mapping[str, Person]
    workspaces: Mapping[str, str]
    upcoming: Iterator[Change] = field(init=False)
    turn: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.upcoming = iter(self.changes)

    @property
    def path(self) -> str:
        return f"/teams/{self.id}"

    @property
    def owner_token(self) -> str:
        return self.people[self.changes[0].actor].token


def prepare(api: Api, changes: Sequence[Change]) -> list[Team]:
    """Makes all people, teams and workspaces of the trace."""
    run, password = secrets.token_hex(4), secrets.token_urlsafe(16)
    actors = list(dict.fromkeys(change.actor for change in changes))

    def register(number: int) -> Person:
        body = {
            "email": f"demo-{run}-{number}@example.com",
            "password": password,
            "name": actors[number],
        }
        registered = api.call("POST", "/auth/register", body=body)
        return Person(registered["user"]["id"], registered["token"])

    people = dict(zip(actors, in_parallel("People", register, range(len(actors))), strict=True))
    by_team: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_team[change.team].append(change)
    return in_parallel("Teams", lambda name: _make_team(api, name, by_team[name], people), list(by_team))


def _make_team(api: Api, name: str, changes: Sequence[Change], people: Mapping[str, Person]) -> Team:
    actors = list(dict.fromkeys(change.actor for change in changes))
    token = people[actors[0]].token
    team_id = api.call("POST", "/teams", token, {"name": name})["id"]
    if (plan := plan_for(len(actors))) != DEFAULT_PLAN.name:
        api.call("PUT", f"/teams/{team_id}/plan", token, {"plan": plan})
    for actor in actors[1:]:
        member = {"user_id": people[actor].id, "role": "member"}
        api.call("POST", f"/teams/{team_id}/members", token, member)
    workspaces = {
        workspace: api.call("POST", f"/teams/{team_id}/workspaces", token, {"name": workspace})["id"]
        for workspace in dict.fromkeys(change.workspace for change in changes)
    }
    return Team(name, team_id, changes, {actor: people[actor] for actor in actors}, workspaces)


def plan_for(members: int) -> str:
    """The smallest plan that seats so many; raises TraceError if none does."""
    for plan in sorted(PLANS.values(), key=lambda plan: plan.max_members):
        if members <= plan.max_members:
            return plan.name
    raise TraceError(f"no plan seats a team of {members:,}")


def replay(api: Api, teams: Sequence[Team], changes: Sequence[Change]) -> None:
    """Does the work of all changes, the teams taking turns as they do in the trace."""
    named = {team.name: team for team in teams}
    in_parallel("Changes", lambda change: _replay_next(api, named[change.team]), changes)


def _replay_next(api: Api, team: Team) -> None:
    """A team's tasks are created one after the other, in the trace's order; the rest of their lives overlaps."""
    with team.turn:
        change = next(team.upcoming)
        token = team.people[change.actor].token
        tasks = f"{team.path}/workspaces/{team.workspaces[change.workspace]}/tasks"
        task = f"{team.path}/tasks/{api.call('POST', tasks, token, {'title': change.title})['id']}"
    api.call("POST", f"{task}/start", token)
    done = {"result": {"files": change.files}, "llm_tokens_used": change.tokens}
    api.call("POST", f"{task}/complete", token, done)


def in_parallel(label: str, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results of `work`, in order, done by a few threads under a progress bar; the first error ends it."""
    results: list[R] = []
    with ThreadPoolExecutor(THREADS) as pool, tqdm(total=len(items), desc=label, disable=None) as bar:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(work, items[start : start + CHUNK]):
                results.append(result)
                bar.update()
    return results


# The check


class Figure(NamedTuple):
    """A number that the trace determines, beside what the API reports."""

    team: str
    what: str
    expected: int
    reported: int


def wait_for_log(api: Api, teams: Sequence[Team]) -> None:
    """Returns once each team's log holds what it has to; raises ApiError when one stands still before."""
    for team in teams:
        wanted, seen, seen_at = sum(expected_log(team.changes).values()), 0, time.monotonic()
        while (newest := _newest_seq(api, team)) < wanted:
            if newest > seen:
                seen, seen_at = newest, time.monotonic()
            if time.monotonic() - seen_at > PATIENCE_S:
                raise ApiError(
                    f"the log of {team.name} stays at {newest} of {wanted} rows; does a worker run?"
                )
            time.sleep(POLL_S)


def _newest_seq(api: Api, team: Team) -> int:
    items = api.call("GET", f"{team.path}/activity", team.owner_token, limit=1)["items"]
    return items[0]["seq"] if items else 0


def check(api: Api, teams: Sequence[Team]) -> list[Figure]:
    """All figures of all teams."""
    found = in_parallel("Check", lambda team: compare(api, team), teams)
    return [figure for figures in found for figure in figures]


def compare(api: Api, team: Team) -> list[Figure]:
    """What `team.changes` determine beside what the API reports, log rows of unexpected kinds included."""
    expected = {**_expected_tasks(team), **_expected_log(team), **_expected_usage(team)}
    reported = {**_reported_tasks(api, team), **_reported_log(api, team)}
    usage, calls = _reported_usage(api, team)
    expected["usage: api_calls"] = calls
    reported |= usage
    return [
        Figure(team.name, what, expected.get(what, 0), reported.get(what, 0)) for what in expected | reported
    ]


def expected_log(changes: Sequence[Change]) -> dict[str, int]:
    """The rows of a team's log by their action."""
    actors = len({change.actor for change in changes})
    tasks = dict.fromkeys(("task_created", "task_started", "task_completed"), len(changes))
    return {
        "team_created": 1,
        "plan_changed": int(plan_for(actors) != DEFAULT_PLAN.name),
        "member_added": actors - 1,
        "workspace_created": len({change.workspace for change in changes}),
        **tasks,
    }


def _expected_tasks(team: Team) -> dict[str, int]:
    return {
        "members": len({change.actor for change in team.changes}),
        "tasks": len(team.changes),
        "tasks completed as in the trace": len(team.changes),
    }


def _reported_tasks(api: Api, team: Team) -> dict[str, int]:
    members = {member["user"]["id"] for member in api.pages(f"{team.path}/members", team.owner_token)}
    names = {person.id: actor for actor, person in team.people.items()}
    completed: Counter[Any] = Counter()
    tasks = 0
    for workspace in api.pages(f"{team.path}/workspaces", team.owner_token):
        for task in api.pages(f"{team.path}/workspaces/{workspace['id']}/tasks", team.owner_token):
            tasks += 1
            if task["status"] == "completed":
                actor = names[task["created_by"]]
                completed[workspace["name"], task["title"], actor, task["llm_tokens_used"]] += 1
    wanted = Counter((change.workspace, change.title, change.actor, change.tokens) for change in team.changes)
    return {
        "members": len(members),
        "tasks": tasks,
        "tasks completed as in the trace": (wanted & completed).total(),
    }


def _expected_log(team: Team) -> dict[str, int]:
    rows = expected_log(team.changes)
    return {
        **{f"log: {action}": count for action, count in rows.items()},
        "log: numbered without a gap up to": sum(rows.values()),
        "log: task_created in the trace's order": len(team.changes),
    }


def _reported_log(api: Api, team: Team) -> dict[str, int]:
    rows: Counter[str] = Counter()
    seqs: list[int] = []
    titles: list[str] = []
    for row in api.pages(f"{team.path}/activity", team.owner_token):
        if row["action"] == "activity_read":  # this very question, noted
            continue
        rows[row["action"]] += 1
        seqs.append(row["seq"])
        if row["action"] == "task_created":
            titles.append(row["resource_name"])
    newest_first = list(range(len(seqs), 0, -1))
    in_order = sum(map(eq, reversed(titles), (change.title for change in team.changes)))
    return {
        **{f"log: {action}": count for action, count in rows.items()},
        "log: numbered without a gap up to": len(seqs) if seqs == newest_first else 0,
        "log: task_created in the trace's order": in_order,
    }


def _expected_usage(team: Team) -> dict[str, int]:
    return {
        "usage: tasks_created": len(team.changes),
        "usage: tasks_completed": len(team.changes),
        "usage: llm_tokens_used": sum(change.tokens for change in team.changes),
    }


def _reported_usage(api: Api, team: Team) -> tuple[dict[str, int], int]:
    """The counters of the run's months, and how many calls had been answered before the last month was asked for."""
    now = datetime.now(UTC)
    totals: Counter[str] = Counter()
    calls = 0
    for year, month in sorted({(day.year, day.month) for day in (api.begun, now)}):
        calls = api.calls[team.id]
        answer = api.call("GET", f"{team.path}/usage/monthly", team.owner_token, year=year, month=month)
        totals.update({f"usage: {counter}": answer[counter] for counter in COUNTERS})
    return dict(totals), calls


def print_comparison(figures: Sequence[Figure]) -> bool:
    """Prints a line a figure; whether all agree."""
    width = max(len(figure.team) for figure in figures)
    print(f"{'team':{width}}  {'figure':40} {'expected':>13} {'reported':>13}")
    for team, what, expected, reported in figures:
        verdict = "ok" if expected == reported else "WRONG"
        print(f"{team:{width}}  {what:40} {expected:13,} {reported:13,}  {verdict}")
    return all(figure.expected == figure.reported for figure in figures)


if __name__ == "__main__":
    sys.exit(main())
