"""The plans and the seats that each has (spec.md, 6)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    max_members: int


PLANS = {plan.name: plan for plan in (Plan("free", 5), Plan("pro", 50), Plan("enterprise", 100_000))}
DEFAULT_PLAN = PLANS["free"]
