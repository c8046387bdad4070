"""
What a permission check costs: `enter_team` beside the least that PostgreSQL and its driver need for any answer.

`python -m benchmarks.permission_check [--small]`. The ways take turns in each round and see the same callers, of whom
80 % ask for a team that is theirs; only ratios within one run mean anything (a busy or an idle machine moves all of
them). The exit code says nothing of the target, which is: `enter_team` at most 3 times a bare `SELECT 1` at p50.
"""

import argparse
import asyncio
import gc
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from statistics import median
from uuid import UUID

import psycopg
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from api import create_app
from benchmarks.measuring import percentile, plain_url, print_table, servers
from models.access.credentials import KEY_PREFIX, Credential, hash_secret
from models.access.entry import enter_team
from models.access.permissions import BUILT_IN_ROLES, Permission
from models.database import engine
from models.errors import NotFound
from models.settings import settings
from models.tables import PermissionGrant, TeamMember

SEED = 20261124
HIT_RATE = 0.8
ROLES = ("member", "member", "member", "viewer")
"""Of those who don't own the team."""


@dataclass(frozen=True, slots=True)
class Size:
    users: int
    teams: int
    members: int
    """In each team."""
    rounds: int
    checks: int
    """Of each way in each round."""


FULL = Size(users=100_000, teams=20_000, members=20, rounds=12, checks=400)
SMALL = Size(users=2_000, teams=400, members=20, rounds=4, checks=100)


@dataclass(frozen=True, slots=True)
class Check:
    """Somebody who asks to enter a team, and whether it is theirs."""

    token: str
    user_id: UUID
    team_id: UUID
    hit: bool
    workspace_id: UUID
    """Of the team. Every other member is listed in it, in a role of their own."""
    key_of: int
    """The number of a team whose keys enter where this caller does: that team, or another."""


Measure = Callable[[Sequence[Check]], list[float]]
"""Performs the checks and returns how many seconds each took."""
Way = Callable[[], AbstractContextManager[Measure]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="little data and few rounds: does it run?")
    size = SMALL if parser.parse_args().small else FULL
    with servers(durable=False), ExitStack() as stack:
        begun = time.perf_counter()
        callers = Callers(size)
        callers.load()
        gc.freeze()  # a web process does not hold that many objects for the collector to walk through
        print(
            f"{size.users:,} users, {size.teams:,} teams, {size.teams * size.members:,} memberships "
            f"loaded in {time.perf_counter() - begun:.0f} s; {size.rounds} rounds of {size.checks} checks a way"
        )
        ways = {name: stack.enter_context(way()) for name, way in WAYS.items()}
        report(run(ways, callers, size))


def run(ways: dict[str, Measure], callers: "Callers", size: Size) -> dict[str, list[list[float]]]:
    """The seconds of each check, by way and round."""
    for measure in ways.values():
        measure(callers.checks(50))  # prepares statements, fills caches
    rounds: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(size.rounds):
        checks = callers.checks(size.checks)
        for name, measure in ways.items():
            rounds[name].append(measure(checks))
    return rounds


def report(rounds: dict[str, list[list[float]]]) -> None:
    base = [percentile(seconds, 50) for seconds in rounds["SELECT 1, psycopg"]]
    rows = []
    for name, measured in rounds.items():
        every = [second for seconds in measured for second in seconds]
        ratio = median(percentile(seconds, 50) / one for seconds, one in zip(measured, base, strict=True))
        microseconds = [f"{percentile(every, percent) * 1e6:,.0f}" for percent in (50, 99)]
        rows.append([name, *microseconds, f"{ratio:.2f}"])
    print_table(("way", "p50 µs", "p99 µs", "p50 : SELECT 1"), rows)


class Callers:
    """Who is in which team: the same in each run."""

    def __init__(self, size: Size) -> None:
        self._random = random.Random(SEED)
        self.users = [uuid7() for _ in range(size.users)]
        self.teams = [uuid7() for _ in range(size.teams)]
        self.workspaces = [uuid7() for _ in self.teams]
        everyone = range(size.users)
        self.members = [self._random.sample(everyone, size.members) for _ in self.teams]

    def load(self) -> None:
        later = datetime.now(UTC) + timedelta(days=30)
        tables: dict[str, Iterator[tuple[object, ...]]] = {
            "users (id, email, email_normalized, name, password_hash)": (
                (user, f"{number}@example.com", f"{number}@example.com", f"User {number}", "none")
                for number, user in enumerate(self.users)
            ),
            "sessions (id, user_id, token_hash, expires_at)": (
                (uuid7(), user, hash_secret(token(number)), later) for number, user in enumerate(self.users)
            ),
            "teams (id, name, owner_id, plan, max_members)": (
                (team, f"Team {number}", self.users[self.members[number][0]], "pro", 50)
                for number, team in enumerate(self.teams)
            ),
            "team_members (id, team_id, user_id, role)": (
                (uuid7(), team, self.users[user], ROLES[position % 4] if position else "admin")
                for team, members in zip(self.teams, self.members, strict=True)
                for position, user in enumerate(members)
            ),
            **self._within_teams(later),
        }
        with connection() as database:
            with database.transaction(), database.cursor() as cursor:
                for table, rows in tables.items():
                    with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                        for row in rows:
                            copy.write_row(row)
            database.execute("VACUUM ANALYZE")

    def _within_teams(self, later: datetime) -> dict[str, Iterator[tuple[object, ...]]]:
        """A workspace, an agent and two keys of each team, one of them the agent's; both act for its second member."""
        agents = [uuid7() for _ in self.teams]
        scope = [permission.value for permission in BUILT_IN_ROLES["viewer"]]
        makers = [self.users[members[1]] for members in self.members]
        return {
            "workspaces (id, team_id, name, created_by)": (
                (workspace, team, "Research", makers[number])
                for number, (workspace, team) in enumerate(zip(self.workspaces, self.teams, strict=True))
            ),
            "workspace_members (workspace_id, team_id, user_id, role)": (
                (workspace, team, self.users[user], "viewer")
                for workspace, team, members in zip(self.workspaces, self.teams, self.members, strict=True)
                for user in members[2::2]
            ),
            "agents (id, team_id, name, role, created_by)": (
                (agents[number], team, "Scout", "member", makers[number]) for number, team in enumerate(self.teams)
            ),
            "api_keys (id, team_id, user_id, agent_id, name, prefix, key_hash, permissions, expires_at)": (
                (
                    uuid7(), team, makers[number], agent, "ci", "ahk_", hash_secret(key(number, agent is not None)),
                    scope, later,
                )
                for number, team in enumerate(self.teams)
                for agent in (None, agents[number])
            ),
        }  # fmt: skip

    def checks(self, count: int) -> list[Check]:
        return [self._check() for _ in range(count)]

    def _check(self) -> Check:
        team = self._random.randrange(len(self.teams))
        hit = self._random.random() < HIT_RATE
        user = self._random.choice(self.members[team])
        while not hit and user in self.members[team]:
            user = self._random.randrange(len(self.users))
        key_of = team if hit else (team + 1) % len(self.teams)
        return Check(token(user), self.users[user], self.teams[team], hit, self.workspaces[team], key_of)


def token(user: int) -> str:
    return f"ahq_benchmark_{user}"


def key(team: int, is_agents: bool) -> str:
    return f"{KEY_PREFIX}benchmark_{team}_{'agent' if is_agents else 'program'}"


def connection() -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(plain_url(settings().database_url), autocommit=True)


def timed(checks: Sequence[Check], ask: Callable[[Check], bool]) -> list[float]:
    """How long each took; AssertionError if one did not find what it should."""
    seconds = []
    for check in checks:
        begun = time.perf_counter()
        found = ask(check)
        seconds.append(time.perf_counter() - begun)
        assert found == check.hit, check
    return seconds


@contextmanager
def select_1() -> Iterator[Measure]:
    with connection() as database, database.cursor() as cursor:

        def ask(check: Check) -> bool:
            cursor.execute("SELECT 1", prepare=True).fetchone()
            return check.hit

        yield lambda checks: timed(checks, ask)


@contextmanager
def bare_lookup() -> Iterator[Measure]:
    statement = "SELECT role FROM team_members WHERE team_id = %s AND user_id = %s"
    with connection() as database, database.cursor() as cursor:

        def ask(check: Check) -> bool:
            cursor.execute(statement, (check.team_id, check.user_id), prepare=True)
            return cursor.fetchone() is not None

        yield lambda checks: timed(checks, ask)


def entering(secret: Callable[[Check], str], *, in_workspace: bool = False) -> Way:
    """`enter_team` by this secret, on a session that has begun, as a request's has."""

    @contextmanager
    def way() -> Iterator[Measure]:
        with Session(engine()) as session:

            def ask(check: Check) -> bool:
                workspace_id = check.workspace_id if in_workspace else None
                credential = Credential(secret(check))
                try:
                    enter_team(
                        session, credential, check.team_id, Permission.tasks_read, workspace_id=workspace_id
                    )
                except NotFound:
                    return False
                return True

            yield lambda checks: timed(checks, ask)

    return way


@contextmanager
def async_orm() -> Iterator[Measure]:
    """The way of many a FastAPI tutorial: a session of its own, the member as an entity, then the grant."""
    async_engine = create_async_engine(settings().database_url)

    async def ask(check: Check) -> bool:
        async with AsyncSession(async_engine) as session:
            is_member = (TeamMember.team_id == check.team_id, TeamMember.user_id == check.user_id)
            member = (await session.execute(select(TeamMember).where(*is_member))).scalar_one_or_none()
            if member is None:
                return False
            grant = select(PermissionGrant).where(
                PermissionGrant.role == member.role,
                PermissionGrant.resource == "tasks",
                PermissionGrant.action == "read",
                or_(PermissionGrant.team_id.is_(None), PermissionGrant.team_id == check.team_id),
            )
            found = (await session.execute(grant)).scalar_one_or_none()
            return found is not None and found.allowed

    async def measure(checks: Sequence[Check]) -> list[float]:
        seconds = []
        for check in checks:
            begun = time.perf_counter()
            found = await ask(check)
            seconds.append(time.perf_counter() - begun)
            assert found == check.hit, check
        return seconds

    with asyncio.Runner() as runner:
        yield lambda checks: runner.run(measure(checks))
        runner.run(async_engine.dispose())


@contextmanager
def test_client() -> Iterator[Measure]:
    client = create_app().test_client()

    def ask(check: Check) -> bool:
        return client.get(path(check), headers=headers(check)).status_code == 200

    yield lambda checks: timed(checks, ask)


@contextmanager
def gunicorn() -> Iterator[Measure]:
    """One worker, one kept connection."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.conf.py", "wsgi:app"]
    environment = os.environ | {"PORT": str(port), "WEB_WORKERS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        client = HTTPConnection("127.0.0.1", port, timeout=10)

        def ask(check: Check) -> bool:
            client.request("GET", path(check), headers=headers(check))
            answer = client.getresponse()
            answer.read()
            return answer.status == 200

        try:
            wait_for(port)
            yield lambda checks: timed(checks, ask)
        finally:
            client.close()
            server.terminate()


def wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("gunicorn does not come up")


def path(check: Check) -> str:
    return f"/api/v1/teams/{check.team_id}"


def headers(check: Check) -> dict[str, str]:
    return {"Authorization": f"Bearer {check.token}"}


WAYS: dict[str, Way] = {
    "SELECT 1, psycopg": select_1,
    "membership row, psycopg": bare_lookup,
    "enter_team, open session": entering(lambda check: check.token),
    "… within a workspace": entering(lambda check: check.token, in_workspace=True),
    "… by an API key": entering(lambda check: key(check.key_of, False)),
    "… by an agent's key": entering(lambda check: key(check.key_of, True)),
    "… by it within a workspace": entering(lambda check: key(check.key_of, True), in_workspace=True),
    "async ORM, two selects": async_orm,
    "whole request, test client": test_client,
    "whole request, gunicorn": gunicorn,
}

if __name__ == "__main__":
    main()
