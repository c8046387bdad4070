"""SECURITY.md points to tests that are there."""

import re

from tests.architecture.sources import ROOT

NAMED = re.compile(r"`(tests/[\w/.]+)`")


def test_what_security_md_points_to_is_there() -> None:
    named = NAMED.findall((ROOT / "SECURITY.md").read_text())
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []
