"""`flask --app wsgi jobs …`: what waits for longer than it should, what was given up, and trying it again."""

import sys
from datetime import timedelta

import click
from flask.cli import AppGroup

from api.commands.told import list_, told_transaction
from models.operations import jobs
from models.queries import jobs as waiting

group = AppGroup("jobs", help="Work that is stuck or was given up: list, retry.")
LIMIT = click.option("--limit", default=1_000, show_default=True, type=click.IntRange(1))


@group.command()
@click.option(
    "--longer",
    default=300,
    show_default=True,
    type=click.IntRange(0),
    metavar="SECONDS",
    help="How long it has been due.",
)
@LIMIT
def stuck(longer: int, limit: int) -> None:
    """List what has been due for long; exit code 1 if anything has."""
    with told_transaction() as session:
        found = waiting.stuck(session, longer=timedelta(seconds=longer), limit=limit)
    list_(found)
    sys.exit(1 if found else 0)


@group.command()
@LIMIT
def dead(limit: int) -> None:
    """List what was given up: mails, payment orders, exports, deliveries, webhooks, closes; exit code 1 if anything was."""
    with told_transaction() as session:
        found = waiting.dead(session, limit=limit)
    list_(found)
    sys.exit(1 if found else 0)


@group.command()
@click.argument("kind", type=click.Choice([*jobs.RETRIES, "all"]))
@click.argument("ids", nargs=-1)
def retry(kind: str, ids: tuple[str, ...]) -> None:
    """
    Have what `stuck` and `dead` list tried again: those of a KIND with these IDS, all of that kind that were given up, or `all`.
    What is refused is named, and the exit code is 1.
    """
    if ids and kind == "all":
        raise click.UsageError("Ids are of one kind.")
    wanted = [(kind, each) for each in ids]
    if not ids:
        with told_transaction() as session:
            given_up = waiting.dead(session, limit=100_000)
        kinds = jobs.RETRIES if kind == "all" else {kind}
        wanted = [(row["kind"], row["id"]) for row in given_up if row["kind"] in kinds]
    refused = 0
    for of, id_ in wanted:
        try:
            with told_transaction() as session:
                jobs.retry(session, of, id_)
        except click.ClickException as refusal:
            refused += 1
            click.echo(f"{of} {id_}: {refusal.message}", err=True)
    click.echo(f"{len(wanted) - refused} tried again")
    sys.exit(1 if refused else 0)
