"""
Whether entering a team stays flat while roles and their grants multiply, and what a batch of questions costs.

`python -m benchmarks.permission_scale [--small]`. First `enter_team` in teams whose own roles have 10 to 100,000 grants, beside
pycasbin's `enforce` with as many rules, in the same run: pycasbin looks through its rules, so it grows with them. Then a
batch of 100 checks (`/permissions/check`: 50 people, in the team and in its workspace), which is one statement, beside
100 times entering. Targets: flat, and p99 of a batch at most 5 ms.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from uuid import UUID

import casbin  # type: ignore[import-untyped]
import psycopg
from casbin.persist.adapters.string_adapter import StringAdapter  # type: ignore[import-untyped]
from sqlalchemy import text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from benchmarks.measuring import percentile, plain_url, print_table, servers
from models.access.credentials import Credential, hash_secret
from models.access.decisions import decide
from models.access.entry import enter_team
from models.access.permissions import Permission
from models.database import engine
from models.queries import permissions
from models.queries.permissions import Subject
from models.settings import settings

GRANTS_OF_A_ROLE = 10
BATCH = 100
MEMBERS = 50
RBAC = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""


@dataclass(frozen=True, slots=True)
class Size:
    grants: tuple[int, ...]
    rounds: int
    enters: int
    """A round."""
    enforces: int
    batches: int


FULL = Size(grants=(10, 100, 1_000, 10_000, 100_000), rounds=5, enters=200, enforces=1, batches=60)
SMALL = Size(grants=(10, 1_000), rounds=2, enters=50, enforces=3, batches=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few grants and rounds: does it run?")
    size = SMALL if parser.parse_args().small else FULL
    with servers(durable=False):
        with database() as connection:
            teams = [Team.make(connection, grants) for grants in size.grants]
            connection.execute("VACUUM ANALYZE")
        gc.freeze()
        report_grants(teams, size)
        print()
        report_batch(teams[0], size)


@contextmanager
def database() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(plain_url(settings().database_url), autocommit=True) as connection:
        yield connection


@dataclass(frozen=True, slots=True)
class Team:
    """Whose own roles have so many grants together. Each of its members is in the first of those roles."""

    id: UUID
    grants: int
    token: str
    """Of its first member."""
    members: list[UUID]
    workspace_id: UUID

    @property
    def rules(self) -> Iterator[tuple[str, Permission]]:
        every = list(Permission)
        for number in range(self.grants):
            role, position = divmod(number, GRANTS_OF_A_ROLE)
            # tasks:read comes first in every role, and in the last rule too, so that nobody finds it early.
            yield f"role {role}", every[(every.index(Permission.tasks_read) + position) % len(every)]

    @classmethod
    def make(cls, connection: psycopg.Connection[tuple[object, ...]], grants: int) -> "Team":
        team = cls(uuid7(), grants, f"ahq_scale_{grants}", [uuid7() for _ in range(MEMBERS)], uuid7())
        rows: dict[str, list[tuple[object, ...]]] = {
            "users (id, email, email_normalized, name, password_hash)": [
                (user, f"{user}@example.com", f"{user}@example.com", "Kim", "none") for user in team.members
            ],
            "teams (id, name, owner_id, plan, max_members)": [
                (team.id, f"{grants} grants", team.members[-1], "pro", 100)
            ],
            "team_members (id, team_id, user_id, role)": [
                (uuid7(), team.id, user, "role 0") for user in team.members
            ],
            "sessions (id, user_id, token_hash, expires_at)": [
                (uuid7(), team.members[0], hash_secret(team.token), datetime.now(UTC) + timedelta(days=1))
            ],
            "permissions (id, team_id, role, resource, action)": [
                (uuid7(), team.id, role, permission.resource, permission.action)
                for role, permission in team.rules
            ],
            "workspaces (id, team_id, name, created_by)": [
                (team.workspace_id, team.id, "Research", team.members[0])
            ],
            "workspace_members (workspace_id, team_id, user_id, role)": [
                (team.workspace_id, team.id, user, "viewer") for user in team.members[1::2]
            ],
        }
        with connection.transaction(), connection.cursor() as cursor:
            for table, values in rows.items():
                with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                    for row in values:
                        copy.write_row(row)
        return team

    def enforcer(self) -> casbin.Enforcer:
        """pycasbin with this team's rules; the member is in the last of the roles."""
        model = casbin.Model()
        model.load_model_from_text(RBAC)
        lines = [f"p, {role}, {each.resource}, {each.action}" for role, each in self.rules]
        lines.append(f"g, kim, role {(self.grants - 1) // GRANTS_OF_A_ROLE}")
        return casbin.Enforcer(model, StringAdapter("\n".join(lines)))


def timed(call: Callable[[], object], times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return seconds


def report_grants(teams: list[Team], size: Size) -> None:
    enforcers = [team.enforcer() for team in teams]
    ours: list[list[float]] = [[] for _ in teams]
    theirs: list[list[float]] = [[] for _ in teams]
    bare: list[float] = []
    with Session(engine()) as session, database() as connection, connection.cursor() as cursor:

        def enter(team: Team) -> None:
            enter_team(session, Credential(team.token), team.id, Permission.tasks_read)

        def enforce(enforcer: casbin.Enforcer) -> None:
            assert enforcer.enforce("kim", Permission.tasks_read.resource, Permission.tasks_read.action)

        for number in range(size.rounds + 1):
            ones = timed(lambda: cursor.execute("SELECT 1", prepare=True).fetchone(), size.enters)
            if number:  # the first round prepares statements and fills caches
                bare += ones
            for position, team in enumerate(teams):
                entered = timed(lambda team=team: enter(team), size.enters)  # type: ignore[misc]
                enforced = timed(lambda each=enforcers[position]: enforce(each), size.enforces)  # type: ignore[misc]
                if number:
                    ours[position] += entered
                    theirs[position] += enforced
    one = percentile(bare, 50)
    first = [median(ours[0]), median(theirs[0])]
    rows = [
        [
            f"{team.grants:,}",
            f"{median(entered) * 1e6:,.0f}",
            f"{median(entered) / first[0]:.2f}",
            f"{median(entered) / one:.2f}",
            f"{median(enforced) * 1e6:,.0f}",
            f"{median(enforced) / first[1]:,.2f}",
            f"{median(enforced) / median(entered):,.2f}",
        ]
        for team, entered, enforced in zip(teams, ours, theirs, strict=True)
    ]
    print(
        f"p50 of entering a team, and of pycasbin's enforce (in memory, no database); SELECT 1: {one * 1e6:,.0f} µs"
    )
    print_table(
        ("grants", "enter µs", ": fewest", ": SELECT 1", "pycasbin µs", ": fewest", "pycasbin : enter"), rows
    )


def report_batch(team: Team, size: Size) -> None:
    every = list(Permission)
    checks = [
        (
            Subject(team.members[number % MEMBERS], team.workspace_id if number % 2 else None),
            every[number % len(every)],
        )
        for number in range(BATCH)
    ]
    batches: list[float] = []
    singles: list[float] = []
    ones: list[float] = []
    with Session(engine()) as session:
        session.execute(text("SELECT 1"))

        def enter() -> None:
            enter_team(session, Credential(team.token), team.id, Permission.tasks_read)

        def ask(count: int) -> None:
            access = enter_team(session, Credential(team.token), team.id)
            found = permissions.standings(session, access, [subject for subject, _ in checks[:count]])
            for standing, (_, permission) in zip(found, checks, strict=False):
                decide(standing, permission)

        def enter_for_each() -> None:
            for _ in range(BATCH):
                enter()

        for number in range(size.rounds + 1):
            measured = (
                timed(lambda: ask(BATCH), size.batches),
                timed(enter_for_each, max(1, size.batches // 5)),
                timed(lambda: ask(1), size.batches),
            )
            if number:
                batches += measured[0]
                singles += measured[1]
                ones += measured[2]
    rows = [
        [
            name,
            *(f"{percentile(seconds, percent) * 1e3:.2f}" for percent in (50, 99)),
            f"{median(seconds) / median(batches):.2f}",
        ]
        for name, seconds in (
            (f"entering and a batch of {BATCH} checks", batches),
            (f"{BATCH} times entering", singles),
            ("entering and one check", ones),
        )
    ]
    print_table(("way", "p50 ms", "p99 ms", "p50 : the batch"), rows)


if __name__ == "__main__":
    main()
