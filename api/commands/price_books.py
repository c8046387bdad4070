"""`flask --app wsgi price-book …`: what the plans include and cost, by version."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from api.commands.told import told
from models import json_text, plans
from models.database import transaction
from models.errors import Conflict, DomainError
from models.operations import price_books
from models.queries import plans as loaded_books

TEAMS_AT_ONCE = 500


@click.group()
def price_book() -> None:
    """Price books: what the plans include and cost, by version (models/price_book.schema.json)."""


@price_book.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Say whether FILE is a price book, and load nothing."""
    with told():
        book = plans.parse(_read(file))
    click.echo(f"version {book.version}, {book.currency}: {', '.join(book.plans)}")


@price_book.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(file: Path) -> None:
    """
    Load FILE for good. Teams that are made or choose a plan from now on get its plans; the others keep what they have, seats
    included, until they choose another plan or are moved.
    """
    with told():
        body = _read(file)
        with transaction() as session:
            loaded = price_books.load(session, body)
    click.echo(f"version {body['version']} is loaded" if loaded else "it is loaded already")


@price_book.command("list")
def list_() -> None:
    """The versions that are loaded, and how many teams are on each."""
    with transaction() as session:
        for version, sha256, loaded_at, teams_on_it in loaded_books.loaded(session):
            click.echo(f"{version}\t{loaded_at:%Y-%m-%d %H:%M}\t{teams_on_it} teams\t{sha256}")


@price_book.command()
@click.argument("version", type=int)
@click.option("--team", type=click.UUID, help="This team alone; else all that are not deleted.")
def move(version: int, team: UUID | None) -> None:
    """
    Move teams to VERSION, on the plans that they have: its prices, limits and seats hold from now on, for the rest of the month.
    Safe to repeat. A team that can't be moved is named, and the exit code is 1.
    """
    moved = refused = 0
    for team_id in [team] if team else _teams_elsewhere(version):
        try:
            with transaction() as session:
                moved += price_books.move(session, team_id, version)
        except DomainError as error:
            refused += 1
            click.echo(f"{team_id}: {error.detail}", err=True)
    click.echo(f"moved {moved} teams to version {version}")
    if refused:
        sys.exit(1)


def _teams_elsewhere(version: int) -> Iterator[UUID]:
    after = UUID(int=0)
    while True:
        with told(), transaction() as session:
            loaded_books.book(session, version)
            team_ids = price_books.teams_elsewhere(session, version, after=after, limit=TEAMS_AT_ONCE)
        if not team_ids:
            return
        yield from team_ids
        after = team_ids[-1]


def _read(file: Path) -> Any:
    try:
        return json_text.loads(file.read_bytes())
    except ValueError as error:
        raise Conflict(f"{file} is not JSON: {error}.") from error
