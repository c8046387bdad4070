"""The plans, the seats that each has (spec.md, 6), and how long each keeps the activity log."""

from dataclasses import dataclass

SHORTEST_RETENTION_DAYS = 7
"""Whatever the plan: so long a team can look back."""


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    max_members: int
    retention_days: int
    """How long the log's rows are kept, unless the team chose otherwise."""
    longest_retention_days: int
    """As long as the team may choose."""

    def retention(self, chosen: int | None) -> int:
        """Days, of a team that chose so many, or None; what is more than the plan has counts as the most that it has."""
        return min(chosen or self.retention_days, self.longest_retention_days)


PLANS = {
    plan.name: plan
    for plan in (
        Plan("free", 5, retention_days=30, longest_retention_days=30),
        Plan("pro", 50, retention_days=365, longest_retention_days=1_095),
        Plan("enterprise", 100_000, retention_days=1_095, longest_retention_days=3_650),
    )
}
DEFAULT_PLAN = PLANS["free"]
