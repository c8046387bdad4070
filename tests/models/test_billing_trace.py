"""A year of real work (TRACE, as api/demo.py reads it) billed month by month under each plan, recomputed from the trace alone."""

import gzip
import json
import os
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from models.database import transaction
from models.operations import usage
from models.operations.usage import UsageEvent
from models.tables.usage import Metric
from tests import billing
from tests.factories import TeamSetting, fold, make_team

BOOK = json.loads((Path(__file__).parents[2] / "models" / "price_book.json").read_text())
TOKENS_PER_FILE = 1_200_000
"""A thousand times the demo's, so that a busy team passes what the plans include."""
TASKS_PER_CHANGE = 301
Month = tuple[int, int]


def price(terms: Any, over: Decimal) -> Decimal:
    rule = terms.get("price")
    if rule is None or over <= 0:
        return Decimal(0)
    if rule["model"] == "package":
        packages = (over / Decimal(rule["size"])).to_integral_value(ROUND_CEILING)
        return packages * Decimal(rule["amount"])
    if rule["model"] == "volume":
        tier = next(each for each in rule["tiers"] if each["up_to"] is None or over <= each["up_to"])
        return Decimal(over * Decimal(tier["unit_amount"]))
    owed: Decimal = Decimal(0)
    left, below = over, 0
    for tier in rule["tiers"]:
        within = left if tier["up_to"] is None else min(left, Decimal(tier["up_to"] - below))
        owed, left, below = owed + within * Decimal(tier["unit_amount"]), left - within, tier["up_to"] or 0
    return owed


def total(plan: dict[str, Any], used: Counter[str]) -> int:
    amounts = [Decimal(plan["base"])]
    for metric, terms in plan["metrics"].items():
        amounts.append(price(terms, Decimal(used[metric]) - terms["included"]))
    return sum(int(amount.quantize(Decimal(1), ROUND_HALF_UP)) for amount in amounts)


def busiest_year(path: Path) -> tuple[int, list[tuple[str, datetime, int]]]:
    """Of the years that are over the one with the most changes; each its team, time and files."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = [json.loads(line) for line in file]
    changes = [(row["team"], datetime.fromisoformat(row["at"]).astimezone(UTC), row["files"]) for row in rows]
    over = [change for change in changes if change[1].year < datetime.now(UTC).year]
    ((year, _),) = Counter(at.year for _, at, _ in over).most_common(1)
    return year, [change for change in over if change[1].year == year]


@pytest.mark.skipif(
    "TRACE" not in os.environ,
    reason="No year of real work was billed: name a trace (NDJSON, .gz or not), as in `make test TRACE=path`",
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("plan", BOOK["plans"], ids=lambda plan: plan["name"])
def test_a_year_of_the_trace(app: Flask, plan: dict[str, Any]) -> None:
    year, changes = busiest_year(Path(os.environ["TRACE"]))
    used: dict[str, dict[Month, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    reports: dict[str, list[UsageEvent]] = defaultdict(list)
    for number, (name, at, files) in enumerate(changes):
        quantities = {
            "tasks_created": TASKS_PER_CHANGE,
            "tasks_completed": TASKS_PER_CHANGE,
            "llm_tokens_used": files * TOKENS_PER_FILE,
        }
        for metric, quantity in quantities.items():
            if quantity:
                used[name][at.year, at.month][metric] += quantity
                reports[name].append(UsageEvent(f"{number}:{metric}", Metric(metric), quantity, at))
    charged = 0
    for name, events in reports.items():
        setting = make_team(app, roles=())
        billing.on_plans(setting, (plan["name"], f"{year}-01-01", f"{year + 1}-01-01"))
        report(setting, events)
        assert {each.state for each in billing.close(setting)} == {"final"}
        found = {
            (invoice.period_start.year, invoice.period_start.month): invoice.total
            for invoice in billing.invoices(setting)
        }
        expected = {(year, month): total(plan, used[name][year, month]) for month in range(1, 13)}
        assert found == {month: amount for month, amount in expected.items() if amount}
        charged += sum(found.values())
    assert (charged > 0) is (plan["name"] != "free")


def report(setting: TeamSetting, events: list[UsageEvent]) -> None:
    for begin in range(0, len(events), 1_000):
        with transaction() as session:
            access = setting.owner.enter(session, setting.id)
            batch = events[begin : begin + 1_000]
            assert usage.report(session, access, batch).accepted == len(batch)
    fold()
