"""What the operator's commands have in common: how they ask, refuse and list."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy.orm import Session

from models.access.emails import normalize_email
from models.database import transaction
from models.errors import DomainError
from models.queries import users
from models.tables import User


@contextmanager
def told() -> Iterator[None]:
    """A domain error as a command's: its text, with the place of each mistake and what stands in the way, and exit code 1."""
    try:
        yield
    except DomainError as error:
        places = [f"{at}: {' '.join(what)}" for at, what in error.members.get("errors", {}).items()]
        places += [f"  {team['id']}  {team['name']}" for team in error.members.get("teams", [])]
        raise click.ClickException("\n".join([error.detail, *places])) from error


@contextmanager
def told_transaction() -> Iterator[Session]:
    """A transaction whose refusal is an answer and no stack."""
    with told(), transaction() as session:
        yield session


def list_(rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSON object a line."""
    for row in rows:
        click.echo(json.dumps(row, default=str))


def account(email: str) -> User:
    """The account with this address, or the end of the command."""
    with told_transaction() as session:
        user = users.by_email(session, normalize_email(email))
    if user is None:
        raise click.ClickException("Nobody has this address.")
    return user


TEAM = click.argument("team_id", metavar="TEAM", type=click.UUID)
REASON = click.option("--reason", required=True, help="What the log says.")
YES = click.option("--yes", is_flag=True, help="Don't ask first.")
