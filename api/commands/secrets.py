"""`flask --app wsgi secrets …`: under which keys secrets are kept, and bringing them under the newest (docs/operations)."""

import base64
import sys
from dataclasses import asdict

import click
from flask.cli import AppGroup

from api.commands.told import list_, told_transaction
from models import encryption
from models.operations import second_factors, webhooks
from models.queries import kept_secrets
from models.signing import keyring

group = AppGroup("secrets", help="Keys: what is kept under which, and rotating them.")
AT_ONCE = 500


@group.command("list")
def show() -> None:
    """List how many secrets and signatures are under which key; exit code 1 if a key is missing that any needs."""
    with told_transaction() as session:
        found = kept_secrets.kept(session)
    list_(asdict(each) for each in found)
    sys.exit(1 if any(each.standing == "missing" for each in found) else 0)


@group.command()
def encrypt() -> None:
    """Bring every secret under the first key of ENCRYPTION_KEY now; a worker does it each hour. Safe to repeat."""
    if not encryption.available():
        raise click.ClickException("ENCRYPTION_KEY is not set.")
    with told_transaction() as session:
        moved = webhooks.encrypt_again(session)
    part = 1
    while part:
        with told_transaction() as session:
            part = second_factors.encrypt_again(session, AT_ONCE)
        moved += part
    with told_transaction() as session:
        left = [
            each
            for each in kept_secrets.kept(session)
            if each.kind != kept_secrets.CHECKPOINT and each.standing != "first"
        ]
    click.echo(f"{moved} brought under the first key")
    list_(asdict(each) for each in left)
    sys.exit(1 if left else 0)


@group.command()
def public_key() -> None:
    """Print the public key of SIGNING_KEY: what RETIRED_SIGNING_KEYS needs once another one signs."""
    signer = keyring().signer
    if signer is None:
        raise click.ClickException("SIGNING_KEY is not set.")
    click.echo(base64.b64encode(signer.public_key).decode())
