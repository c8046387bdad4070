"""Every page at both widths and in both languages, dark: accessible, within its width, without complaint. (A file per theme runs beside the other.)"""

import pytest
from flask import Flask

from tests.console.conftest import ScreenOf
from tests.console.pages import Visitors, places
from tests.console.realistic import make_scene


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("width", ["phone", "desktop"])
def test_every_page_is_in_order(app: Flask, screen_of: ScreenOf, width: str, language: str) -> None:
    scene = make_scene(app)
    visitors = Visitors(screen_of, width=width, theme="dark", language=language)
    found = []
    for place in places(app, scene):
        found += visitors.faults(place)
    assert not found, "\n".join(found)
