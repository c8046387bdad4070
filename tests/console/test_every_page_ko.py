"""Every page in Korean, at both widths and in both themes: accessible, within its width, without complaint. (A file per language runs beside the other.)"""

import pytest
from flask import Flask

from tests.console.conftest import ScreenOf
from tests.console.pages import Visitors, places
from tests.console.realistic import make_scene


@pytest.mark.timeout(300)
def test_every_page_is_in_order(app: Flask, screen_of: ScreenOf) -> None:
    scene = make_scene(app)
    visitors = Visitors(screen_of, language="ko")
    found = []
    for place in places(app, scene):
        found += visitors.faults(place)
    assert not found, "\n".join(found)
