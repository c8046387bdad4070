"""What the product exports with proof, its offline verifier finds valid: for who sees all, and for who does not."""

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.api.test_activity import make_everything_happen
from tests.audit import sign
from tests.exports import run_verifier
from tests.factories import drain


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("who", ["admin", "viewer"])
def test_an_export_with_proof_is_valid(
    app: Flask, client: FlaskClient, tmp_path: Path, form: str, who: str
) -> None:
    team = make_everything_happen(app)
    person = getattr(team, who)
    secret = team.admin.post(f"{team.path}/workspaces", json={"name": "=Vault", "visibility": "private"})
    assert secret.status_code == 201
    drain()
    sign(team.id)
    answer = person.get(f"{team.path}/activity/export?proof=true&format={form}")
    assert answer.status_code == 200
    export, checkpoints, keys = (tmp_path / name for name in ("export", "checkpoints", "keys"))
    export.write_bytes(answer.data)
    checkpoints.write_text(person.get(f"{team.path}/activity/checkpoints").text)
    keys.write_text(client.get("/api/v1/signing-keys").text)
    ran = run_verifier(export, "--checkpoints", checkpoints, "--key", keys)
    assert ran.returncode == 0, ran.stdout + ran.stderr
