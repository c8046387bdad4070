"""Amounts as people read them, and the words of an invoice's lines."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from api.invoice_text import explanation, quantity_of, unit_price
from models.currencies import decimal_of, shown


@pytest.mark.parametrize(
    ("amount", "currency", "plain", "read"),
    [
        (0, "USD", "0.00", "0.00 USD"),
        (5, "USD", "0.05", "0.05 USD"),
        (-5, "USD", "-0.05", "-0.05 USD"),
        (-1_250, "USD", "-12.50", "-12.50 USD"),
        (123_456_789, "EUR", "1234567.89", "1,234,567.89 EUR"),
        (1_234_567, "KRW", "1234567", "1,234,567 KRW"),
        (-1_234, "JPY", "-1234", "-1,234 JPY"),
        (1_234_567, "KWD", "1234.567", "1,234.567 KWD"),
    ],
)
def test_amounts(amount: int, currency: str, plain: str, read: str) -> None:
    assert (decimal_of(amount, currency), shown(amount, currency)) == (plain, read)


@pytest.mark.parametrize(
    ("quantity", "read"),
    [
        ("0", "0"),
        ("1", "1"),
        ("1000", "1,000"),
        ("1234567.50000", "1,234,567.5"),
        ("0.33335", "0.3334"),
        ("-7", "-7"),
    ],
)
def test_quantities(quantity: str, read: str) -> None:
    assert quantity_of(Decimal(quantity)) == read


@pytest.mark.parametrize(
    ("minor", "currency", "read"),
    [
        ("10", "USD", "0.10 USD"),
        ("4900", "USD", "49.00 USD"),
        ("0.00004", "USD", "0.0000004 USD"),
        ("50", "KRW", "50 KRW"),
    ],
)
def test_prices(minor: str, currency: str, read: str) -> None:
    assert unit_price(minor, currency) == read


def usage(included: str | None, charged: str, price: Any) -> Any:
    return SimpleNamespace(kind="usage", details={"included": included, "charged": charged, "price": price})


def part(quantity: str, unit: str, flat: str = "0") -> dict[str, str]:
    return {"quantity": quantity, "unit_amount": unit, "flat_amount": flat, "amount": "0"}


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (SimpleNamespace(kind="base", quantity=Decimal(1), details={"price": "4900"}), "49.00 USD a month"),
        (
            SimpleNamespace(kind="base", quantity=Decimal("0.5"), details={"price": "4900"}),
            "49.00 USD a month, for that share of it",
        ),
        (
            SimpleNamespace(kind="adjustment", details={}),
            "What the month costs now, less what was charged for it",
        ),
        (SimpleNamespace(kind="credit", details={}), ""),
        (usage(None, "0", None), "Not charged"),
        (usage("20000", "0", {"model": "package", "size": 1000, "parts": []}), "Within the 20,000 included"),
        (
            usage("20000", "1500", {"model": "package", "size": 1000, "parts": [part("2", "200")]}),
            "20,000 included; package: 2 of 1,000 at 2.00 USD",
        ),
        (
            usage("0", "150", {"model": "graduated", "parts": [part("100", "10", "500"), part("50", "0.5")]}),
            "0 included; graduated: 100 at 0.10 USD + 5.00 USD, 50 at 0.005 USD",
        ),
    ],
)
def test_how_an_amount_comes_about(line: Any, read: str) -> None:
    assert explanation(line, "USD") == read
