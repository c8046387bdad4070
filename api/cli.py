"""`flask --app wsgi …`: what developers and operators run."""

import sys
from pathlib import Path

import click
import orjson
from environs import Env
from flask import Flask, current_app

from api import event_catalogue
from api import translations as catalogues
from api.commands import billing, jobs, log, price_books, secrets, usage
from api.commands import teams as team_commands
from api.commands import users as user_commands
from api.docs import document
from api.permission_matrix import matrix
from models.access.actor import Actor, Origin
from models.access.emails import normalize_email
from models.access.passwords import hash_password
from models.database import transaction
from models.operations import sessions, teams, users
from models.queries import users as accounts

OPENAPI = Path("docs/openapi.json")
PERMISSIONS = Path("docs/permissions.md")
EVENTS = Path("docs/events.md")
DEMO_EMAIL = "demo@example.com"
GROUPS = (
    user_commands.group,
    team_commands.group,
    log.group,
    jobs.group,
    secrets.group,
    usage.usage,
    billing.group,
    price_books.price_book,
)
"""What operators run (docs/operations)."""


def register(app: Flask) -> None:
    app.cli.add_command(seed)
    app.cli.add_command(openapi)
    app.cli.add_command(permissions_doc)
    app.cli.add_command(events_doc)
    app.cli.add_command(translations)
    for command in GROUPS:
        app.cli.add_command(command)


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
        raise click.ClickException(
            "\n".join([*found, "Run `flask --app wsgi translations`, and translate what is empty."])
        )


def _write(path: Path, text: str, *, check: bool, command: str) -> None:
    if not check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        click.echo(f"{path} is out of date; run `flask --app wsgi {command}`.", err=True)
        sys.exit(1)
