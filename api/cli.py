"""`flask --app wsgi …`: what developers and operators run."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import click
import orjson
from environs import Env
from flask import Flask, current_app

from api import billing_cli, event_catalogue, usage_cli
from api import translations as catalogues
from api.docs import document
from api.permission_matrix import matrix
from models import json_text, plans
from models.access.actor import Actor, Origin
from models.access.emails import normalize_email
from models.access.passwords import hash_password
from models.database import transaction
from models.errors import Conflict, DomainError
from models.operations import erasures, price_books, sessions, teams, users
from models.queries import plans as loaded_books
from models.queries import users as accounts

OPENAPI = Path("docs/openapi.json")
PERMISSIONS = Path("docs/permissions.md")
EVENTS = Path("docs/events.md")
DEMO_EMAIL = "demo@example.com"
TEAMS_AT_ONCE = 500


def register(app: Flask) -> None:
    app.cli.add_command(seed)
    app.cli.add_command(openapi)
    app.cli.add_command(permissions_doc)
    app.cli.add_command(events_doc)
    app.cli.add_command(translations)
    app.cli.add_command(erase_user)
    app.cli.add_command(usage_cli.usage)
    app.cli.add_command(price_book)
    app.cli.add_command(billing_cli.group)


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


@click.command()
@click.option("--check", is_flag=True, help="Fail if docs/events.md is not what the catalogue says.")
def events_doc(check: bool) -> None:
    """Write docs/events.md, all that the activity log can tell of."""
    _write(EVENTS, event_catalogue.document(), check=check, command="events-doc")


@click.command()
@click.option("--check", is_flag=True, help="Fail if anything lacks a translation or is out of date.")
def translations(check: bool) -> None:
    """Bring the console's catalogues up to date with what its pages say, and compile them."""
    if not check:
        for language, lacking in catalogues.update().items():
            click.echo(f"{language}: {len(lacking)} without a translation")
        return
    if found := catalogues.complaints():
        _fail("\n".join([*found, "Run `flask --app wsgi translations`, and translate what is empty."]))


@click.command()
@click.argument("email")
@click.option("--yes", is_flag=True, help="Don't ask first.")
def erase_user(email: str, yes: bool) -> None:
    """Erase the person with the address EMAIL, for good. Refused while they own a team."""
    with transaction() as session:
        user = accounts.by_email(session, normalize_email(email))
    if user is None:
        _fail("Nobody has this address.")
    if not yes:
        click.confirm(f"Erase {user.name} <{user.email}> for good?", abort=True)
    try:
        with transaction() as session:
            erasures.erase(session, erasures.lock(session, user.id), in_person=False)
    except Conflict as refusal:
        owned = "".join(f"\n  {team['id']}  {team['name']}" for team in refusal.members.get("teams", []))
        _fail(refusal.detail + owned)
    click.echo(f"Erased {user.id}; a worker goes on with the teams' logs.")


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


@click.group()
def price_book() -> None:
    """Price books: what the plans include and cost, by version (models/price_book.schema.json)."""


@price_book.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Say whether FILE is a price book, and load nothing."""
    with _told():
        book = plans.parse(_read(file))
    click.echo(f"version {book.version}, {book.currency}: {', '.join(book.plans)}")


@price_book.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(file: Path) -> None:
    """
    Load FILE for good. Teams that are made or choose a plan from now on get its plans; the others keep what they have, seats
    included, until they choose another plan or are moved.
    """
    with _told():
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
        with _told(), transaction() as session:
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


@contextmanager
def _told() -> Iterator[None]:
    """A domain error as a command's: its text, with the place of each mistake, and exit code 1."""
    try:
        yield
    except DomainError as error:
        places = error.members.get("errors", {})
        raise click.ClickException(
            "\n".join([error.detail, *(f"{at}: {' '.join(what)}" for at, what in places.items())])
        ) from error


def _write(path: Path, text: str, *, check: bool, command: str) -> None:
    if not check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        click.echo(f"{path} is out of date; run `flask --app wsgi {command}`.", err=True)
        sys.exit(1)
