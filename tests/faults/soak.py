"""
The product under a mixed load for a long time, with faults: `python -m tests.faults.soak --minutes 10` is what `make soak` runs.

Clients work as in chaos.py, over REST and as agents that report; thousands of sockets listen; the log is exported and compared,
months are closed and their invoices read. Meanwhile Redis and PostgreSQL are restarted, a worker and a web process are killed, and the clock
of one web process is set an hour ahead and back. Afterwards what the clients were told is compared with what was kept, as in
chaos.py; each socket must have been shown every event once and in order; and the memory of each kind of process is told at the start,
in the middle and at the end.
"""

import argparse
import gzip
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
import httpx
import psutil
import psycopg

from api.supervision import ROOT
from benchmarks.measuring import print_table
from tests.faults import proof
from tests.faults.chaos import LIMIT_CALLS, RECOVERY_S, SETTLING_S, answers, is_settled
from tests.faults.load import UNANSWERED, Client, Team, make_teams
from tests.faults.sockets import Seen, Sockets
from tests.faults.stack import Stack, eventually, free_port, kill, running

BUSY_TEAMS, QUIET_TEAMS = 3, 10
SOCKETS_OF_BUSY = 0.05
"""The part of all sockets that each busy team has; the rest is the quiet teams'."""
CLIENTS = 6
PAUSE_S, QUIET_PAUSE_S = 0.05, 5.0
BILLED_EVERY_S = 10.0
MONTHS = 3
AHEAD_S = 3600
LIBFAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
"""Of Debian's package libfaketime."""
IN_THE_PAST = """
UPDATE plan_periods SET plan = 'pro', starts_at = date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '3 months'
WHERE team_id = %(team)s
"""
INVOICES = """
SELECT i.number, i.total, (SELECT coalesce(sum(l.amount), 0) FROM invoice_lines l WHERE l.invoice_id = i.id)
FROM invoices i WHERE i.team_id = %(team)s AND i.state = 'final' ORDER BY i.number
"""
ALL_NUMBERS = "SELECT number FROM invoices WHERE number IS NOT NULL ORDER BY number"
DOWN = (httpx.HTTPError, psycopg.OperationalError, subprocess.TimeoutExpired, AssertionError)
"""What comes of asking a product that is disturbed."""
GROWTH, GROWTH_MB = 1.3, 30.0
"""How much larger, and more, a kind of process may be at the end than at the start."""


class Exporter(Client):
    """Has the log written to a file, or streams it, and reads whether it is whole."""

    checked = 0

    def works(self) -> Sequence[Callable[[], None]]:
        return (self._written, self._streamed)

    def _streamed(self) -> None:
        answer = self.ask("GET", "/activity/export", params={"order": "asc"})
        if answer is not None and answer.status_code == 200:
            self._check(answer.text)

    def _written(self) -> None:
        """Its link is in the first answer alone, which may be lost: then it asks for another."""
        made = self.ask("POST", "/activity/exports", json={"order": "asc"})
        if made is None or made.status_code != 201:
            return
        path = f"/activity/exports/{made.json()['id']}"
        deadline = time.monotonic() + RECOVERY_S
        while self._going.is_set() and time.monotonic() < deadline:
            found = self.ask("GET", path)
            if found is not None and found.status_code == 200 and found.json()["state"] == "completed":
                self._download(made.json()["download_url"], found.json()["rows"])
                return
            time.sleep(0.5)
        if self._going.is_set():
            self.team.stale.append(f"the export {path} was not written in time")

    def _download(self, url: str, rows: int) -> None:
        """Not a call of the team's: the link is good for anybody."""
        link = urlsplit(url)
        with suppress(httpx.TransportError):
            answer = self._http.get(f"{link.path}?{link.query}")
            if answer.status_code == 200:
                self._check(gzip.decompress(answer.content).decode(), rows)

    def _check(self, text: str, rows: int | None = None) -> None:
        self.checked += 1
        numbers = [json.loads(line)["seq"] for line in text.splitlines()]
        if numbers != list(range(1, len(numbers) + 1)) or (rows is not None and rows != len(numbers)):
            self.team.stale.append(f"an export of {len(numbers)} rows has gaps, or is not of {rows}")


class Billing(threading.Thread):
    """Teams that have been on a paid plan for months, one after the other, each of whose months must get its invoice."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(name="billing", daemon=True)
        self.error: BaseException | None = None
        self.teams: list[Team] = []
        self.read = 0
        self._stack = stack
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        try:
            while not self._stopped.wait(BILLED_EVERY_S):
                with suppress(*DOWN):
                    self._bill()
        except BaseException as error:  # noqa: BLE001  whoever joins raises it
            self.error = error

    def _bill(self) -> None:
        (team,) = make_teams(self._stack.url, 1)
        with self._stack.database() as database:
            database.execute(IN_THE_PAST, {"team": team.id})
        self.teams.append(team)
        send_task(self._stack, "billing.close")
        with httpx.Client(
            base_url=self._stack.url, headers={"Authorization": f"Bearer {team.credentials[0]}"}, timeout=15
        ) as http:
            for each in http.get(team.path + "/invoices").raise_for_status().json()["items"]:
                path = f"{team.path}/invoices/{each['id']}"
                answer = http.get(path, headers={"Accept": "application/pdf"})
                pdf = answer.raise_for_status().content
                if not pdf.startswith(b"%PDF"):
                    team.stale.append(f"{path} is no PDF: {pdf[:100]!r}")
                self.read += 1


def send_task(stack: Stack, name: str) -> None:
    """As an operator would, whose beat is not due yet."""
    subprocess.run(
        [sys.executable, "-m", "celery", "--app", "workers.app", "call", name],
        cwd=ROOT, env=environment_of(stack), check=False, capture_output=True, timeout=60,
    )  # fmt: skip


def environment_of(stack: Stack) -> dict[str, str]:
    """What the supervisor gave the web server: where PostgreSQL and Redis are, and the keys."""
    eventually(lambda: stack.program("worker") is not None, RECOVERY_S, "a worker")
    program = stack.program("worker")
    assert program is not None, "the worker is down again"
    found: dict[str, str] = program.environ()  # type: ignore[no-untyped-call]
    return {name: value for name, value in found.items() if not name.startswith("SUPERVISOR_")}


class SkewedWeb:
    """A web process of its own port whose clock, and no other's, is set by a file."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._clock = directory / "clock"
        self.set(0)
        self.port = free_port()
        environment = environment_of(stack) | {
            "PORT": str(self.port), "WEB_WORKERS": "1", "LD_PRELOAD": str(LIBFAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.conf.py", "wsgi:app"],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, seconds_ahead: int) -> None:
        """Written beside and moved: the process reads it all the time."""
        beside = self._clock.with_suffix(".new")
        beside.write_text(f"{seconds_ahead:+d}s\n")
        beside.rename(self._clock)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def skewed_web(stack: Stack, say: Callable[[str], None]) -> Iterator[SkewedWeb | None]:
    """One that answers; None where libfaketime is absent."""
    if LIBFAKETIME is None:
        say("libfaketime is not installed, so no clock is set")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="agenthq-clock-") as directory:
        web = SkewedWeb(stack, Path(directory))
        try:
            eventually(
                lambda: Stack(stack.data, web.port).is_ready(),
                RECOVERY_S,
                "the web process with its own clock",
            )
            yield web
        finally:
            web.stop()


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    at_s: float
    recovery_s: float
    """Until answers flow again."""
    sockets_s: float | None = None
    """Until all sockets are welcomed again."""


@dataclass(slots=True)
class Report:
    seconds: float
    teams: Sequence[Team]
    kept: Sequence[proof.Kept]
    seen: Sequence[Seen]
    faults: list[Fault] = field(default_factory=list)
    memory_mb: Mapping[str, list[float]] = field(default_factory=dict)
    """Of the largest process of each kind, resident: at the start, in the middle, at the end."""
    exports: int = 0
    invoices: int = 0
    differences: Sequence[str] = ()

    @property
    def statuses(self) -> Counter[int | str]:
        return sum((team.statuses for team in self.teams), Counter())


class Soak:
    def __init__(self, stack: Stack, seconds: float, sockets: int, say: Callable[[str], None]) -> None:
        self.stack, self.seconds, self.say = stack, seconds, say
        self.teams = make_teams(stack.url, BUSY_TEAMS + QUIET_TEAMS)
        with stack.database() as database:
            database.execute(LIMIT_CALLS, {"team": self.teams[0].id})
        busy, quiet = self.teams[:BUSY_TEAMS], self.teams[BUSY_TEAMS:]
        of_busy = max(1, round(sockets * SOCKETS_OF_BUSY))
        listening = [team for team in busy for _ in range(of_busy)]
        listening += [quiet[number % QUIET_TEAMS] for number in range(sockets - len(listening))]
        self.listening = [(team.id, team.credentials[0]) for team in listening]
        self.memory: dict[str, list[float]] = {}
        self.faults: list[Fault] = []
        self.begun = time.monotonic()

    def clients(self, skewed: SkewedWeb | None) -> list[Client]:
        busy, quiet = self.teams[:BUSY_TEAMS], self.teams[BUSY_TEAMS:]
        url = self.stack.url
        made = [Client(url, busy[number % BUSY_TEAMS], number, pause_s=PAUSE_S) for number in range(CLIENTS)]
        made += [Client(url, team, 100 + number, pause_s=QUIET_PAUSE_S) for number, team in enumerate(quiet)]
        made += [Exporter(url, team, 200 + 2 * number, pause_s=1.0) for number, team in enumerate(busy)]
        if skewed is not None:
            made += [
                Client(skewed.url, team, 300 + number, pause_s=PAUSE_S) for number, team in enumerate(busy)
            ]
        return made

    def run(self) -> Report:
        with skewed_web(self.stack, self.say) as skewed, Sockets(self.stack.url, self.listening) as sockets:
            self._all_welcomed(sockets)
            clients, billing = self.clients(skewed), Billing(self.stack)
            threads: list[Client | Billing] = [*clients, billing]
            for thread in threads:
                thread.start()
            self.begun = time.monotonic()
            self._go_through(clients, sockets, skewed)
            lasted = time.monotonic() - self.begun
            for thread in threads:
                thread.stop()
            for thread in threads:
                thread.join()
            failures = [f"{each.name}: {each.error!r}" for each in threads if each.error]
            self.say("Waiting until everything is projected, folded and shown")
            eventually(self.stack.is_ready, RECOVERY_S, "ready again")
            send_task(self.stack, "billing.close")
            eventually(lambda: is_settled(self.stack), SETTLING_S, "everything projected and folded")
            with self.stack.database() as database:
                kept = [proof.read(database, team) for team in self.teams]
                eventually(
                    lambda: not self._unbilled(database, billing.teams), SETTLING_S, "all months invoiced"
                )
                failures += _invoices(database, billing.teams)
            heads = {team.id: each.head for team, each in zip(self.teams, kept, strict=True)}
            with suppress(AssertionError):  # then the sockets themselves tell
                eventually(lambda: sockets.behind(heads) == 0, RECOVERY_S, "sockets up to date")
            seen = sockets.seen()
        for team, each in zip(self.teams, kept, strict=True):
            failures += proof.differences(team, each)
            failures += proof.asked(self.stack.url, team)
        failures += [each for team in billing.teams for each in team.stale]
        failures += missed(seen, heads) + grown(self.memory)
        exports = sum(client.checked for client in clients if isinstance(client, Exporter))
        return Report(
            lasted, self.teams, kept, seen, self.faults, self.memory, exports, billing.read, failures
        )

    def _all_welcomed(self, sockets: Sockets) -> None:
        wanted = len(self.listening)
        eventually(lambda: sockets.connected() == wanted, RECOVERY_S, f"{wanted} sockets connected")

    def _go_through(self, clients: Sequence[Client], sockets: Sockets, skewed: SkewedWeb | None) -> None:
        """The faults at even times; memory is told once the first minute (or a tenth) has passed, half way, and at the end."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("Redis restarted", lambda: self._signal("valkey", signal.SIGTERM)),
            ("a web process killed", lambda: self._kill_child("web")),
            ("PostgreSQL restarted", lambda: self._signal("postgres", signal.SIGINT)),
            ("a worker's process killed", lambda: self._kill_child("worker")),
        ]
        if skewed is not None:
            steps.insert(2, ("a clock an hour ahead", lambda: skewed.set(AHEAD_S)))
            steps.append(("the clock set back", lambda: skewed.set(0)))
        warm = min(60.0, self.seconds / 10)
        self._until(warm)
        self._measure(sockets)
        half = len(steps) // 2
        for number, (name, fault) in enumerate(steps):
            self._until(warm + (self.seconds - warm) * (number + 0.5) / len(steps))
            if number == half:
                self._measure(sockets)
            self._inject(name, fault, clients, sockets)
        self._until(self.seconds)
        self._measure(sockets)

    def _inject(
        self, name: str, fault: Callable[[], None], clients: Sequence[Client], sockets: Sockets
    ) -> None:
        begun, before = time.monotonic(), answers(clients)
        fault()
        eventually(lambda: answers(clients) >= before + 10, RECOVERY_S, f"answers after {name}")
        answered = time.monotonic() - begun
        self._all_welcomed(sockets)
        self.faults.append(Fault(name, begun - self.begun, answered, time.monotonic() - begun))
        self.say(f"{begun - self.begun:5.0f} s  {name}: answers again after {answered:.1f} s")

    def _until(self, seconds: float) -> None:
        time.sleep(max(0.0, self.begun + seconds - time.monotonic()))

    def _signal(self, program: str, number: signal.Signals) -> None:
        """The supervisor starts it again."""
        found = self.stack.program(program)
        assert found is not None
        found.send_signal(number)  # type: ignore[no-untyped-call]
        psutil.wait_procs([found], timeout=30)  # type: ignore[no-untyped-call]

    def _kill_child(self, program: str) -> None:
        def killed() -> bool:
            found = self.stack.children(program)
            return bool(found) and kill(random.choice(found))

        eventually(killed, RECOVERY_S, f"something of {program} to kill")

    def _measure(self, sockets: Sockets) -> None:
        kinds: dict[str, Sequence[psutil.Process | None]] = {
            "gunicorn master": [self.stack.program("web")],
            "web process": self.stack.children("web"),
            "Celery worker": [self.stack.program("worker")],
            "Celery's processes": self.stack.children("worker"),
            "beat": [self.stack.program("beat")],
            "Valkey": [self.stack.program("valkey")],
        }
        for kind, processes in kinds.items():
            largest = 0.0
            for process in processes:
                with suppress(psutil.Error):
                    largest = max(largest, process.memory_info().rss / 2**20 if process else 0.0)
            self.memory.setdefault(kind, []).append(largest)

    def _unbilled(self, database: proof.Connection, teams: Sequence[Team]) -> list[str]:
        found = [
            team.id
            for team in teams
            if len(database.execute(INVOICES, {"team": team.id}).fetchall()) < MONTHS
        ]
        database.rollback()
        return found


def _invoices(database: proof.Connection, teams: Sequence[Team]) -> Iterator[str]:
    """Each month of each team has its one invoice, which comes to the sum of its lines; numbers have no gap."""
    for team in teams:
        rows = database.execute(INVOICES, {"team": team.id}).fetchall()
        if len(rows) != MONTHS:
            yield f"team {team.id} has {len(rows)} invoices of {MONTHS} months"
        yield from (
            f"invoice {number} is {total}, its lines {lines}"
            for number, total, lines in rows
            if total != lines
        )
    numbers = [int(str(row[0]).rpartition("-")[2]) for row in database.execute(ALL_NUMBERS).fetchall()]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the numbers of {len(numbers)} invoices have gaps"


def missed(seen: Sequence[Seen], heads: Mapping[str, int]) -> list[str]:
    found = [wrong for each in seen for wrong in each.wrong]
    behind = Counter(each.team_id for each in seen if each.last < heads[each.team_id])
    return found + [
        f"{count} sockets of team {team} did not see its last events" for team, count in behind.items()
    ]


def grown(memory: Mapping[str, Sequence[float]]) -> list[str]:
    """What grew from the first time that it was looked at to the last; whatever was down at a time has no figure of it."""
    seen = {kind: [each for each in figures if each] for kind, figures in memory.items()}
    return [
        f"{kind} grew from {figures[0]:.0f} to {figures[-1]:.0f} MB"
        for kind, figures in seen.items()
        if figures and figures[-1] > max(figures[0] * GROWTH, figures[0] + GROWTH_MB)
    ]


def run(data: Path, seconds: float, *, sockets: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """Starts a product in `data`, loads and disturbs it for so long, and compares when all has settled."""
    with running(data, free_port(), BILLING_GRACE_HOURS="0") as stack:
        return Soak(stack, seconds, sockets, say).run()


def show(report: Report) -> None:
    """The tables, and every difference."""
    print_table(
        ("fault", "at s", "s to 10 answers", "s to all sockets"),
        [
            [each.name, f"{each.at_s:.0f}", f"{each.recovery_s:.1f}", f"{each.sockets_s:.1f}"]
            for each in report.faults
        ],
    )
    click.echo()
    print_table(
        ("largest process, MB resident", "start", "middle", "end"),
        [[kind, *(f"{each:.0f}" for each in figures)] for kind, figures in report.memory_mb.items()],
    )
    click.echo()
    print_table(
        ("answer", "calls"), [[str(status), f"{count:,}"] for status, count in report.statuses.most_common()]
    )
    shown = sum(each.events for each in report.seen)
    click.echo(
        f"\n{report.seconds:.0f} s, {len(report.teams)} teams\n"
        f"calls: {sum(team.answered for team in report.teams):,} answered, {sum(team.unsure for team in report.teams):,} cut off "
        f"({report.statuses[UNANSWERED]:,}) or refused with 5xx, {sum(kept.calls for kept in report.kept):,} counted\n"
        f"{sum(len(kept.tasks) for kept in report.kept):,} tasks, {sum(len(kept.ledger) for kept in report.kept):,} other ledger "
        f"rows and {sum(len(kept.log) for kept in report.kept):,} rows of the log, compared one by one; "
        f"{report.exports} exports read through, {report.invoices} invoices read as PDF\n"
        f"{len(report.seen):,} sockets: {shown:,} events, {sum(each.connects for each in report.seen) - len(report.seen):,} "
        f"reconnects, {sum(each.resets for each in report.seen)} resets\n"
        f"{len(report.differences)} differences"
    )
    for difference in list(report.differences)[:100]:
        click.echo(f"  {difference}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sockets", type=int, default=2_000)
    parser.add_argument("--data", type=Path, help="keep the product's data and logs in this directory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agenthq-soak-", ignore_cleanup_errors=True) as temporary:
        report = run(
            arguments.data or Path(temporary),
            arguments.minutes * 60,
            sockets=arguments.sockets,
            say=click.echo,
        )
    show(report)
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
