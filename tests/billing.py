"""Months that were: a team's plans and usage in the past, and their close, as time and the worker would bring them."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from models.database import transaction
from models.operations import closing, usage
from models.operations.closing import TeamMonth
from models.operations.invoices import Issuer
from models.operations.usage import Unit, UsageEvent
from models.tables import MonthClose
from models.tables.usage import Metric
from tests.factories import TeamSetting, execute, fetch

SELLER = {"name": "AgentHQ", "address": "1 Main Street\nSpringfield", "tax_id": "X123", "tax_note": "Net."}
ISSUER = Issuer(seller=SELLER, provider="null", grace=timedelta(hours=24))


def at(text: str) -> datetime:
    """A time in UTC, like 2025-01-31 or 2025-01-31T12:00."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def on_plans(setting: TeamSetting, *plans: tuple[str, str, str | None]) -> None:
    """The team's plans as they have been: name, from and until (None: still)."""
    execute("DELETE FROM plan_periods WHERE team_id = :id", id=setting.id)
    for plan, starts, ends in plans:
        execute(
            "INSERT INTO plan_periods (team_id, plan, price_book, starts_at, ends_at) VALUES (:id, :plan, 1, :starts, :ends)",
            id=setting.id,
            plan=plan,
            starts=at(starts),
            ends=at(ends) if ends else None,
        )


def used(setting: TeamSetting, metric: str, quantity: int, when: str) -> None:
    """Usage reported now, of then."""
    with transaction() as session:
        access = setting.owner.enter(session, setting.id)
        usage.report(session, access, [UsageEvent(uuid7().hex, Metric(metric), quantity, at(when))])


def reverse(setting: TeamSetting, ledger_id: UUID) -> None:
    """A correction of a row of the ledger, dated as it is."""
    ((metric, quantity, occurred_at),) = fetch(
        "SELECT metric, quantity, occurred_at FROM usage_ledger WHERE id = :id", id=ledger_id
    )
    with transaction() as session:
        access = setting.owner.enter(session, setting.id)
        row = Unit(
            f"reverse:{ledger_id}",
            Metric(metric),
            -quantity,
            occurred_at,
            reverses=ledger_id,
            reason="a mistake",
        )
        assert usage.append(session, access, [row]) == 1


def draft(setting: TeamSetting, *, issuer: Issuer = ISSUER) -> list[date]:
    """Drafts the team's months that have ended, as the worker would; which it drafted."""
    return [of.month for of in _of(setting, _ended()) if _draft(of, issuer)]


def finalize(setting: TeamSetting, *, issuer: Issuer = ISSUER) -> list[MonthClose]:
    """Finalizes what is due of the team's, as the worker would."""
    with transaction() as session:
        due = closing.due(session, limit=100_000)
    closes = []
    for of in _of(setting, due):
        with transaction() as session:
            if close := closing.finalize(session, of, issuer=issuer):
                closes.append(close)
    return closes


def close(setting: TeamSetting, *, issuer: Issuer = ISSUER) -> list[MonthClose]:
    draft(setting, issuer=issuer)
    return finalize(setting, issuer=issuer)


def invoices(setting: TeamSetting) -> list[Any]:
    """The team's invoices and credit notes, in the order of their numbers, drafts last."""
    return fetch("SELECT * FROM invoices WHERE team_id = :id ORDER BY number, period_start", id=setting.id)


def lines(invoice_id: UUID) -> list[Any]:
    return fetch("SELECT * FROM invoice_lines WHERE invoice_id = :id ORDER BY position", id=invoice_id)


def events(setting: TeamSetting, action: str) -> list[dict[str, Any]]:
    """What was recorded of the team, drained or not."""
    return [
        row.details
        for row in fetch(
            "SELECT id::text, details FROM outbox WHERE team_id = :id AND action = :action "
            "UNION ALL SELECT id::text, metadata FROM activity_logs WHERE team_id = :id AND action = :action ORDER BY 1",
            id=setting.id,
            action=action,
        )
    ]


def _ended() -> list[TeamMonth]:
    with transaction() as session:
        return closing.ended(session, limit=100_000)


def _draft(of: TeamMonth, issuer: Issuer) -> bool:
    with transaction() as session:
        return closing.draft(session, of, grace=issuer.grace)


def _of(setting: TeamSetting, months: Sequence[TeamMonth]) -> list[TeamMonth]:
    return [of for of in months if of.team_id == setting.id]
