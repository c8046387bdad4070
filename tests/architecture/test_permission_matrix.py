"""docs/permissions.md is what the permissions table grants."""

from collections import defaultdict
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

from api import cli
from api.permission_matrix import matrix
from models.access.permissions import BUILT_IN_ROLES, Permission
from models.database import transaction
from models.tables import PermissionGrant


def test_the_matrix_is_what_the_table_grants() -> None:
    granted: dict[str, set[Permission]] = defaultdict(set)
    with transaction() as session:
        rows = select(PermissionGrant.role, PermissionGrant.resource + ":" + PermissionGrant.action).where(
            PermissionGrant.team_id.is_(None), PermissionGrant.allowed
        )
        for role, permission in session.execute(rows):
            granted[role].add(Permission(permission))
    assert granted.keys() == BUILT_IN_ROLES.keys()
    written = Path("docs/permissions.md").read_text(encoding="utf-8")
    assert written == matrix({role: granted[role] for role in BUILT_IN_ROLES})
    granted["viewer"].add(Permission.tasks_create)
    assert written != matrix({role: granted[role] for role in BUILT_IN_ROLES})


def test_the_matrix_marks_what_is_the_owners_and_what_a_workspace_decides() -> None:
    lines = {line.split("`")[1]: line for line in matrix().splitlines() if line.startswith("| `")}
    assert list(lines) == [permission.value for permission in Permission]
    assert {name for name, line in lines.items() if "| owner |" in line} == {"teams:delete", "teams:transfer"}
    scoped = {name for name, line in lines.items() if "| workspace |" in line}
    assert scoped == {
        *(f"tasks:{action}" for action in ("read", "create", "update", "delete")),
        *(f"workspaces:{action}" for action in ("read", "update", "delete")),
    }


def test_a_matrix_that_is_not_current_is_refused_until_it_is_written(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "PERMISSIONS", tmp_path / "permissions.md")
    runner = app.test_cli_runner()

    def run(*more: str) -> tuple[int, str]:
        with app.app_context():
            result = runner.invoke(args=["permissions-doc", *more])
        return result.exit_code, result.output

    absent = run("--check")
    assert (absent[0], "out of date" in absent[1]) == (1, True)
    (tmp_path / "permissions.md").write_text("# Permissions\n")
    assert run("--check")[0] == 1
    assert run() == (0, "")
    assert run("--check") == (0, "")
