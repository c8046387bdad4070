"""`flask --app wsgi …`: what developers and operators run."""

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import UUID

import click
import orjson
from environs import Env
from flask import Flask, current_app

from api.docs import document
from api.permission_matrix import matrix
from api.usage import month_of
from models import json_text
from models.access.actor import Actor, Origin
from models.access.emails import normalize_email
from models.access.passwords import hash_password
from models.database import transaction
from models.operations import sessions, teams, users
from models.queries import ledger, usage_proof
from models.queries import users as accounts
from models.queries.usage_proof import Counted
from models.tables.usage import Metric

F = TypeVar("F", bound=Callable[..., Any])
OPENAPI = Path("docs/openapi.json")
PERMISSIONS = Path("docs/permissions.md")
DEMO_EMAIL = "demo@example.com"


def register(app: Flask) -> None:
    app.cli.add_command(seed)
    app.cli.add_command(openapi)
    app.cli.add_command(permissions_doc)
    app.cli.add_command(usage)


@click.command()
@click.option("--email", default=DEMO_EMAIL, show_default=True)
def seed(email: str) -> None:
    """Make the demo login, with the password in DEMO_PASSWORD and a team of its own, if it is not there."""
    password_hash = hash_password(Env().str("DEMO_PASSWORD"))
    with transaction() as session:
        if accounts.by_email(session, normalize_email(email)):
            return
        user = users.register(session, email=email, name="Demo", password_hash=password_hash)
        opened, _ = sessions.open_session(session, user, origin=Origin(), days=1)
        actor = Actor(user_id=user.id, session_id=opened.id, origin=Origin())
        teams.create(session, actor, name="Demo")
        sessions.end(session, actor, opened.id)
        click.echo(f"made {email} and its team")


@click.command()
@click.option("--check", is_flag=True, help="Fail if docs/openapi.json is not what the routes say.")
def openapi(check: bool) -> None:
    """Write docs/openapi.json from the routes."""
    text = orjson.dumps(document(current_app), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
    _write(OPENAPI, text + "\n", check=check, command="openapi")


@click.command()
@click.option("--check", is_flag=True, help="Fail if docs/permissions.md is not what the catalogue says.")
def permissions_doc(check: bool) -> None:
    """Write docs/permissions.md, the matrix of role and permission."""
    _write(PERMISSIONS, matrix(), check=check, command="permissions-doc")


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


def _write(path: Path, text: str, *, check: bool, command: str) -> None:
    if not check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        click.echo(f"{path} is out of date; run `flask --app wsgi {command}`.", err=True)
        sys.exit(1)
