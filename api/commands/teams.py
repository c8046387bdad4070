"""`flask --app wsgi team …`: teams, as an operator shuts them out."""

from uuid import UUID

import click
from flask.cli import AppGroup

from api.commands.told import REASON, TEAM, told_transaction
from models.operations import suspensions

group = AppGroup("team", help="Teams: suspend, reinstate.")


@group.command()
@TEAM
@REASON
def suspend(team_id: UUID, reason: str) -> None:
    """Let nobody enter TEAM, by session, key or socket, and hold its webhooks; nothing of it is lost."""
    with told_transaction() as session:
        team = suspensions.suspend_team(session, team_id, reason=reason)
    click.echo(f"suspended {team.id} {team.name}")


@group.command()
@TEAM
@REASON
def reinstate(team_id: UUID, reason: str) -> None:
    """Let the members of TEAM enter again."""
    with told_transaction() as session:
        team = suspensions.reinstate_team(session, team_id, reason=reason)
    click.echo(f"reinstated {team.id} {team.name}")
