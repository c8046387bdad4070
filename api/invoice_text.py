"""What an invoice's lines say in words: for its PDF, and the CSV beside it."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from models.currencies import digits

LONGEST_FRACTION = 4
"""Decimal places that people are shown of a quantity; the JSON and the CSV have all of them."""


def quantity_of(quantity: Decimal) -> str:
    """With thousands set apart, and at most four decimal places."""
    shown = quantity.quantize(Decimal(1).scaleb(-LONGEST_FRACTION), ROUND_HALF_EVEN).normalize()
    return f"{shown:,f}"


def explanation(line: Any, currency: str) -> str:
    """How the line's amount comes about; of what is included, charged and priced, as `details` has it."""
    details = line.details
    if line.kind == "base":
        whole = unit_price(details["price"], currency)
        return f"{whole} a month" if line.quantity == 1 else f"{whole} a month, for that share of it"
    if line.kind == "adjustment":
        return "What the month costs now, less what was charged for it"
    if line.kind == "credit":
        return ""
    included = Decimal(details["included"] or 0)
    if not details["price"]:
        return "Not charged"
    if not Decimal(details["charged"]):
        return f"Within the {quantity_of(included)} included"
    return f"{quantity_of(included)} included; {_priced(details['price'], currency)}"


def unit_price(minor: str, currency: str) -> str:
    """A price in minor units, which can be a fraction of one, in the currency's unit."""
    price = Decimal(minor).scaleb(-digits(currency))
    least = Decimal(1).scaleb(-digits(currency))
    fits = price == price.quantize(least)
    return f"{price.quantize(least) if fits else price.normalize():,f} {currency}"


def _priced(price: dict[str, Any], currency: str) -> str:
    parts = []
    for part in price["parts"]:
        quantity = quantity_of(Decimal(part["quantity"]))
        size = f" of {price['size']:,}" if "size" in price else ""
        flat = Decimal(part["flat_amount"])
        more = f" + {unit_price(part['flat_amount'], currency)}" if flat else ""
        parts.append(f"{quantity}{size} at {unit_price(part['unit_amount'], currency)}{more}")
    return f"{price['model']}: {', '.join(parts)}"
