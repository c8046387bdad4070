"""`flask --app wsgi usage …`: what an operator proves a team's usage with."""

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, BinaryIO, TypeVar
from uuid import UUID

import click

from api.usage import month_of
from models import json_text
from models.database import transaction
from models.queries import ledger, usage_proof
from models.queries.usage_proof import Counted
from models.tables.usage import Metric

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def usage() -> None:
    """Recount what a team used."""


OF_A_MONTH = (
    click.argument("team", type=click.UUID),
    click.argument("year", type=click.IntRange(2000, 9998)),
    click.argument("month", type=click.IntRange(1, 12)),
)


def of_a_month(command: F) -> F:
    for argument in reversed(OF_A_MONTH):
        command = argument(command)
    return command


@usage.command()
@of_a_month
def export(team: UUID, year: int, month: int) -> None:
    """Write the ledger's rows of a team's month (UTC) to standard output, as NDJSON."""
    since, until = month_of(year, month)
    with transaction() as session:
        for row in ledger.export(session, team, since=since, until=until):
            click.echo(json_text.dumps(row))


@usage.command()
@of_a_month
@click.option(
    "--export", "exported", type=click.File("rb"), help="Recount from this export, instead of the ledger."
)
def verify(team: UUID, year: int, month: int, exported: BinaryIO | None) -> None:
    """
    Recount a team's month (UTC) and compare: the export = the ledger = whose it was and of what = the daily figures = the lines
    of its invoice, if there is one. Names each difference, and fails if there is any.
    """
    since, until = month_of(year, month)
    with transaction() as session:
        counts = usage_proof.counts(session, team, since=since, until=until)
        invoiced = usage_proof.invoiced(session, team, since=since, until=until)
    differences = [
        f"{day} {metric}: ledger {each.ledger}, breakdown {each.breakdown}, daily {each.daily}"
        for (day, metric), each in counts.items()
        if not each.valid
    ]
    differences += [
        f"invoice {each.number} {each.metric}: lines {each.lines}, ledger {each.ledger}"
        for each in invoiced
        if not each.valid
    ]
    if exported is not None:
        differences += differences_to_export(exported, counts)
    for difference in differences:
        click.echo(difference)
    totals = usage_proof.by_metric(counts)
    click.echo(
        f"{len(differences)} differences; " + ", ".join(f"{m} {each.ledger}" for m, each in totals.items())
    )
    if differences:
        sys.exit(1)


def differences_to_export(exported: BinaryIO, counts: Mapping[tuple[date, Metric], Counted]) -> list[str]:
    """Between what the exported rows come to, each row once, and what the ledger has."""
    try:
        recounted = usage_proof.recount(each_once(exported))
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"This is no export of `flask usage export`: {error!r}.") from error
    ledger_of = {key: each.ledger for key, each in counts.items()}
    return [
        f"{day} {metric}: export {recounted.get((day, metric), 0)}, ledger {ledger_of.get((day, metric), 0)}"
        for day, metric in sorted({*recounted, *ledger_of})
        if recounted.get((day, metric), 0) != ledger_of.get((day, metric), 0)
    ]


def each_once(exported: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows of an export, by their ids; files joined by hand may overlap."""
    seen = set()
    for line in exported:
        row = json_text.loads(line)
        if row["id"] not in seen:
            seen.add(row["id"])
            yield row
