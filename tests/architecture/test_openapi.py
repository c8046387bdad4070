"""docs/openapi.json is what the routes say."""

from pathlib import Path

import pytest
from flask import Flask

from api import cli


def test_the_document_is_current(app: Flask) -> None:
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["openapi", "--check"])
    assert result.exit_code == 0, result.output


def test_one_that_is_not_is_refused_until_it_is_written(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "OPENAPI", tmp_path / "openapi.json")
    runner = app.test_cli_runner()

    def run(*more: str) -> tuple[int, str]:
        with app.app_context():
            result = runner.invoke(args=["openapi", *more])
        return result.exit_code, result.output

    absent = run("--check")
    assert (absent[0], "out of date" in absent[1]) == (1, True)
    (tmp_path / "openapi.json").write_text("{}")
    assert run("--check")[0] == 1
    assert run() == (0, "")
    assert run("--check") == (0, "")
