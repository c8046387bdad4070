"""Money: integers of a currency's minor unit, and the one way in which an exact price becomes one."""

from decimal import Decimal
from fractions import Fraction
from math import floor

Exact = Fraction | Decimal | int
"""A number without rounding; a share of a month is seldom a finite decimal."""
PLACES = 20
"""Decimal places that are kept of an exact number when it is shown or stored."""


def round_half_up(amount: Exact) -> int:
    """The nearest integer; a half goes away from zero, so that a credit rounds as what it credits."""
    exact = Fraction(amount)
    size = floor(abs(exact) + Fraction(1, 2))
    return size if exact >= 0 else -size


def truncated(number: Exact) -> Decimal:
    """
    The number to `PLACES` decimal places, those beyond cut off; all of it, if it has no more.

    Cut off and not rounded, so that `round_half_up` says the same of it as of the number itself.
    """
    exact = Fraction(number)
    scaled, places = floor(abs(exact) * 10**PLACES), PLACES
    while places and scaled % 10 == 0:
        scaled, places = scaled // 10, places - 1
    return Decimal(f"{'-' if exact < 0 and scaled else ''}{scaled}E-{places}")


def shown(number: Exact) -> str:
    """The number, `truncated`, in plain decimal digits."""
    return f"{truncated(number):f}"
