"""
Kills what the product consists of, at random and with SIGKILL, while clients work; then proves that nothing was lost and
nothing counted twice. `python -m tests.faults.chaos --kills 300` is what `make chaos` runs.

A kill comes only once answers flow again after the last, so that each one hits a product at work.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import psycopg

from benchmarks.measuring import print_table
from tests.faults import proof
from tests.faults.load import UNANSWERED, Client, Team, make_teams
from tests.faults.stack import VICTIMS, Stack, eventually, free_port, kill, running

CLIENTS = 6
TEAMS = 3
BETWEEN = 10
"""Answers between two kills, at the least."""
RECOVERY_S = 180.0
"""How long the product may take to answer again after a kill; it needs seconds, and on a machine busy with other work more."""
SETTLING_S = 180.0
"""How long until all events are in the log and all usage is folded, once nobody works any more."""
WEIGHTS: Mapping[str, int] = {
    "web worker": 8, "gunicorn master": 1, "Celery child": 8, "Celery worker": 3, "beat": 3, "Valkey": 5,
    "PostgreSQL backend": 8, "postmaster": 4,
}  # fmt: skip
"""The master seldom: until another has its port and has loaded the product, there is nothing else to kill."""
LIMIT_CALLS = """
INSERT INTO usage_quotas (team_id, metric, maximum, period, used)
SELECT %(team)s, 'api_calls', 1000000000, date_trunc('month', now() AT TIME ZONE 'UTC')::date,
       (SELECT coalesce(sum(quantity), 0) FROM usage_ledger WHERE team_id = %(team)s AND metric = 'api_calls')
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What was killed, what the clients saw of it, and what does not agree afterwards."""

    seconds: float
    kills: Counter[str]
    recovery_s: Mapping[str, Sequence[float]]
    teams: Sequence[Team]
    kept: Sequence[proof.Kept]
    differences: Sequence[str]

    @property
    def answered(self) -> int:
        return sum(team.answered for team in self.teams)

    @property
    def unsure(self) -> int:
        return sum(team.unsure for team in self.teams)

    @property
    def statuses(self) -> Counter[int | str]:
        return sum((team.statuses for team in self.teams), Counter())


def run(
    data: Path,
    kills: int,
    *,
    seed: int,
    seconds: float = float("inf"),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """
    Starts a product in `data`, kills so many of its processes while clients work, or as many as it can in `seconds`, and
    compares when all has settled.
    """
    with running(data, free_port()) as stack:
        teams = make_teams(stack.url, TEAMS)
        # Where a plan limits calls hard, each is counted in its request's own transaction: the other way to count.
        with stack.database() as database:
            database.execute(LIMIT_CALLS, {"team": teams[0].id})
        clients = [Client(stack.url, teams[number % TEAMS], number) for number in range(CLIENTS)]
        begun = time.monotonic()
        for client in clients:
            client.start()
        killed, recovery = _kill(stack, clients, kills, begun + seconds, random.Random(seed), say)
        lasted = time.monotonic() - begun
        for client in clients:
            client.stop()
        for client in clients:
            client.join()
        failures = [f"{client.name}: {client.error!r}" for client in clients if client.error]
        say("All up again; waiting until everything is projected and folded")
        eventually(stack.is_ready, RECOVERY_S, "ready again")
        eventually(lambda: is_settled(stack), SETTLING_S, "everything projected and folded")
        with stack.database() as database:
            kept = [proof.read(database, team) for team in teams]
        found = [each for team, one in zip(teams, kept, strict=True) for each in proof.differences(team, one)]
        found += [each for team in teams for each in proof.asked(stack.url, team)]
    return Report(lasted, killed, recovery, teams, kept, failures + found)


def _kill(
    stack: Stack,
    clients: Sequence[Client],
    kills: int,
    until: float,
    chance: random.Random,
    say: Callable[[str], None],
) -> tuple[Counter[str], Mapping[str, Sequence[float]]]:
    killed: Counter[str] = Counter()
    recovery: dict[str, list[float]] = {name: [] for name in VICTIMS}
    first = list(VICTIMS)  # each once, then by chance
    chance.shuffle(first)
    while killed.total() < kills and time.monotonic() < until:
        name = first.pop() if first else chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        time.sleep(chance.uniform(0, 0.5))
        found = VICTIMS[name](stack)
        if not found or not kill(chance.choice(found)):
            first.insert(0, name)  # it is down: later
            continue
        killed[name] += 1
        begun, before = time.monotonic(), answers(clients)
        eventually(
            lambda before=before: answers(clients) >= before + BETWEEN,  # type: ignore[misc]
            RECOVERY_S,
            f"answers after a kill of {name}",
        )
        recovery[name].append(time.monotonic() - begun)
        if killed.total() % 25 == 0:
            say(f"{killed.total()} kills, {answers(clients):,} answers")
    return killed, recovery


def answers(clients: Sequence[Client]) -> int:
    """Of all clients so far; raises what ended any of them."""
    for client in clients:
        if client.error:
            raise client.error
    return sum(team.answered for team in {client.team.id: client.team for client in clients}.values())


def is_settled(stack: Stack) -> bool:
    try:
        with stack.database() as database:
            return proof.waiting(database) == 0
    except psycopg.OperationalError:
        return False


def show(report: Report) -> None:
    """The tables, and every difference."""
    print_table(
        ("killed with -9", "times", f"s to {BETWEEN} answers, median", "most"),
        [
            [name, str(report.kills[name]), f"{sorted(took)[len(took) // 2]:.1f}", f"{max(took):.1f}"]
            for name, took in report.recovery_s.items()
            if took
        ],
    )
    click.echo()
    print_table(("answer", "calls"), [[str(s), f"{n:,}"] for s, n in report.statuses.most_common()])
    tasks = sum(len(kept.tasks) for kept in report.kept)
    ledger = sum(len(kept.ledger) for kept in report.kept)
    log = sum(len(kept.log) for kept in report.kept)
    click.echo(
        f"\n{report.kills.total()} kills in {report.seconds:.0f} s under {CLIENTS} clients of {TEAMS} teams\n"
        f"calls: {report.answered:,} answered, {report.unsure:,} cut off ({report.statuses[UNANSWERED]:,}) or refused "
        f"with 5xx, {sum(kept.calls for kept in report.kept):,} counted\n"
        f"{tasks:,} tasks, {ledger:,} other ledger rows and {log:,} rows of the log, compared one by one\n"
        f"{len(report.differences)} differences"
    )
    for difference in report.differences:
        click.echo(f"  {difference}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of killing, at the most")
    parser.add_argument("--data", type=Path, help="keep the product's data and logs in this directory")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    click.echo(f"{arguments.kills} kills, seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="agenthq-chaos-", ignore_cleanup_errors=True) as temporary:
        data = arguments.data or Path(temporary)
        report = run(
            data, arguments.kills, seed=arguments.seed, seconds=arguments.minutes * 60, say=click.echo
        )
    show(report)
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
