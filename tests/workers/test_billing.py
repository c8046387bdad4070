"""The billing tasks: each twice, by two beats at once, and once after it died; and what an operator is shown."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from click.testing import Result
from flask import Flask
from sqlalchemy.exc import ProgrammingError
from uuid_utils.compat import uuid7

from models.database import transaction
from models.operations import closing, estimates, job_runs, recounts, teams
from models.operations.closing import TeamMonth
from models.settings import settings
from tests import billing
from tests.factories import TeamSetting, execute, fetch, fold
from tests.models.concurrency import FellOver, dying, raised, together
from workers import billing as jobs

JANUARY = date(2025, 1, 1)


@pytest.fixture(autouse=True)
def _nothing_else_is_open() -> None:
    """Of other tests: what they left open would be closed here too."""
    execute("UPDATE month_closes SET due_at = now() + interval '1 year' WHERE state <> 'final'")
    execute("DELETE FROM usage_differences")


def finals(team: TeamSetting) -> list[tuple[date, int]]:
    return [(each.period_start, each.total) for each in billing.invoices(team) if each.state == "final"]


def test_the_close(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    billing.on_plans(team, ("pro", "2025-01-01", "2025-03-01"))
    for step in ("draft", "finalize"):
        with monkeypatch.context() as patched:
            patched.setattr(closing, step, dying(getattr(closing, step)))
            with pytest.raises(FellOver):
                jobs.close()
        assert finals(team) == []
    for _ in range(2):
        jobs.close()
        assert finals(team) == [(JANUARY, 4_900), (date(2025, 2, 1), 4_900)]
    (invoice, _) = billing.invoices(team)
    assert invoice.seller["name"] == settings().seller_name


def test_any_number_of_beats_close_once(team: TeamSetting) -> None:
    billing.on_plans(team, ("pro", "2025-01-01", "2025-04-01"))
    assert raised(together(*[jobs.close] * 5)) == []
    jobs.close()
    assert [total for _, total in finals(team)] == [4_900] * 3
    assert len(billing.events(team, "invoice_finalized")) == 3


def test_trouble_with_one_month_holds_up_no_other(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    billing.on_plans(team, ("pro", "2025-01-01", "2025-03-01"))
    finalize = closing.finalize

    def troubled(session: Any, of: TeamMonth, **named: Any) -> Any:
        if of.month == JANUARY:
            raise RuntimeError("no luck")
        return finalize(session, of, **named)

    with monkeypatch.context() as patched:
        patched.setattr(closing, "finalize", troubled)
        jobs.close()
    assert finals(team) == [(date(2025, 2, 1), 4_900)]
    jobs.close()
    assert sorted(finals(team)) == [(JANUARY, 4_900), (date(2025, 2, 1), 4_900)]


def test_a_run_ends_in_time_and_the_next_one_goes_on(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing.on_plans(team, ("pro", "2025-01-01", "2025-03-01"))
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "LONGEST_RUN_S", 0)
        jobs.close()
    assert billing.invoices(team) == []
    jobs.close()
    assert len(finals(team)) == 2


def test_a_voided_month_is_drafted_again_at_once(team: TeamSetting) -> None:
    billing.on_plans(team, ("pro", "2025-01-01", "2025-02-01"))
    jobs.close()
    (invoice,) = billing.invoices(team)
    answer = team.owner.post(f"{team.path}/invoices/{invoice.id}/void", json={"reason": "wrong"})
    assert answer.status_code == 201
    for _ in range(2):
        jobs.close()
        drafts = [each for each in billing.invoices(team) if each.state == "draft"]
        assert [(each.revision, each.total) for each in drafts] == [(2, 4_900)]


def test_a_period_is_claimed_once_and_a_crash_gives_it_back() -> None:
    job = uuid7().hex

    def claim() -> bool:
        with transaction() as session:
            return job_runs.claim(session, job, "2026-01-01")

    def claim_and_die() -> None:
        with transaction() as session:
            assert job_runs.claim(session, job, "2026-01-01")
            raise FellOver

    with pytest.raises(FellOver):
        claim_and_die()
    outcomes = together(*[claim] * 8)
    assert sorted(outcomes) == [False] * 7 + [True]
    assert claim() is False
    with transaction() as session:
        assert (job_runs.last_period(session, job), job_runs.is_done(session, job, "2026-01-02")) == (
            "2026-01-01",
            False,
        )


def estimate_of(team: TeamSetting) -> list[Any]:
    return fetch(
        "SELECT month, as_of, currency, total, lines FROM charge_estimates WHERE team_id = :id", id=team.id
    )


def test_the_estimate(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    month = datetime.now(UTC).date().replace(day=1)
    billing.on_plans(team, ("pro", month.isoformat(), None))
    billing.used(team, "llm_tokens_used", 75_000_000, f"{month.isoformat()}T00:00")
    execute("DELETE FROM job_runs WHERE job = 'charges.estimate'")
    with monkeypatch.context() as patched:
        patched.setattr(estimates, "estimate", dying(estimates.estimate))
        with pytest.raises(FellOver):
            jobs.estimate()
    assert estimate_of(team) == []
    assert raised(together(jobs.estimate, jobs.estimate)) == []
    ((found_month, as_of, currency, total, lines),) = estimate_of(team)
    assert (found_month, currency, total) == (month, "USD", 4_900 + 1_000)
    assert as_of <= datetime.now(UTC) < as_of + timedelta(hours=2)
    assert {line["metric"] or line["kind"]: line["amount"] for line in lines}["llm_tokens_used"] == 1_000
    billing.used(team, "llm_tokens_used", 25_000_000, f"{month.isoformat()}T00:00")
    jobs.estimate()
    assert estimate_of(team)[0].total == 5_900  # once an hour
    # An hour later, by the clock of those who ask for it.
    assert jobs.estimate_all(as_of + timedelta(hours=1), time.monotonic() + 60)
    assert estimate_of(team)[0].total == 6_900


def recount(day: date) -> list[recounts.Difference] | None:
    with transaction() as session:
        return recounts.recount(session, day)


@pytest.fixture
def ledger_of_today() -> Iterator[date]:
    """The recount of today, which nobody has done before."""
    yield datetime.now(UTC).date()
    execute("DELETE FROM job_runs WHERE job = 'usage.recount'")


def test_the_recount_finds_what_differs_on_any_day_that_was_touched(
    team: TeamSetting, ledger_of_today: date
) -> None:
    billing.used(team, "llm_tokens_used", 7, "2020-02-29")  # recorded today
    billing.used(team, "api_calls", 3, "2020-02-29")
    fold()
    execute(
        "UPDATE usage_stats SET llm_tokens_used = 8 WHERE team_id = :id AND date = '2020-02-29'", id=team.id
    )
    execute(
        "UPDATE usage_breakdowns SET quantity = 2 WHERE team_id = :id AND date = '2020-02-29' AND metric = 'api_calls'",
        id=team.id,
    )
    found = recount(ledger_of_today)
    assert found is not None
    assert [each for each in found if each.team_id == team.id] == [
        (team.id, date(2020, 2, 29), "api_calls", 3, 3, 2),
        (team.id, date(2020, 2, 29), "llm_tokens_used", 7, 8, 7),
    ]
    kept = fetch(
        "SELECT metric, ledger, daily, broken_down FROM usage_differences WHERE team_id = :id ORDER BY 1",
        id=team.id,
    )
    assert [tuple(row) for row in kept] == [("api_calls", 3, 3, 2), ("llm_tokens_used", 7, 8, 7)]
    assert recount(ledger_of_today) is None  # it was done
    # What was put right is forgotten by the next one, on whichever day it was.
    execute(
        "UPDATE usage_stats SET llm_tokens_used = 7 WHERE team_id = :id AND date = '2020-02-29'", id=team.id
    )
    assert recount(ledger_of_today - timedelta(days=4_000)) is not None
    kept = fetch("SELECT metric FROM usage_differences WHERE team_id = :id", id=team.id)
    assert [row.metric for row in kept] == ["api_calls"]


def test_what_is_not_folded_yet_is_no_difference(team: TeamSetting, ledger_of_today: date) -> None:
    billing.used(team, "storage_bytes", 10**15, "2024-01-31")
    found = recount(ledger_of_today)
    assert found is not None
    assert [each for each in found if each.team_id == team.id] == []


def test_days_that_were_missed_are_recounted_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    execute("DELETE FROM job_runs WHERE job = 'usage.recount'")
    today = datetime.now(UTC).date()
    with transaction() as session:
        assert job_runs.claim(session, recounts.JOB, (today - timedelta(days=4)).isoformat())
    missed = [today - timedelta(days=number) for number in (3, 2, 1)]
    with transaction() as session:
        midnight = datetime.combine(today, datetime.min.time(), UTC)
        assert recounts.open_days(session, midnight + timedelta(hours=1)) == missed
        assert recounts.open_days(session, midnight + timedelta(minutes=59)) == missed[:-1]
    with monkeypatch.context() as patched:
        patched.setattr(recounts, "recount", dying(recounts.recount))
        with pytest.raises(FellOver):
            jobs.recount()
    assert raised(together(jobs.recount, jobs.recount)) == []
    done = [row.period for row in fetch("SELECT period FROM job_runs WHERE job = 'usage.recount' ORDER BY 1")]
    settled = missed if datetime.now(UTC) >= midnight + timedelta(hours=1) else missed[:-1]
    assert done[1:] == [day.isoformat() for day in settled]
    execute("DELETE FROM job_runs WHERE job = 'usage.recount'")


def run(app: Flask, *arguments: str) -> Result:
    with app.app_context():
        return app.test_cli_runner().invoke(args=["billing", *arguments])


def shown(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.output.splitlines()]


def test_an_operator_sees_differences_and_mismatches(app: Flask, team: TeamSetting) -> None:
    assert (run(app, "differences").exit_code, run(app, "differences").output) == (0, "")
    execute(
        "INSERT INTO usage_differences (team_id, date, metric, ledger, daily, broken_down) VALUES (:id, '2025-01-02', 'api_calls', 3, 2, 3)",
        id=team.id,
    )
    listed = run(app, "differences")
    assert listed.exit_code == 1
    (row,) = shown(listed)
    assert (row["team_id"], row["date"], row["ledger"], row["daily"]) == (
        str(team.id),
        "2025-01-02",
        "3",
        "2",
    )
    billing.on_plans(team, ("pro", "2025-01-01", "2025-02-01"))
    billing.draft(team)
    (draft,) = billing.invoices(team)
    execute("UPDATE invoice_lines SET amount = 1 WHERE invoice_id = :id", id=draft.id)
    jobs.close()
    listed = run(app, "mismatches")
    assert listed.exit_code == 1
    (row,) = [each for each in shown(listed) if each["team_id"] == str(team.id)]
    assert (row["month"], row["problem"]["kind"]) == ("2025-01-01", "draft")
    assert run(app, "redraft", str(team.id), "2025-01").exit_code == 0
    jobs.close()
    assert finals(team) == [(JANUARY, 4_900)]
    refused = run(app, "redraft", str(team.id), "2025-01")
    assert (refused.exit_code, "no open close" in refused.output) == (1, True)


def test_an_operator_marks_and_voids_by_number(app: Flask, team: TeamSetting) -> None:
    billing.on_plans(team, ("pro", "2025-01-01", "2025-03-01"))
    jobs.close()
    january, february = billing.invoices(team)
    unpaid = {row["number"]: row["state"] for row in shown(run(app, "unpaid"))}
    assert (unpaid[january.number], unpaid[february.number]) == ("open", "open")
    assert run(app, "mark-paid", january.number).exit_code == 0
    assert january.number not in {row["number"] for row in shown(run(app, "unpaid"))}
    assert len(billing.events(team, "invoice_paid")) == 1
    again = run(app, "mark-paid", january.number)
    assert (again.exit_code, "paid already" in again.output) == (1, True)
    voided = run(app, "void", february.number, "--reason", "wrong buyer")
    assert voided.exit_code == 0
    note = billing.invoices(team)[-1]
    assert (voided.output.strip(), note.kind, note.reason) == (note.number, "credit_note", "wrong buyer")
    assert run(app, "mark-paid", note.number).exit_code == 1
    assert run(app, "void", "1999-000001", "--reason", "x").exit_code == 1


def test_what_was_invoiced_outlives_the_team(app: Flask, team: TeamSetting) -> None:
    billing.on_plans(team, ("pro", "2025-01-01", "2025-03-01"))
    billing.used(team, "llm_tokens_used", 60_000_001, "2025-01-05")
    jobs.close()
    january, february = billing.invoices(team)
    wanted = [
        [(line.position, line.description, line.unrounded, line.amount) for line in billing.lines(invoice.id)]
        for invoice in (january, february)
    ]
    assert run(app, "mark-paid", january.number).exit_code == 0
    assert run(app, "archived", "--team", str(team.id)).output == ""
    execute("UPDATE teams SET deleted_at = now() - interval '31 days' WHERE id = :id", id=team.id)
    with transaction() as session:
        assert teams.purge_one(session) == team.id
    assert fetch("SELECT FROM invoices WHERE team_id = :id", id=team.id) == []

    kept = [
        json.loads(line, parse_float=Decimal)
        for line in run(app, "archived", "--team", str(team.id)).output.splitlines()
    ]
    assert [each["number"] for each in kept] == [january.number, february.number]
    assert [each["total"] for each in kept] == [january.total, february.total]
    assert [each["payment"]["state"] for each in kept] == ["paid", "open"]
    assert [
        [(line["position"], line["description"], line["unrounded"], line["amount"]) for line in each["lines"]]
        for each in kept
    ] == wanted
    with pytest.raises(ProgrammingError, match="never changes"):
        execute("UPDATE archived_invoices SET team_name = 'x' WHERE purged_team_id = :id", id=team.id)


def test_an_operator_sees_estimates(app: Flask, team: TeamSetting) -> None:
    execute(
        "INSERT INTO charge_estimates (team_id, month, as_of, currency, total, lines) VALUES (:id, '2099-01-01', now(), 'USD', 5, '[]')",
        id=team.id,
    )
    for arguments in ([], ["--month", "2099-01"]):
        (row,) = shown(run(app, "estimates", *arguments))
        assert (row["team_id"], row["total"], row["currency"]) == (str(team.id), 5, "USD")
    assert run(app, "estimates", "--month", "1999-01").output == ""
    execute("DELETE FROM charge_estimates WHERE team_id = :id", id=team.id)


def test_the_clock_of_a_close_is_the_databases(team: TeamSetting) -> None:
    """A worker whose own clock runs a year ahead closes nothing that has not ended."""
    billing.on_plans(team, ("pro", datetime.now(UTC).date().replace(day=1).isoformat(), None))
    with time_machine.travel(datetime.now(UTC) + timedelta(days=365), tick=True):
        jobs.close()
    assert billing.invoices(team) == []
