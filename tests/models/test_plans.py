"""Prices, exactly: beside an implementation that counts unit by unit, and on both sides of every bound."""

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Invalid
from models.money import round_half_up, shown, truncated
from models.operations.price_books import digest
from models.plans import SHIPPED, PackagePrice, Price, Tier, TieredPrice, parse, price_of
from tests.books import BODY, changed
from tests.factories import fetch

amounts = st.decimals(0, 1000, places=6, allow_nan=False, allow_infinity=False)


@st.composite
def tiered(draw: st.DrawFn) -> TieredPrice:
    ends = sorted(draw(st.sets(st.integers(1, 40), max_size=4)))
    tiers = [Tier(end, draw(amounts), draw(amounts)) for end in [*ends, None]]
    return TieredPrice(draw(st.sampled_from(["graduated", "volume"])), tuple(tiers))


packages = st.builds(PackagePrice, st.integers(1, 15), amounts)


def tier_of_unit(price: TieredPrice, unit: int) -> Tier:
    """Of the n-th unit."""
    for tier in price.tiers:
        if tier.up_to is None or unit <= tier.up_to:
            return tier
    raise AssertionError


def unit_by_unit(price: Price, quantity: int) -> Fraction:
    """As a clerk would, with a tally."""
    total = Fraction(0)
    if isinstance(price, PackagePrice):
        for unit in range(quantity):
            if unit % price.size == 0:
                total += Fraction(price.amount)
        return total
    entered: list[Tier] = []
    for unit in range(1, quantity + 1):
        tier = tier_of_unit(price, unit if price.model == "graduated" else quantity)
        if tier not in entered:
            entered.append(tier)
            total += Fraction(tier.flat_amount)
        total += Fraction(tier.unit_amount)
    return total


@given(st.one_of(tiered(), packages), st.integers(0, 60))
def test_a_price_is_what_counting_unit_by_unit_gives(price: Price, quantity: int) -> None:
    assert price_of(price, quantity) == unit_by_unit(price, quantity)


TIERS = (
    Tier(10, Decimal(5), Decimal(100)),
    Tier(20, Decimal(3), Decimal(40)),
    Tier(None, Decimal(1), Decimal(7)),
)


@pytest.mark.parametrize(
    ("price", "quantity", "cost"),
    [
        (TieredPrice("graduated", TIERS), "0", "0"),
        (TieredPrice("graduated", TIERS), "1", "105"),
        (TieredPrice("graduated", TIERS), "9", "145"),
        (TieredPrice("graduated", TIERS), "10", "150"),
        (TieredPrice("graduated", TIERS), "10.5", "191.5"),
        (TieredPrice("graduated", TIERS), "11", "193"),
        (TieredPrice("graduated", TIERS), "20", "220"),
        (TieredPrice("graduated", TIERS), "21", "228"),
        (TieredPrice("graduated", TIERS), "-1", "0"),
        (TieredPrice("volume", TIERS), "0", "0"),
        (TieredPrice("volume", TIERS), "10", "150"),
        (TieredPrice("volume", TIERS), "10.000001", "70.000003"),
        (TieredPrice("volume", TIERS), "20", "100"),
        (TieredPrice("volume", TIERS), "21", "28"),
        (TieredPrice("volume", TIERS), "-1", "0"),
        (PackagePrice(1000, Decimal(200)), "0", "0"),
        (PackagePrice(1000, Decimal(200)), "0.001", "200"),
        (PackagePrice(1000, Decimal(200)), "999", "200"),
        (PackagePrice(1000, Decimal(200)), "1000", "200"),
        (PackagePrice(1000, Decimal(200)), "1001", "400"),
        (PackagePrice(1000, Decimal(200)), "-1", "0"),
    ],
)  # fmt: skip
def test_both_sides_of_every_bound(price: Price, quantity: str, cost: str) -> None:
    assert price_of(price, Decimal(quantity)) == Fraction(cost)


def test_the_bounds_of_the_shipped_book() -> None:
    plans = parse(BODY).plans
    seen = 0
    for plan in plans.values():
        for terms in plan.metrics.values():
            if not isinstance(terms.price, TieredPrice):
                continue
            for number, tier in enumerate(terms.price.tiers[:-1]):
                assert tier.up_to is not None
                seen += 1
                at, after = price_of(terms.price, tier.up_to), price_of(terms.price, tier.up_to + 1)
                following = Fraction(terms.price.tiers[number + 1].unit_amount)
                if terms.price.model == "graduated":
                    assert after - at == following
                else:
                    assert (at, after) == (
                        tier.up_to * Fraction(tier.unit_amount),
                        (tier.up_to + 1) * following,
                    )
    assert seen == 3


def test_no_step_rounds() -> None:
    """A quantity and an amount that no float, and no decimal of 28 digits, holds the product of."""
    price = TieredPrice("graduated", (Tier(None, Decimal("0.000000000001"), Decimal(0)),))
    quantity = 2**90 + 1
    assert price_of(price, quantity) * 10**12 == quantity
    assert price_of(price, Fraction(1, 3)) == Fraction(1, 3 * 10**12)


@pytest.mark.parametrize(
    ("exact", "rounded"),
    [
        ("0", 0), ("0.5", 1), ("1.5", 2), ("2.5", 3), ("0.4999999999999999999999999999999999", 0), ("2.4", 2),
        ("-0.5", -1), ("-0.4", 0), ("-2.5", -3), (f"{2**80}.5", 2**80 + 1),
    ],
)  # fmt: skip
def test_a_half_is_rounded_away_from_zero(exact: str, rounded: int) -> None:
    assert round_half_up(Decimal(exact)) == rounded


@given(st.fractions(), st.integers(0, 30))
def test_what_is_shown_rounds_as_what_is_meant(number: Fraction, power: int) -> None:
    for exact in (number, number / 10**power, Fraction(1, 2) - Fraction(1, 10 ** (power + 1))):
        assert round_half_up(truncated(exact)) == round_half_up(exact)
        assert Decimal(shown(exact)) == truncated(exact)
        assert "E" not in shown(exact)
        assert abs(Fraction(truncated(exact)) - exact) < Fraction(1, 10**20)


@given(st.decimals(-(10**15), 10**15, places=12, allow_nan=False))
def test_what_has_few_places_is_shown_whole(number: Decimal) -> None:
    assert truncated(number) == number


def test_the_shipped_book_is_what_the_migration_loaded() -> None:
    ((version, body, sha256),) = fetch("SELECT version, body, sha256 FROM price_books WHERE version = 1")
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == body
    assert (version, sha256) == (body["version"], digest(json.loads(SHIPPED.read_text(encoding="utf-8"))))


def no_free_plan(body: Any) -> None:
    body["plans"] = body["plans"][1:]


def twice(body: Any) -> None:
    body["plans"].append(body["plans"][0])


def set_(path: str, value: Any) -> Callable[[Any], None]:
    *above, last = (int(part) if part.isdecimal() else part for part in path.split("/"))

    def change(body: Any) -> None:
        for part in above:
            body = body[part]
        body[last] = value

    return change


TOKENS = "plans/1/metrics/llm_tokens_used"
OPEN = {"up_to": None, "unit_amount": "1"}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (no_free_plan, "$.plans"),
        (twice, "$.plans"),
        (set_("version", 0), "$.version"),
        (set_("version", "2"), "$.version"),
        (set_("currency", "usd"), "$.currency"),
        (set_("surprise", 1), "$"),
        (set_("plans/1/name", "gold"), "$.plans[1].name"),
        (set_("plans/1/seats", 0), "$.plans[1].seats"),
        (set_("plans/1/base", 4900), "$.plans[1].base"),
        (set_("plans/1/base", "-1"), "$.plans[1].base"),
        (set_("plans/1/base", "4900.5"), "$.plans[1].base"),
        (set_(f"{TOKENS}/included", -1), "$.plans[1].metrics.llm_tokens_used.included"),
        (set_(f"{TOKENS}/included", 1.5), "$.plans[1].metrics.llm_tokens_used.included"),
        (set_(f"{TOKENS}/limit", "firm"), "$.plans[1].metrics.llm_tokens_used.limit"),
        (set_("plans/1/metrics/seats", {"included": 1, "limit": "hard"}), "$.plans[1].metrics"),
        (set_(f"{TOKENS}/price/tiers", []), "$.plans[1].metrics.llm_tokens_used.price"),
        (set_(f"{TOKENS}/price/model", "flat"), "$.plans[1].metrics.llm_tokens_used.price"),
        (set_(f"{TOKENS}/price/tiers/0/up_to", None), "$.plans[1].metrics.llm_tokens_used.price.tiers"),
        (set_(f"{TOKENS}/price/tiers/1/up_to", 7), "$.plans[1].metrics.llm_tokens_used.price.tiers"),
        (
            set_(f"{TOKENS}/price/tiers", [{**OPEN, "up_to": 5}, {**OPEN, "up_to": 5}, OPEN]),
            "$.plans[1].metrics.llm_tokens_used.price.tiers",
        ),
    ],
)
def test_what_is_no_price_book_is_refused_by_its_place(change: Callable[[Any], None], place: str) -> None:
    body = changed(2)
    change(body)
    with pytest.raises(Invalid) as refused:
        parse(body)
    assert list(refused.value.errors) == [place]
