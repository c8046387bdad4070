"""What a month costs: the shares are exact, the sums are those of an independent calculation, and each line rounds once."""

import calendar
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.charges import Line, Segment, bounds, lines_of
from models.money import Exact, round_half_up, truncated
from models.plans import PLANS, PackagePrice, Plan, Terms, Tier, TieredPrice, price_of
from models.tables.usage import Metric

NOVEMBER = date(2026, 11, 1)
MONTHS = st.dates(date(2024, 1, 1), date(2028, 12, 31)).map(lambda day: day.replace(day=1))


def plan(base: str = "3000", **terms: Terms) -> Plan:
    return Plan("pro", 5, Decimal(base), terms)


def per_unit(amount: str, included: int) -> Terms:
    return Terms(included, False, TieredPrice("graduated", (Tier(None, Decimal(amount), Decimal(0)),)))


def of(lines: Sequence[Line], metric: str | None) -> list[Line]:
    return [line for line in lines if line.metric == metric]


@pytest.mark.parametrize("month", [date(2026, 2, 1), date(2028, 2, 1), date(2026, 4, 1), date(2026, 12, 1)])
def test_a_whole_month_costs_its_plan_and_what_is_beyond_it(month: date) -> None:
    begins, ends = bounds(month)
    usage: dict[str, Exact] = {
        Metric.llm_tokens_used: Decimal(550_000_000),
        Metric.api_calls: Decimal(5_000_000),
        Metric.storage_bytes: Decimal("51.25"),
        Metric.tasks_completed: Decimal(20_001),
    }
    lines = lines_of(month, [Segment(PLANS["pro"], begins, ends, usage)], "USD")
    by_metric = {line.metric: line for line in lines}
    assert {metric: line.amount for metric, line in by_metric.items()} == {
        None: 4900,
        "tasks_completed": 200,
        "llm_tokens_used": 450_000_000 * 4 // 100_000 + 50_000_000 * 3 // 100_000,
        "api_calls": 0,
        "storage_bytes": 13,  # 12.5
    }
    base = by_metric[None]
    assert (base.kind, base.quantity, base.unit, base.plan) == ("base", Decimal(1), "months", "pro")
    assert (base.starts_on, base.ends_on) == (month, ends.date())
    assert base.details["share_of_month"] == "1/1"
    tokens = by_metric["llm_tokens_used"]
    assert (tokens.kind, tokens.quantity, tokens.unit) == ("usage", Decimal(550_000_000), "tokens")
    assert tokens.details["included"] == "50000000"
    assert tokens.details["charged"] == "500000000"
    assert [part["quantity"] for part in tokens.details["price"]["parts"]] == ["450000000", "50000000"]
    assert by_metric["storage_bytes"].unrounded == Decimal("12.5")
    assert by_metric["api_calls"].details["charged"] == "0"


def test_a_change_splits_the_month_to_the_second() -> None:
    begins, ends = bounds(NOVEMBER)
    at = begins + timedelta(days=10, seconds=1)
    before = Segment(
        plan("2592000", tasks_created=per_unit("1", 2_592_000)), begins, at, {"tasks_created": 864_002}
    )
    after = Segment(plan("0", tasks_created=per_unit("2", 0)), at, ends, {"tasks_created": Decimal("1.5")})
    lines = lines_of(NOVEMBER, [before, after], "USD")
    first, second = of(lines, None)
    assert (first.amount, second.amount) == (864_001, 0)
    assert (first.starts_on, first.ends_on) == (NOVEMBER, date(2026, 11, 12))
    assert (second.starts_on, second.ends_on) == (date(2026, 11, 11), date(2026, 12, 1))
    assert [line.amount for line in of(lines, "tasks_created")] == [1, 3]


@given(MONTHS, st.lists(st.floats(0, 1), max_size=4), st.data())
def test_shares_add_up_and_sums_are_those_of_a_naive_calculation(
    month: date, cuts: list[float], data: st.DataObject
) -> None:
    begins, ends = bounds(month)
    seconds = calendar.monthrange(month.year, month.month)[1] * 86_400
    times = [begins, *sorted(begins + timedelta(seconds=int(cut * seconds)) for cut in cuts), ends]
    price = TieredPrice(
        "graduated", (Tier(100, Decimal("0.7"), Decimal(3)), Tier(None, Decimal("0.2"), Decimal(0)))
    )
    terms = {
        "api_calls": Terms(1_000, False, price),
        "tasks_completed": Terms(7, False, PackagePrice(10, Decimal(9))),
    }
    segments: list[Segment] = []
    expected: list[Fraction] = []
    shares = Fraction(0)
    for start, end in pairwise(times):
        used = {metric: data.draw(st.integers(0, 5_000)) if end > start else 0 for metric in terms}
        base = data.draw(st.integers(1, 100_000))  # what costs nothing can be no line
        segments.append(Segment(Plan("pro", 1, Decimal(base), terms), start, end, used))
        share = Fraction(int((end - start).total_seconds()), seconds)
        shares += share
        if share:
            expected.append(base * share)
        for metric in ("tasks_completed", "api_calls"):
            over = used[metric] - terms[metric].included * share
            if used[metric] and metric == "api_calls":
                low, high = min(over, Fraction(100)), max(over - 100, Fraction(0))
                expected.append(
                    3 + low * Fraction(7, 10) + high * Fraction(1, 5) if over > 0 else Fraction(0)
                )
            elif used[metric]:
                expected.append(Fraction(-(-over // 10) * 9 if over > 0 else 0))
    lines = lines_of(month, segments, "USD")
    assert shares == sum(Fraction(line.details["share_of_month"]) for line in of(lines, None)) == 1
    assert [line.unrounded for line in lines] == [truncated(each) for each in expected]
    assert [line.amount for line in lines] == [round_half_up(each) for each in expected]


def test_a_line_is_rounded_once_and_half_up() -> None:
    begins, ends = bounds(NOVEMBER)
    # Two parts of 0.25 each: rounded one by one they would be nothing.
    price = TieredPrice(
        "graduated", (Tier(1, Decimal("0.25"), Decimal(0)), Tier(None, Decimal("0.25"), Decimal(0)))
    )
    for quantity, amount in ((1, 0), (2, 1), (3, 1), (6, 2)):
        segment = Segment(plan("0", api_calls=Terms(0, False, price)), begins, ends, {"api_calls": quantity})
        (line,) = of(lines_of(NOVEMBER, [segment], "USD"), "api_calls")
        assert (line.amount, line.unrounded) == (amount, Decimal(quantity) / 4)


def test_the_included_amount_is_exact_on_both_sides() -> None:
    begins, ends = bounds(NOVEMBER)
    half = begins + (ends - begins) / 2
    for used, charged in ((499, 0), (500, 0), (501, 1)):
        segment = Segment(plan("0", api_calls=per_unit("1", 1_000)), begins, half, {"api_calls": used})
        (line,) = of(lines_of(NOVEMBER, [segment], "USD"), "api_calls")
        assert line.amount == charged


def test_what_the_plan_does_not_name_or_price_is_shown_and_costs_nothing() -> None:
    begins, ends = bounds(NOVEMBER)
    usage: dict[str, Exact] = {"api_calls": 7, "tasks_created": 10**9, "storage_bytes": Fraction(1, 3)}
    segment = Segment(plan("0", tasks_created=Terms(1, False, None)), begins, ends, usage)
    lines = lines_of(NOVEMBER, [segment], "USD")
    assert [(line.metric, line.amount) for line in lines] == [
        (None, 0),
        ("tasks_created", 0),
        ("api_calls", 0),
        ("storage_bytes", 0),
    ]
    assert of(lines, "storage_bytes")[0].quantity == Decimal("0.33333333333333333333")
    assert [line.details.get("included") for line in lines] == [None, "1", None, None]


def test_corrections_that_leave_less_than_nothing_give_nothing_back() -> None:
    begins, ends = bounds(NOVEMBER)
    segment = Segment(plan("0", api_calls=per_unit("1", 0)), begins, ends, {"api_calls": -5})
    assert of(lines_of(NOVEMBER, [segment], "USD"), "api_calls")[0].amount == 0


def test_a_part_of_a_month_is_charged_for_that_part_alone() -> None:
    ends = bounds(NOVEMBER)[1]
    joined = ends - timedelta(days=3)
    (line,) = lines_of(NOVEMBER, [Segment(plan("3000"), joined, ends, {})], "USD")
    assert (line.amount, line.starts_on) == (300, date(2026, 11, 28))
    assert lines_of(NOVEMBER, [], "USD") == []
    assert lines_of(NOVEMBER, [Segment(plan("3000"), joined, joined, {})], "USD") == []


def test_a_free_plan_that_was_not_used_is_no_line_beside_another() -> None:
    begins, ends = bounds(NOVEMBER)
    at = begins + timedelta(seconds=1)
    paid = Segment(plan("3000"), at, ends, {})
    free = plan("0", api_calls=per_unit("1", 10))
    assert [line.amount for line in lines_of(NOVEMBER, [Segment(free, begins, at, {}), paid], "USD")] == [
        3000
    ]
    used = lines_of(NOVEMBER, [Segment(free, begins, at, {"api_calls": 1}), paid], "USD")
    assert [line.metric for line in used] == [None, "api_calls", None]
    (alone,) = lines_of(NOVEMBER, [Segment(free, begins, ends, {})], "USD")
    assert (alone.kind, alone.amount) == ("base", 0)


def test_segments_out_of_place_are_refused() -> None:
    begins, ends = bounds(NOVEMBER)
    middle = datetime(2026, 11, 15, tzinfo=UTC)
    one = Segment(plan(), begins, middle, {})
    for bad in (
        [Segment(plan(), begins - timedelta(microseconds=1), middle, {})],
        [Segment(plan(), middle, ends + timedelta(microseconds=1), {})],
        [Segment(plan(), middle, begins, {})],
        [one, one],
    ):
        with pytest.raises(ValueError, match="within the month"):
            lines_of(NOVEMBER, bad, "USD")
    with pytest.raises(ValueError, match="first day"):
        lines_of(date(2026, 11, 2), [], "USD")


def test_the_price_is_that_of_the_plan() -> None:
    """`price_of` is tested in test_plans.py; a line says the same."""
    begins, ends = bounds(NOVEMBER)
    terms = PLANS["enterprise"].metrics["llm_tokens_used"]
    assert terms.price
    for over in (1, 10_000_000_000, 10_000_000_001):
        usage = {"llm_tokens_used": terms.included + over}
        lines = lines_of(NOVEMBER, [Segment(PLANS["enterprise"], begins, ends, usage)], "USD")
        assert Fraction(of(lines, "llm_tokens_used")[0].unrounded) == price_of(terms.price, over)
