"""`flask --app wsgi billing …`: what an operator sees and does about closes, invoices and payment."""

import sys
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.commands.told import list_, told_transaction
from models.access.actor import System
from models.database import transaction
from models.operations import closing, invoices, payments
from models.operations.closing import TeamMonth
from models.operations.invoices import issuer_of
from models.queries import billing
from models.settings import settings
from models.tables import Invoice

group = AppGroup("billing", help="Month closes, invoices and payment.")
MONTH = click.DateTime(["%Y-%m"])


@group.command()
def differences() -> None:
    """List days on which the ledger says something else than what was folded from it; exit code 1 if there are any."""
    with transaction() as session:
        found = billing.differences(session)
    list_(found)
    sys.exit(1 if found else 0)


@group.command()
def mismatches() -> None:
    """List months that can't be finalized, and why; exit code 1 if there are any."""
    with transaction() as session:
        found = billing.mismatches(session)
    list_(found)
    sys.exit(1 if found else 0)


@group.command()
@click.argument("team", type=click.UUID)
@click.argument("month", type=MONTH)
def redraft(team: Any, month: Any) -> None:
    """Count a TEAM's MONTH (YYYY-MM) anew and replace its draft, once the reason of a mismatch is known."""
    with told_transaction() as session:
        if not billing.is_open(session, team, month.date()):
            raise click.ClickException("This month has no open close.")
        closing.retry(session, TeamMonth(team, month.date()))
        closing.redraft(session, TeamMonth(team, month.date()))


@group.command()
@click.option("--month", type=MONTH, help="YYYY-MM; the latest one by default.")
def estimates(month: Any) -> None:
    """List what the month has cost each team so far, as of the last hour."""
    with transaction() as session:
        list_(billing.estimates(session, month.date() if month else None))


@group.command()
def unpaid() -> None:
    """List final invoices that are not paid, and what stands in the way."""
    with transaction() as session:
        list_(billing.unpaid(session))


@group.command()
@click.option("--team", type=click.UUID, help="Those of this team alone.")
def archived(team: Any) -> None:
    """Print the final invoices of purged teams, one JSON object a line, by number."""
    with transaction() as session:
        for document in billing.archived(session, team):
            click.echo(document)


@group.command("mark-paid")
@click.argument("number")
def mark_paid(number: str) -> None:
    """Note that the invoice of this NUMBER was paid, where no payment provider charges."""
    with told_transaction() as session:
        payments.mark_paid(session, _invoice(session, number))


@group.command()
@click.argument("number")
@click.option("--reason", required=True, help="What the credit note and the log say.")
def void(number: str, reason: str) -> None:
    """Void the invoice of this NUMBER by a credit note; at the payment provider too."""
    with told_transaction() as session:
        invoice = _invoice(session, number)
        note = invoices.credit(
            session, System(invoice.team_id), invoice, reason=reason, issuer=issuer_of(settings())
        )
        click.echo(note.number)


def _invoice(session: Session, number: str) -> Invoice:
    invoice = session.scalar(select(Invoice).where(Invoice.number == number))
    if invoice is None:
        raise click.ClickException("There is no invoice of this number.")
    return invoice
