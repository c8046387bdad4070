"""
The console in a real Chromium: the application in a server of this process, a drain beside it as a worker would be, and
contexts of people who are signed in. Everything that a page complains of fails its test.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from werkzeug.serving import make_server

from api import cookies
from models.errors import Unavailable
from models.settings import settings
from realtime import hub
from realtime.publisher import connect
from tests.factories import Person, TeamSetting, drain, fetch, make_team
from tests.realtime.conftest import SilentHandler
from workers.outbox import drain_batch

CHROMIUM = next(
    filter(None, (os.environ.get("CHROMIUM"), shutil.which("chromium"), shutil.which("chromium-browser"))),
    None,
)
PATIENCE_MS = 10_000
expect.set_options(timeout=PATIENCE_MS)
WIDTHS = {"phone": 390, "desktop": 1280, "wide": 1680}


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    return make_team(app)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(app: Flask) -> Iterator[str]:
    """Of the console, with a drain that runs beside it."""
    served = make_server("127.0.0.1", 0, app, threaded=True, request_handler=SilentHandler)
    served.daemon_threads = True  # type: ignore[attr-defined]  # a ThreadingMixIn's
    server = threading.Thread(target=served.serve_forever, daemon=True)
    server.start()
    ended = threading.Event()
    drain = threading.Thread(target=_drain_until, args=[ended], daemon=True)
    drain.start()
    yield f"http://127.0.0.1:{served.port}"
    ended.set()
    drain.join()
    hub.close_all()
    served.shutdown()
    server.join()
    served.server_close()


def _drain_until(ended: threading.Event) -> None:
    redis = connect(settings().redis_url)
    while not ended.wait(0.05):
        with suppress(Unavailable):
            drain_batch(redis)


def settle(team: TeamSetting) -> None:
    """Waits until all that happened in the team is in its log: the drain beside may have the rest in hand."""
    drain()
    while fetch("SELECT 1 FROM outbox WHERE team_id = :id LIMIT 1", id=team.id):
        time.sleep(0.02)


class Screen:
    """Someone's browser: its pages, and all that they complained of."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context = context
        self.address = address
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._check(request.url))

    def open(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page

    def live(self) -> None:
        """Waits until the page says that it is live."""
        self.page.wait_for_selector("#connection[data-state=live]")

    def expect_complaint(self, text: str) -> None:
        """The page has complained once, of this: a refusal that it asked for, which a browser reports by itself."""
        (complaint,) = self.complaints
        assert text in complaint
        self.complaints.clear()

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def _check(self, url: str) -> None:
        if (
            urlsplit(url).scheme not in {"data", "blob"}
            and urlsplit(url).netloc != urlsplit(self.address).netloc
        ):
            self.complaints.append(f"a request leaves the host: {url}")


ScreenOf = Callable[..., Screen]


@pytest.fixture
def screen_of(browser: Browser, address: str) -> Iterator[ScreenOf]:
    """
    `screen_of(person, width="desktop", theme="light", language="en")`: their browser, signed in (None: nobody's). At the end no page
    may have complained: no error in the console, no violated policy, no request to another host.
    """
    screens: list[Screen] = []

    def make(
        person: Person | None, *, width: str = "desktop", theme: str = "light", language: str = "en"
    ) -> Screen:
        context = browser.new_context(
            viewport={"width": WIDTHS[width], "height": 900},
            color_scheme="dark" if theme == "dark" else "light",
            locale={"en": "en-US", "ko": "ko-KR"}[language],
            reduced_motion="reduce",
            timezone_id="Asia/Seoul",
        )
        if person is not None:
            context.add_cookies(
                [
                    {
                        "name": cookies.NAME,
                        "value": person.token,
                        "url": address,
                        "httpOnly": True,
                        "sameSite": "Lax",
                    }
                ]
            )
        screen = Screen(context, address)
        screens.append(screen)
        return screen

    yield make
    complaints: list[Any] = [each for screen in screens for each in screen.complaints]
    for screen in screens:
        screen.context.close()
    assert complaints == []
