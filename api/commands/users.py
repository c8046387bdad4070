"""`flask --app wsgi user …`: accounts, as an operator makes, shuts out and erases them."""

import click
from flask.cli import AppGroup

from api.commands.told import REASON, YES, account, told_transaction
from models.access.actor import Actor, Origin
from models.access.passwords import hash_password
from models.operations import erasures, sessions, suspensions, teams, users

group = AppGroup("user", help="Accounts: make, suspend, reinstate, erase.")
SHORTEST_PASSWORD = 12
"""Longer than the API asks (models/access/passwords.py): whom an operator makes is often an administrator."""


@group.command()
@click.argument("email")
@click.option("--name", required=True)
@click.option("--team", help="Make a team of this name, too, whose owner and admin they are.")
@click.option(
    "--password",
    envvar="NEW_PASSWORD",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="Asked for, or from the variable NEW_PASSWORD; the command line shows it to everybody.",
)
def create(email: str, name: str, team: str | None, password: str) -> None:
    """Make an account with the address EMAIL, verified, so that it can sign in at once."""
    if len(password) < SHORTEST_PASSWORD:
        raise click.ClickException(f"The password needs {SHORTEST_PASSWORD} characters.")
    password_hash = hash_password(password)
    with told_transaction() as session:
        user = users.register(session, email=email, name=name, password_hash=password_hash)
        users.mark_verified(session, user, origin=Origin())
        click.echo(f"user {user.id}")
        if team:
            opened, _ = sessions.open_session(session, user, origin=Origin(), days=1)
            actor = Actor(user_id=user.id, session_id=opened.id, origin=Origin())
            click.echo(f"team {teams.create(session, actor, name=team).id}")
            sessions.end(session, actor, opened.id)


@group.command()
@click.argument("email")
@REASON
def suspend(email: str, reason: str) -> None:
    """Sign EMAIL out everywhere and refuse their sign-ins, keys and agents; sockets close within a second."""
    user = account(email)
    with told_transaction() as session:
        ended = suspensions.suspend_user(session, user.id, reason=reason)
    click.echo(f"suspended {user.id}, {ended} sessions ended")


@group.command()
@click.argument("email")
@REASON
def reinstate(email: str, reason: str) -> None:
    """Let EMAIL sign in again; their keys and agents count again."""
    user = account(email)
    with told_transaction() as session:
        suspensions.reinstate_user(session, user.id, reason=reason)
    click.echo(f"reinstated {user.id}")


@group.command()
@click.argument("email")
@YES
def erase(email: str, yes: bool) -> None:
    """Erase the person with the address EMAIL, for good. Refused while they own a team."""
    user = account(email)
    if not yes:
        click.confirm(f"Erase {user.name} <{user.email}> for good?", abort=True)
    with told_transaction() as session:
        erasures.erase(session, erasures.lock(session, user.id), in_person=False)
    click.echo(f"Erased {user.id}; a worker goes on with the teams' logs.")
