"""`flask --app wsgi log …` and `… replay`: proof that the logs are what was logged, and that what is folded says the same."""

import sys
from collections.abc import Iterator
from uuid import UUID

import click
from flask.cli import AppGroup
from tqdm import tqdm

from api.commands.told import list_, told, told_transaction
from models.database import snapshot, transaction
from models.errors import NotFound
from models.operations import replays
from models.queries import installation, proof
from models.signing import keyring

group = AppGroup("log", help="The teams' activity logs: verify the chains, replay what is folded.")
TEAMS_AT_ONCE = 500
ONE_TEAM = click.option("--team", type=click.UUID, help="This team alone; else all.")


@group.command()
@ONE_TEAM
def verify(team: UUID | None) -> None:
    """
    Check every row of every team against the one before it, each end against its head, each signed checkpoint against its row.
    Names what is wrong, a JSON object a line; exit code 1 if anything is.
    """
    rows = teams = problems = unsigned = 0
    keys = keyring()
    for team_id in tqdm(_teams(team), unit="team", disable=None):
        try:
            with told(), snapshot() as session:
                found = proof.verify_team(session, team_id, keys)
        except click.ClickException as error:
            if isinstance(error.__cause__, NotFound) and team is None:
                continue  # purged meanwhile
            raise
        teams += 1
        if found.first_seq is not None and found.last_seq is not None:
            rows += found.last_seq - found.first_seq + 1
            unsigned += found.last_seq - (found.checkpoint.seq if found.checkpoint else found.first_seq - 1)
        problems += len(found.problems)
        list_(
            {"team_id": team_id, "seq": each.seq, "problem": each.problem, "detail": each.detail}
            for each in found.problems
        )
    click.echo(
        f"{teams} teams, {rows} rows, {unsigned} of them past the last checkpoint, {problems} problems"
    )
    sys.exit(1 if problems else 0)


@group.command()
@click.argument("what", type=click.Choice(["usage", "activity", "all"]), default="all")
@ONE_TEAM
@click.option("--check", is_flag=True, help="Change nothing.")
def replay(what: str, team: UUID | None, check: bool) -> None:
    """
    Project anew: each team's daily usage from its ledger, what is used of its hard limits from both, and the counts of its log from
    the log. Lists what was kept wrong, and makes it right unless told to check alone; exit code 1 if anything is wrong in the end.
    """
    of = {"usage": (replays.replay_usage, replays.replay_quotas), "activity": (replays.replay_activity,)}
    chosen = [each for name, all_ in of.items() if what in {name, "all"} for each in all_]
    teams = differing = left = 0
    for team_id in tqdm(_teams(team), unit="team", disable=None):
        teams += 1
        for each in chosen:
            with told_transaction() as session:
                found = each(session, team_id, rebuild=not check)
            list_(difference._asdict() for difference in found)
            differing += len(found)
            if found and not check:
                with told_transaction() as session:
                    found = each(session, team_id, rebuild=False)
            left += len(found)
    click.echo(f"{teams} teams, {differing} rows differed, {left} do now")
    sys.exit(1 if left else 0)


def _teams(team: UUID | None) -> Iterator[UUID]:
    if team is not None:
        yield team
        return
    after = None
    while True:
        with told(), transaction() as session:
            found = installation.team_ids(session, after=after, limit=TEAMS_AT_ONCE)
        yield from found
        if len(found) < TEAMS_AT_ONCE:
            return
        after = found[-1]
