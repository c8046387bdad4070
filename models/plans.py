"""The plans, as a price book has them: what each seats, includes and costs. Amounts are minor units of the book's currency."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Literal

import jsonschema

from models.errors import Invalid
from models.money import Exact

SHORTEST_RETENTION_DAYS = 7
"""Of the activity log, whatever the plan: so long a team can look back."""
RETENTION = {"days": 365, "longest_days": 3_650}
"""Of a plan whose book says nothing of it."""
SHIPPED = Path(__file__).with_name("price_book.json")
SCHEMA = Path(__file__).with_name("price_book.schema.json")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a quantity at one price: `quantity` of what is counted, units or packages."""

    quantity: Fraction
    unit_amount: Decimal
    flat_amount: Decimal = Decimal(0)

    @property
    def amount(self) -> Fraction:
        return Fraction(self.flat_amount) + self.quantity * Fraction(self.unit_amount)


@dataclass(frozen=True, slots=True)
class Tier:
    up_to: int | None
    """Inclusive; None in the last tier."""
    unit_amount: Decimal
    flat_amount: Decimal


@dataclass(frozen=True, slots=True)
class TieredPrice:
    """Graduated: each unit at its own tier's amount. Volume: all at that of the tier which the last one is in."""

    model: Literal["graduated", "volume"]
    tiers: tuple[Tier, ...]

    def parts(self, quantity: Exact) -> list[Part]:
        """The quantity by the tiers that it is charged in; none for nothing."""
        exact = Fraction(quantity)
        if exact <= 0:
            return []
        if self.model == "volume":
            tier = next(tier for tier in self.tiers if tier.up_to is None or exact <= tier.up_to)
            return [Part(exact, tier.unit_amount, tier.flat_amount)]
        parts, below = [], Fraction(0)
        for tier in self.tiers:
            end = exact if tier.up_to is None else min(exact, Fraction(tier.up_to))
            parts.append(Part(end - below, tier.unit_amount, tier.flat_amount))
            below = end
            if end == exact:
                break
        return parts


@dataclass(frozen=True, slots=True)
class PackagePrice:
    """Each package begun costs its amount whole."""

    size: int
    amount: Decimal
    model: Literal["package"] = "package"

    def parts(self, quantity: Exact) -> list[Part]:
        """The packages that the quantity begins; none for nothing."""
        packages = ceil(Fraction(quantity) / self.size)
        return [Part(Fraction(packages), self.amount)] if packages > 0 else []


Price = TieredPrice | PackagePrice


def price_of(price: Price, quantity: Exact) -> Fraction:
    """What the quantity costs in minor units, exactly: no step of it rounds."""
    return sum((part.amount for part in price.parts(quantity)), Fraction(0))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan includes of a metric in a month; of storage in GB-months."""

    included: int
    is_hard: bool
    """Whether more is refused; else it is charged."""
    price: Price | None
    """Of what is beyond; None: nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    max_members: int
    base: Decimal
    """A month."""
    metrics: Mapping[str, Terms]
    retention_days: int = RETENTION["days"]
    """How long the activity log's rows are kept, unless the team chose otherwise."""
    longest_retention_days: int = RETENTION["longest_days"]
    """As long as the team may choose."""

    def retention(self, chosen: int | None) -> int:
        """Days, of a team that chose so many, or None; what is more than the plan has counts as the most that it has."""
        return min(chosen or self.retention_days, self.longest_retention_days)


@dataclass(frozen=True, slots=True)
class Book:
    """A price book."""

    version: int
    currency: str
    plans: Mapping[str, Plan]
    """By name, the smallest first."""


def parse(body: Any) -> Book:
    """The book; raises Invalid, by the place in the document, for what its schema or its sense does not allow."""
    validator = jsonschema.Draft202012Validator(_schema())
    errors = {error.json_path: [error.message] for error in validator.iter_errors(body)}
    if not errors:
        errors = dict(_nonsense(body))
    if errors:
        raise Invalid(errors, "This is no price book.")
    plans = [_plan(plan) for plan in body["plans"]]
    return Book(body["version"], body["currency"], {plan.name: plan for plan in plans})


def _nonsense(body: Any) -> Iterator[tuple[str, list[str]]]:
    """What a schema can't say."""
    names = [plan["name"] for plan in body["plans"]]
    if len(set(names)) != len(names) or "free" not in names:
        yield "$.plans", ["Each plan once, free among them."]
    for number, plan in enumerate(body["plans"]):
        if Decimal(plan["base"]) % 1:
            yield f"$.plans[{number}].base", ["Whole minor units."]
        for metric, terms in plan["metrics"].items():
            ends = [tier["up_to"] for tier in terms.get("price", {}).get("tiers", [])]
            if ends and (ends[-1] is not None or None in ends[:-1] or ends[:-1] != sorted(set(ends[:-1]))):
                where = f"$.plans[{number}].metrics.{metric}.price.tiers"
                yield where, ["`up_to` must rise from tier to tier, and be null in the last one alone."]


def _plan(body: Any) -> Plan:
    terms = {metric: _terms(each) for metric, each in body["metrics"].items()}
    retention = body.get("retention", RETENTION)
    return Plan(
        body["name"],
        body["seats"],
        Decimal(body["base"]),
        terms,
        retention["days"],
        retention["longest_days"],
    )


def _terms(body: Any) -> Terms:
    return Terms(
        body["included"], body["limit"] == "hard", _price(body["price"]) if "price" in body else None
    )


def _price(body: Any) -> Price:
    if body["model"] == "package":
        return PackagePrice(body["size"], Decimal(body["amount"]))
    tiers = (
        Tier(tier["up_to"], Decimal(tier["unit_amount"]), Decimal(tier.get("flat_amount", "0")))
        for tier in body["tiers"]
    )
    return TieredPrice(body["model"], tuple(tiers))


@cache
def _schema() -> Any:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


SHIPPED_BOOK = parse(json.loads(SHIPPED.read_text(encoding="utf-8")))
PLANS = SHIPPED_BOOK.plans
DEFAULT_PLAN = PLANS["free"]
