"""The close of a month: each once, exact, numbered without gaps, and never changed after."""

import json
import threading
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from flask import Flask
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models.access.actor import System
from models.database import engine, transaction
from models.errors import Conflict, Unavailable
from models.operations import closing, invoices, teams
from models.operations.closing import TeamMonth
from models.queries import teams as team_queries
from models.tables import Invoice, MonthClose
from tests import billing
from tests.billing import ISSUER, SELLER, at, draft, events, finalize, lines, on_plans, used
from tests.factories import TeamSetting, execute, fetch, fold, make_team
from tests.models.concurrency import raised, together

JANUARY, FEBRUARY, MARCH = date(2025, 1, 1), date(2025, 2, 1), date(2025, 3, 1)


def half_up(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def pro(usage: dict[str, Decimal]) -> int:
    """What a whole month on the pro plan of the shipped book costs, from its terms as they are written."""
    tasks = max(usage["tasks_completed"] - 20_000, Decimal(0)) / 1_000
    tokens = max(usage["llm_tokens_used"] - 50_000_000, Decimal(0))
    calls = max(usage["api_calls"] - 5_000_000, Decimal(0))
    stored = max(usage["storage_bytes"] - 50, Decimal(0))
    cheap_tokens, cheap_calls = max(tokens - 450_000_000, Decimal(0)), max(calls - 45_000_000, Decimal(0))
    return (
        4_900
        + half_up(tasks.to_integral_value(ROUND_CEILING) * 200)
        + half_up((tokens - cheap_tokens) * Decimal("0.00004") + cheap_tokens * Decimal("0.00003"))
        + half_up((calls - cheap_calls) * Decimal("0.00006") + cheap_calls * Decimal("0.00004"))
        + half_up(stored * 10)
    )


@pytest.fixture
def setting(bare_team: TeamSetting) -> TeamSetting:
    """A team whose ledger holds nothing yet."""
    return bare_team


def finals(team: TeamSetting) -> list[Any]:
    return [invoice for invoice in billing.invoices(team) if invoice.state == "final"]


def charged(team: TeamSetting) -> dict[date, int]:
    """By month, what the team was charged for it, by all its invoices and credit notes."""
    rows = fetch("SELECT month, sum(amount)::bigint FROM charges WHERE team_id = :id GROUP BY 1", id=team.id)
    return {month: amount for month, amount in rows if amount}


def test_a_year_month_by_month(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2024-01-01", "2025-01-01"))
    expected: dict[date, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    stored = Decimal(0)
    for number in range(1, 13):
        begins = at(f"2024-{number:02d}-01")
        ends = (begins + timedelta(days=32)).replace(day=1)
        month = expected[begins.date()]
        for metric, quantity in (
            ("tasks_created", 30_000 * number),
            ("tasks_completed", 20_000 + (number - 1) * 500),
            ("llm_tokens_used", 49_999_987 * number + 11),
            ("api_calls", 5_000_001 * number),
        ):
            used(setting, metric, quantity, f"2024-{number:02d}-15T03:04:05")
            month[metric] += quantity
        changed = at(f"2024-{number:02d}-10T06:00")
        month["byte_seconds"] = stored * int((ends - begins).total_seconds())
        change = 90 * 10**9 if number % 2 else -30 * 10**9
        month["byte_seconds"] += change * int((ends - changed).total_seconds())
        used(setting, "storage_bytes", change, f"2024-{number:02d}-10T06:00")
        stored += change
        month["storage_bytes"] = month["byte_seconds"] / 10**9 / int((ends - begins).total_seconds())
        if number % 3 == 0:
            fold()
    closes = billing.close(setting)
    assert [each.state for each in closes] == ["final"] * len(closes)
    assert [each.month for each in closes][:12] == list(expected)
    found = {invoice.period_start: invoice.total for invoice in finals(setting)}
    assert found == {month: pro(usage) for month, usage in expected.items()}
    assert charged(setting) == found
    for invoice in finals(setting):
        assert invoice.total == sum(line.amount for line in lines(invoice.id))
        assert all(line.amount == half_up(line.unrounded) for line in lines(invoice.id))
    # The ledger, the daily sums and the invoices say the same of what was used.
    for metric in ("tasks_created", "tasks_completed", "llm_tokens_used", "api_calls"):
        invoiced = sum(
            line.quantity
            for invoice in finals(setting)
            for line in lines(invoice.id)
            if line.metric == metric
        )
        assert invoiced == sum(month[metric] for month in expected.values())


def test_it_is_done_once_and_the_events_say_so(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-03-01"))
    billing.close(setting)
    before = billing.invoices(setting)
    assert [(each.period_start, each.total) for each in before] == [(JANUARY, 4_900), (FEBRUARY, 4_900)]
    assert draft(setting) == []
    assert finalize(setting) == []
    assert billing.invoices(setting) == before
    told = events(setting, "invoice_finalized")
    assert [(each["name"], each["total"], each["amount"]) for each in told] == [
        (each.number, 4_900, "49.00 USD") for each in before
    ]
    assert told[0] == {
        "invoice_id": str(before[0].id),
        "name": before[0].number,
        "period_start": "2025-01-01",
        "period_end": "2025-02-01",
        "total": 4_900,
        "currency": "USD",
        "amount": "49.00 USD",
    }
    assert before[0].seller == SELLER
    assert before[0].buyer == {"name": "Design", "address": "", "tax_id": None, "email": None}


@pytest.mark.parametrize(
    ("month", "days"), [("2025-01", 31), ("2025-02", 28), ("2024-02", 29), ("2025-04", 30)]
)
def test_a_plan_taken_up_within_a_month_costs_its_share_of_it(
    setting: TeamSetting, month: str, days: int
) -> None:
    """Pitfall: a month that is short, and an anchor on the 31st."""
    starts = f"{month}-{days}"
    begins = at(starts)
    on_plans(setting, ("pro", starts, (begins + timedelta(days=1)).date().isoformat()))
    execute("UPDATE teams SET deleted_at = now() WHERE id = :id", id=setting.id)
    billing.close(setting)
    (invoice,) = finals(setting)
    (line,) = lines(invoice.id)
    assert (line.kind, line.starts_on, line.ends_on - line.starts_on) == (
        "base",
        begins.date(),
        timedelta(days=1),
    )
    assert invoice.total == half_up(Decimal(4_900) / days)
    assert (invoice.period_start, invoice.period_end) == (
        begins.date().replace(day=1),
        begins.date() + timedelta(days=1),
    )


def test_a_change_of_plan_splits_the_month_at_its_second(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-04-01", "2025-04-11"), ("enterprise", "2025-04-11", "2025-05-01"))
    for when in ("2025-04-10T23:59:59.999999", "2025-04-11T00:00:00"):
        used(setting, "llm_tokens_used", 1_000_000_000, when)
    billing.close(setting)
    (invoice,) = finals(setting)
    by = {(line.plan, line.metric): line for line in lines(invoice.id)}
    assert by["pro", None].amount == half_up(Decimal(4_900) / 3)
    assert by["enterprise", None].amount == half_up(Decimal(99_000) * 2 / 3)
    over = Decimal(1_000_000_000) - Decimal(50_000_000) / 3
    assert by["pro", "llm_tokens_used"].amount == half_up(
        450_000_000 * Decimal("0.00004") + (over - 450_000_000) * Decimal("0.00003")
    )
    assert by["enterprise", "llm_tokens_used"].amount == 0
    assert {
        key[1]: line.quantity for key, line in by.items() if key == ("enterprise", "llm_tokens_used")
    } == {"llm_tokens_used": 1_000_000_000}


def test_nothing_is_issued_where_nothing_is_charged(setting: TeamSetting) -> None:
    on_plans(setting, ("free", "2025-01-01", "2025-02-01"))
    used(setting, "api_calls", 1_000_000, "2025-01-15")
    execute("UPDATE teams SET deleted_at = now() WHERE id = :id", id=setting.id)
    (done,) = billing.close(setting)
    assert (done.state, done.invoice_id, billing.invoices(setting)) == ("final", None, [])
    ((quantity,),) = fetch(
        "SELECT quantity FROM charges WHERE team_id = :id AND metric = 'api_calls'", id=setting.id
    )
    assert quantity == 1_000_000


def this_month(months_ago: int = 0) -> date:
    month = datetime.now(UTC).date().replace(day=1)
    for _ in range(months_ago):
        month = (month - timedelta(days=1)).replace(day=1)
    return month


@pytest.mark.parametrize(("elapsed", "final"), [(False, False), (True, True)])
def test_it_is_final_when_the_grace_is_over(setting: TeamSetting, elapsed: bool, final: bool) -> None:
    last = this_month(1)
    on_plans(setting, ("pro", last.isoformat(), None))
    since_its_end = datetime.now(UTC) - datetime.combine(this_month(), datetime.min.time(), UTC)
    grace = since_its_end + timedelta(hours=-1 if elapsed else 1)
    issuer = invoices.Issuer(seller=SELLER, provider="null", grace=grace)
    assert draft(setting, issuer=issuer) == [last]
    (invoice,) = billing.invoices(setting)
    assert (invoice.state, invoice.number, invoice.total) == ("draft", None, 4_900)
    finalize(setting, issuer=issuer)
    (invoice,) = billing.invoices(setting)
    assert invoice.state == ("final" if final else "draft")


def test_a_month_that_goes_on_is_not_drafted(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", this_month().isoformat(), None))
    assert draft(setting) == []


def test_late_usage_within_the_grace_is_in_the_invoice(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    draft(setting)
    (before,) = billing.invoices(setting)
    used(setting, "llm_tokens_used", 60_000_000, "2025-01-31T23:59:59")
    finalize(setting)
    (after,) = billing.invoices(setting)
    assert (before.id, before.total, after.state, after.total) == (after.id, 4_900, "final", 4_900 + 400)


def test_late_usage_and_corrections_are_adjusted_in_the_month_that_they_belong_to(
    setting: TeamSetting,
) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-03-01"))
    used(setting, "llm_tokens_used", 49_999_999, "2025-01-05")
    used(setting, "api_calls", 6_000_000, "2025-01-05")
    ((calls,),) = fetch(
        "SELECT id FROM usage_ledger WHERE team_id = :id AND metric = 'api_calls' AND quantity > 1",
        id=setting.id,
    )
    for_january(setting)
    # 49,999,999 were included; of 25,000 more the first is too, and a fraction of a cent is owed that was not before.
    used(setting, "llm_tokens_used", 25_000, "2025-01-31")
    billing.reverse(setting, calls)
    used(setting, "tasks_created", 3, "2025-01-31")
    billing.close(setting)
    january, february = finals(setting)
    assert (january.total, february.total) == (4_900 + 60, 4_900 + 1 - 60)
    found = [line for line in lines(february.id) if line.kind == "adjustment"]
    assert {line.metric: (line.quantity, line.amount, line.unit) for line in found} == {
        "tasks_created": (3, 0, "tasks"),
        "llm_tokens_used": (25_000, 1, "tokens"),
        "api_calls": (-6_000_000, -60, "calls"),
    }
    assert {(line.starts_on, line.ends_on) for line in found} == {(JANUARY, FEBRUARY)}
    assert found[0].description.startswith("Adjustment of January 2025: Pro plan")
    assert charged(setting) == {JANUARY: 4_901, FEBRUARY: 4_900}


def for_january(setting: TeamSetting) -> None:
    """Finalizes January alone, as if it were the second of February; the rest is drafted later."""
    of = TeamMonth(setting.id, JANUARY)
    with transaction() as session:
        assert closing.draft(session, of, grace=ISSUER.grace)
    with transaction() as session:
        done = closing.finalize(session, of, issuer=ISSUER)
    assert done is not None
    assert done.state == "final"


def test_late_storage_is_adjusted_in_every_month_since(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-04-01"))
    for_january(setting)
    with transaction() as session:
        assert closing.draft(session, TeamMonth(setting.id, FEBRUARY), grace=ISSUER.grace)
    with transaction() as session:
        assert closing.finalize(session, TeamMonth(setting.id, FEBRUARY), issuer=ISSUER)
    used(setting, "storage_bytes", 100 * 10**9, "2025-01-16T12:00")
    billing.close(setting)
    march = finals(setting)[-1]
    by = {line.starts_on: line.amount for line in lines(march.id) if line.metric == "storage_bytes"}
    assert by == {JANUARY: 0, FEBRUARY: 500, MARCH: 500}  # half of January was included
    assert charged(setting) == {JANUARY: 4_900, FEBRUARY: 5_400, MARCH: 5_400}


def test_sums_that_do_not_agree_stop_the_close_and_say_where(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    used(setting, "llm_tokens_used", 60_000_000, "2025-01-07")
    fold()
    execute(
        "UPDATE usage_stats SET llm_tokens_used = llm_tokens_used - 1 WHERE team_id = :id AND date = '2025-01-07'",
        id=setting.id,
    )
    closes = billing.close(setting)
    assert {each.month: each.state for each in closes}[JANUARY] == "mismatch"
    assert finals(setting) == []
    ((state, problem, due),) = fetch(
        "SELECT state, problem, due_at > now() FROM month_closes WHERE team_id = :id AND month = '2025-01-01'",
        id=setting.id,
    )
    assert (state, due) == ("mismatch", True)
    assert problem == {
        "kind": "recount",
        "differences": [
            {
                "date": "2025-01-07",
                "metric": "llm_tokens_used",
                "ledger": "60000000",
                "daily": "59999999",
                "broken_down": "60000000",
            }
        ],
    }
    execute(
        "UPDATE usage_stats SET llm_tokens_used = llm_tokens_used + 1 WHERE team_id = :id AND date = '2025-01-07'",
        id=setting.id,
    )
    assert finalize(setting) == []  # not before the hour is over
    execute(
        "UPDATE month_closes SET due_at = now() WHERE team_id = :id AND state = 'mismatch'", id=setting.id
    )
    assert [each.state for each in finalize(setting)] == ["final"]
    assert [each.total for each in finals(setting)] == [5_300]


def test_a_breakdown_that_does_not_agree_stops_it_too(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    used(setting, "api_calls", 7, "2025-01-07")
    fold()
    execute(
        "UPDATE usage_breakdowns SET quantity = 8 WHERE team_id = :id AND date = '2025-01-07'", id=setting.id
    )
    assert {each.month: each.state for each in billing.close(setting)}[JANUARY] == "mismatch"


def test_a_draft_that_is_not_what_was_counted_stops_it(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    draft(setting)
    (invoice,) = billing.invoices(setting)
    execute("UPDATE invoice_lines SET amount = 1 WHERE invoice_id = :id", id=invoice.id)
    states = {each.month: each for each in finalize(setting)}
    assert states[JANUARY].state == "mismatch"
    assert states[JANUARY].problem["kind"] == "draft"  # type: ignore[index]  # a mismatch has one
    with transaction() as session:
        closing.redraft(session, TeamMonth(setting.id, JANUARY))
    execute("UPDATE month_closes SET due_at = now() WHERE team_id = :id", id=setting.id)
    finalize(setting)
    assert [each.total for each in finals(setting)] == [4_900]


def test_what_was_charged_before_is_not_charged_again(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    execute(
        "INSERT INTO charges (team_id, month, kind, plan, quantity, unrounded, amount) "
        "VALUES (:id, '2025-01-01', 'base', 'pro', 1, 4900, 4900)",
        id=setting.id,
    )
    assert {each.month: each.problem and each.problem["kind"] for each in billing.close(setting)}[
        JANUARY
    ] == ("charged_before")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE invoices SET total = 1 WHERE id = :id",
        "UPDATE invoices SET state = 'draft', number = NULL, finalized_at = NULL WHERE id = :id",
        "DELETE FROM invoices WHERE id = :id",
        "UPDATE invoice_lines SET amount = 1 WHERE invoice_id = :id",
        "DELETE FROM invoice_lines WHERE invoice_id = :id",
        """INSERT INTO invoice_lines (invoice_id, position, kind, description, plan, quantity, unit, starts_on, ends_on, unrounded,
           amount, details, team_id) SELECT id, 99, 'base', '', 'pro', 1, '', period_start, period_end, 1, 1, '{}', team_id
           FROM invoices WHERE id = :id""",
        "UPDATE charges SET amount = 1 WHERE invoice_id = :id",
        "DELETE FROM charges WHERE invoice_id = :id",
    ],
)
def test_a_final_invoice_never_changes(setting: TeamSetting, statement: str) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    billing.close(setting)
    (invoice,) = finals(setting)
    before = (lines(invoice.id), billing.invoices(setting), charged(setting))
    with pytest.raises(DBAPIError) as refused:
        execute(statement, id=invoice.id)
    assert isinstance(refused.value.orig, InsufficientPrivilege)
    assert "never changes" in str(refused.value.orig)
    assert (lines(invoice.id), billing.invoices(setting), charged(setting)) == before


def test_two_closers_at_once_close_once(app: Flask) -> None:
    settings = [make_team(app, roles=()) for _ in range(3)]
    for team in settings:
        on_plans(team, ("pro", "2025-01-01", "2025-04-01"))
        used(team, "llm_tokens_used", 60_000_000, "2025-02-07")

    def close_all() -> None:
        for team in settings:
            billing.close(team)

    assert raised(together(*[close_all] * 6)) == []
    close_all()  # what was left to another who had it in hand
    for team in settings:
        assert [(each.period_start, each.total, each.revision) for each in finals(team)] == [
            (JANUARY, 4_900, 1),
            (FEBRUARY, 5_300, 1),
            (MARCH, 4_900, 1),
        ]
        assert len(events(team, "invoice_finalized")) == 3
    assert_gapless()


def assert_gapless() -> None:
    """The numbers of each year are 1 to the last one given, in the order of finalizing."""
    numbers = defaultdict(list)
    for (number,) in fetch("SELECT number FROM invoices WHERE number IS NOT NULL ORDER BY finalized_at"):
        year, _, of_year = number.partition("-")
        numbers[int(year)].append(int(of_year))
    given = dict(fetch("SELECT year, last FROM invoice_numbers"))
    assert numbers == {year: list(range(1, last + 1)) for year, last in given.items()}


class FellOver(Exception):
    """The process ends here."""


def test_numbers_have_no_gaps_whatever_fails_in_between(app: Flask) -> None:
    """Twenty finalizers at once, of which every third dies after it took its number."""
    settings = [make_team(app, roles=()) for _ in range(20)]
    for team in settings:
        on_plans(team, ("pro", "2025-01-01", "2025-02-01"))
        draft(team)

    def finalize_or_fall(number: int, team: TeamSetting) -> None:
        with transaction() as session:
            done = closing.finalize(session, TeamMonth(team.id, JANUARY), issuer=ISSUER)
            assert done is not None
            if number % 3 == 0:
                raise FellOver

    calls = [
        lambda number=number, team=team: finalize_or_fall(number, team)
        for number, team in enumerate(settings)
    ]
    outcomes = together(*calls)
    assert raised(outcomes) == [FellOver] * 7
    assert [len(finals(team)) for team in settings] == [int(number % 3 != 0) for number in range(20)]
    assert_gapless()
    for team in settings:
        finalize(team)
        assert len(finals(team)) == 1
    assert_gapless()


def test_a_close_that_is_killed_closes_nothing_and_goes_on_later(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    of = TeamMonth(setting.id, JANUARY)

    def killed(step: Any) -> None:
        with transaction() as session:
            assert step(session)
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with engine().connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    with pytest.raises(Unavailable):
        killed(lambda session: closing.draft(session, of, grace=ISSUER.grace))
    assert (
        billing.invoices(setting),
        fetch("SELECT FROM month_closes WHERE team_id = :id", id=setting.id),
    ) == ([], [])
    draft(setting)
    before = billing.invoices(setting)
    with pytest.raises(Unavailable):
        killed(lambda session: closing.finalize(session, of, issuer=ISSUER))
    assert billing.invoices(setting) == before
    assert events(setting, "invoice_finalized") == []
    assert charged(setting) == {}
    finalize(setting)
    assert [each.total for each in finals(setting)] == [4_900]
    assert_gapless()


def test_one_that_is_being_finalized_is_passed_over(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    draft(setting)
    of = TeamMonth(setting.id, JANUARY)
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        with transaction() as session:
            assert closing.finalize(session, of, issuer=ISSUER)
            begun.set()
            assert go_on.wait(30)

    def meanwhile() -> Any:
        assert begun.wait(30)
        try:
            with transaction() as session:
                return closing.finalize(session, of, issuer=ISSUER)
        finally:
            go_on.set()

    assert together(slowly, meanwhile) == [None, None]
    assert len(finals(setting)) == 1


def delete(setting: TeamSetting) -> None:
    with transaction() as session:
        access = setting.owner.enter(session, setting.id)
        teams.delete(session, access, team_queries.get(session, access, for_update=True))


def restore(setting: TeamSetting) -> None:
    assert setting.owner.post(f"{setting.path}/restore").status_code == 200


def share(setting: TeamSetting, plan: str = "pro") -> Decimal:
    """The share of this month that the plan's periods have lasted so far or were, exactly."""
    begins = datetime.combine(this_month(), datetime.min.time(), UTC)
    ends = (begins + timedelta(days=32)).replace(day=1)
    rows = fetch(
        "SELECT starts_at, coalesce(ends_at, :ends) FROM plan_periods WHERE team_id = :id AND plan = :plan",
        id=setting.id,
        plan=plan,
        ends=ends,
    )
    lasted = sum(((end - max(start, begins)) for start, end in rows), timedelta())
    return Decimal(lasted // timedelta(microseconds=1)) / Decimal(
        (ends - begins) // timedelta(microseconds=1)
    )


def test_a_team_that_is_deleted_within_the_month_owes_until_then(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", this_month().isoformat(), None))
    delete(setting)
    assert draft(setting) == [this_month()]
    assert finalize(setting) == []  # for a day, it may come back
    (invoice,) = billing.invoices(setting)
    assert invoice.total == half_up(4_900 * share(setting))
    execute("UPDATE month_closes SET due_at = now() WHERE team_id = :id", id=setting.id)
    finalize(setting)
    assert [each.total for each in finals(setting)] == [invoice.total]
    assert draft(setting) == []


def test_one_that_comes_back_within_the_grace_goes_on(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", this_month().isoformat(), None))
    delete(setting)
    draft(setting)
    restore(setting)
    execute("UPDATE month_closes SET due_at = now() WHERE team_id = :id", id=setting.id)
    assert finalize(setting) == []
    assert billing.invoices(setting) == []
    assert fetch("SELECT FROM month_closes WHERE team_id = :id", id=setting.id) == []
    assert draft(setting) == []
    ((last,),) = fetch("SELECT plan FROM plan_periods WHERE team_id = :id AND ends_at IS NULL", id=setting.id)
    assert last == "pro"


def test_one_that_comes_back_later_is_adjusted(setting: TeamSetting) -> None:
    last = this_month(1)
    on_plans(setting, ("pro", last.isoformat(), f"{last.isoformat()}T12:00"))
    execute(
        "UPDATE teams SET deleted_at = :at WHERE id = :id", id=setting.id, at=at(f"{last.isoformat()}T12:00")
    )
    billing.close(setting)
    (first,) = finals(setting)
    # It was restored on the 11th of last month, and left for the free plan as this one began.
    execute("UPDATE teams SET deleted_at = NULL WHERE id = :id", id=setting.id)
    execute(
        "UPDATE month_closes SET counted_at = :at WHERE team_id = :id",
        id=setting.id,
        at=at(f"{last.isoformat()}T13:00"),
    )
    execute(
        "INSERT INTO plan_periods (team_id, plan, price_book, starts_at, ends_at) VALUES"
        " (:id, 'pro', 1, :starts, :ends), (:id, 'pro', 1, :ends, NULL)",
        id=setting.id,
        starts=at(f"{last.replace(day=11).isoformat()}"),
        ends=at(this_month().isoformat()),
    )
    delete(setting)
    draft(setting)
    (_, second) = billing.invoices(setting)
    (adjusted,) = [line for line in lines(second.id) if line.kind == "adjustment"]
    days = (this_month() - last).days
    assert first.total == half_up(Decimal(4_900) / days / 2)
    assert (
        adjusted.amount
        == half_up(Decimal(4_900) / days / 2) + half_up(Decimal(4_900) * (days - 10) / days) - first.total
    )
    assert adjusted.description == f"Adjustment of {last:%B %Y}: Pro plan"


def void(setting: TeamSetting, invoice_id: Any, reason: str = "wrong buyer") -> Invoice:
    with transaction() as session:
        invoice = session.get_one(Invoice, invoice_id)
        return invoices.credit(session, System(setting.id), invoice, reason=reason, issuer=ISSUER)


def test_a_voided_invoice_is_credited_and_its_months_invoiced_anew(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-03-01"))
    for_january(setting)
    used(setting, "llm_tokens_used", 60_000_000, "2025-01-07")
    billing.close(setting)
    january, february = finals(setting)
    assert (january.total, february.total) == (4_900, 5_300)
    note = void(setting, february.id)
    assert (note.kind, note.credits, note.total, note.number is not None) == (
        "credit_note",
        february.id,
        -5_300,
        True,
    )
    assert [(line.kind, line.amount) for line in lines(note.id)] == [
        ("credit", -line.amount) for line in lines(february.id)
    ]
    assert charged(setting) == {JANUARY: 4_900}
    assert events(setting, "invoice_voided") == [
        {
            "invoice_id": str(february.id),
            "name": february.number,
            "credit_note_id": str(note.id),
            "credit_note": note.number,
            "reason": "wrong buyer",
        }
    ]
    with pytest.raises(Conflict):
        void(setting, february.id)
    with pytest.raises(Conflict):
        void(setting, note.id)
    assert finalize(setting) == []  # the grace begins anew
    with transaction() as session:
        assert TeamMonth(setting.id, FEBRUARY) in closing.reopened(session, limit=1_000)
        closing.redraft(session, TeamMonth(setting.id, FEBRUARY))
    assert [(each.revision, each.total) for each in billing.invoices(setting) if each.state == "draft"] == [
        (2, 5_300)
    ]
    execute("UPDATE month_closes SET due_at = now() WHERE team_id = :id AND state <> 'final'", id=setting.id)
    finalize(setting)
    again = finals(setting)[-1]
    assert (again.period_start, again.revision, again.total) == (FEBRUARY, 2, 5_300)
    assert charged(setting) == {JANUARY: 5_300, FEBRUARY: 4_900}
    assert sum(each.total for each in finals(setting)) == 10_200
    assert_gapless()


def test_a_draft_is_not_voided(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    draft(setting)
    (invoice,) = billing.invoices(setting)
    with pytest.raises(Conflict):
        void(setting, invoice.id)


def test_two_voids_at_once_credit_once(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    billing.close(setting)
    (invoice,) = finals(setting)
    outcomes = together(*[lambda: void(setting, invoice.id)] * 5)
    assert raised(outcomes) == [Conflict] * 4
    assert charged(setting) == {}
    assert_gapless()


def test_usage_before_the_first_plan_is_not_charged(setting: TeamSetting) -> None:
    on_plans(setting, ("pro", "2025-02-01", "2025-03-01"))
    used(setting, "llm_tokens_used", 900_000_000, "2025-01-31T23:59:59")
    billing.close(setting)
    assert [(each.period_start, each.total) for each in finals(setting)] == [(FEBRUARY, 4_900)]


def test_an_invoice_of_two_currencies_is_not_made(setting: TeamSetting) -> None:
    body = fetch("SELECT body FROM price_books WHERE version = 1")[0].body
    execute(
        "INSERT INTO price_books (version, body, sha256) VALUES (0, jsonb_set(jsonb_set(CAST(:body AS jsonb), '{currency}', '\"EUR\"'), '{version}', '1'), 'x')"
        " ON CONFLICT DO NOTHING",
        body=json.dumps(body),
    )
    on_plans(setting, ("pro", "2025-01-01", "2025-01-11"), ("pro", "2025-01-11", "2025-02-01"))
    execute(
        "UPDATE plan_periods SET price_book = 0 WHERE team_id = :id AND starts_at = '2025-01-11'",
        id=setting.id,
    )
    closes = {each.month: each for each in billing.close(setting)}
    assert closes[JANUARY].problem == {"kind": "currencies", "months": ["2025-01-01"]}


def test_the_close_knows_its_rows(setting: TeamSetting) -> None:
    """A close keeps what it was counted from, so that a draft that differs without reason is found out."""
    on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    used(setting, "storage_bytes", 10, "2024-12-31")
    used(setting, "api_calls", 10, "2025-01-31")
    draft(setting)
    with transaction() as session:
        basis: Any = session.get_one(MonthClose, (setting.id, JANUARY)).basis
    assert (basis["rows"], basis["opening"]) == (1, "10")
