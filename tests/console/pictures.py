"""
The pictures of docs/console/, taken anew by `make screenshots`: every page at 1,280 px in both themes, some on a phone, two in Korean.
Not collected with the tests, which look at the same pages (tests/console/pages.py).
"""

from io import BytesIO
from pathlib import Path

import pytest
from flask import Flask
from PIL import Image

from tests.console.conftest import ScreenOf
from tests.console.pages import Place, Visitors, places
from tests.console.realistic import make_scene

FOLDER = Path("docs/console")
HEIGHT = 900
LARGEST = 150_000
"""Bytes of a picture."""
ON_A_PHONE = {"overview", "tasks", "members"}
IN_KOREAN = {"overview", "activity"}


def looks(place: Place, theme: str) -> list[tuple[str, dict[str, str]]]:
    """Each look of the page to be taken: the picture's name, and the browser's."""
    name = place.name.lower()
    taken = [(f"{name}-{theme}", {"width": "desktop", "theme": theme, "language": "en"})]
    if name in ON_A_PHONE:
        taken.append((f"{name}-phone-{theme}", {"width": "phone", "theme": theme, "language": "en"}))
    if name in IN_KOREAN and theme == "light":
        taken.append((f"{name}-ko", {"width": "desktop", "theme": theme, "language": "ko"}))
    return taken


@pytest.mark.timeout(600)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_take(app: Flask, screen_of: ScreenOf, theme: str) -> None:
    scene = make_scene(app)
    visitors: dict[str, Visitors] = {}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for place in places(app, scene):
        for name, look in looks(place, theme):
            browser = visitors.setdefault(str(look), Visitors(screen_of, **look))
            page = browser.open(place).page
            page.wait_for_function("document.fonts.status === 'loaded'")
            picture = compressed(page.screenshot(animations="disabled"))
            assert len(picture) <= LARGEST, f"{name}: {len(picture):,} bytes"
            (FOLDER / f"{name}.png").write_bytes(picture)


def compressed(png: bytes) -> bytes:
    """The same, packed as tightly as it goes; in a palette where it would be too large."""
    with Image.open(BytesIO(png)) as image:
        packed = _packed(image.convert("RGB"))
        return packed if len(packed) <= LARGEST else _packed(image.convert("RGB").quantize(256))


def _packed(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
