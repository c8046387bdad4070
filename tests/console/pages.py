"""Every page there is, as the application's own routes say, and what must hold on each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from axe_playwright_python.base import AXE_SCRIPT
from flask import Flask
from playwright.sync_api import Error, Page

from api.console.words import KEPT
from api.resource import Need, declared
from tests.console.conftest import WIDTHS, Screen, ScreenOf
from tests.console.realistic import Scene
from tests.factories import Person

PARAMETER = re.compile(r"<(?:[^:<>]+:)?(\w+)>")
# Besides each page as its bare address shows it.
STATES = (
    "/teams/{team_id}/tasks?view=table",
    "/teams/{team_id}/tasks?view=table&status=cancelled",
)
ELSEWHERE = {"home"}
"""Lead on to another page."""
LOOKS: dict[str, tuple[tuple[str, Literal["light", "dark"]], ...]] = {
    "en": (("desktop", "light"), ("phone", "dark")),
    "ko": (("desktop", "dark"), ("phone", "light")),
}
"""A page is loaded once and looked at in these, by language: each width in each theme, and each of them in each language."""


@dataclass(frozen=True)
class Place:
    name: str
    path: str
    person: Person | None
    status: int = 200

    @property
    def in_team(self) -> bool:
        return self.path.startswith("/teams/") and self.path != "/teams/new"


def places(app: Flask, scene: Scene) -> Iterator[Place]:
    """Each page of the console, in a team at work and in an empty one, and its refusals."""
    owner = scene.team.owner
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        name = rule.endpoint.partition(".")[2]
        if not rule.endpoint.startswith("console.") or name.lower() in ELSEWHERE:
            continue
        requirement = declared(app.view_functions[rule.endpoint], "GET")
        assert requirement is not None, rule.rule
        public = requirement.needs is Need.PUBLIC
        yield Place(name, fill(rule.rule, scene), None if public else owner)
        if rule.arguments == {"team_id"}:
            path = rule.rule.replace("<uuid:team_id>", str(scene.empty_team_id))
            yield Place(f"{name}-empty", path, scene.newcomer)
    for number, state in enumerate(STATES):
        yield Place(f"state-{number}", state.format(**scene.ids), owner)
    yield Place("not-found", f"/teams/{scene.team.id}/nothing", owner, 404)
    yield Place("not-found-team", f"/teams/{scene.empty_team_id}", owner, 404)
    yield Place("forbidden", f"/teams/{scene.team.id}/{forbidden(app)}", scene.team.viewer, 403)


def forbidden(app: Flask) -> str:
    """A page that a viewer may not open."""
    rules = {rule.endpoint: rule.rule for rule in app.url_map.iter_rules()}
    wanted = next((one for one in ("keys", "webhooks", "invoices") if f"console.{one}" in rules), None)
    assert wanted, "a page that a viewer may not open"
    return rules[f"console.{wanted}"].rpartition("/")[2]


def fill(rule: str, scene: Scene) -> str:
    missing = [name for name in PARAMETER.findall(rule) if name not in scene.ids]
    assert not missing, f"{rule}: give tests/console/realistic.py what stands for {missing}"
    return PARAMETER.sub(lambda found: str(scene.ids[found[1]]), rule)


class Visitors:
    """Each person's browser in one width, theme and language."""

    def __init__(self, screen_of: ScreenOf, **look: str) -> None:
        self.look = look
        self._screen_of = screen_of
        self._screens: dict[str, Screen] = {}

    def open(self, place: Place) -> Screen:
        key = str(place.person.id) if place.person else ""
        screen = self._screens.get(key) or self._screen_of(place.person, **self.look)
        self._screens[key] = screen
        answer = screen.page.goto(screen.address + place.path)
        assert answer is not None
        if answer.status != place.status:
            screen.complaints.append(f"answers {answer.status}")
        if place.status != 200:
            # The browser itself notes a page's own status as an error; that is not the page's doing.
            screen.complaints[:] = [
                each for each in screen.complaints if f"status of {place.status}" not in each
            ]
        if screen.page.query_selector("#connection"):
            screen.live()
        return screen

    def faults(self, place: Place) -> list[str]:
        """What is wrong with the page, in every look."""
        screen = self.open(place)
        try:
            # The dialogs of an empty team's page are those of the other's.
            found = _faults(screen.page, self.look["language"], dialogs=not place.name.endswith("-empty"))
        except Error as error:
            found = [str(error)]
        found += screen.complaints
        screen.complaints.clear()
        return [f"{place.path} ({place.name}): {each}" for each in found]


def _faults(page: Page, language: str, *, dialogs: bool) -> list[str]:
    """What is wrong with a page that is open: axe's rules, on its dialogs as well, its width, language and headings."""
    page.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
    found = _in_every_look(page, language)
    # A closed dialog may lead elsewhere.
    page.evaluate("window.addEventListener('close', (event) => event.stopImmediatePropagation(), true)")
    names = page.evaluate("[...document.querySelectorAll('dialog[id]')].map((one) => one.id)")
    for dialog in names if dialogs else []:
        page.evaluate(
            """(id) => {
              document.querySelector(`[data-open="${id}"]`)?.click();
              const dialog = document.getElementById(id);
              if (!dialog.open) dialog.showModal();
            }""",
            dialog,
        )
        found += _in_every_look(page, language, f"#{dialog}")
        page.evaluate("(id) => document.getElementById(id).close()", dialog)
    if language != "en":
        found += [f"says {word!r} to who reads {language}" for word in untranslated(page)]
    if (said := page.evaluate("document.documentElement.lang")) != language:
        found.append(f"says that it is in {said!r}")
    if (headings := page.locator("h1").count()) != 1:
        found.append(f"has {headings} first headings")
    return found


def _in_every_look(page: Page, language: str, within: str | None = None) -> list[str]:
    found = []
    for width, theme in LOOKS[language]:
        page.set_viewport_size({"width": WIDTHS[width], "height": 900})
        page.emulate_media(color_scheme=theme)
        faults = violations(page, within)
        if wide := overflow(page):
            faults.append(wide)
        found += [f"{within or 'page'}, {width}, {theme}: {fault}" for fault in faults]
    page.set_viewport_size({"width": WIDTHS["desktop"], "height": 900})
    return found


def violations(page: Page, within: str | None = None) -> list[str]:
    """What breaks one of axe's rules; its own files are ours, so it need not fetch styles to read them."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(
        "(within) => axe.run(within ?? document, { resultTypes: ['violations'], preload: false })", within
    )
    return [
        f"{each['id']}: {node['target']} {node['html'][:160]} {node.get('failureSummary', '')[-200:]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def untranslated(page: Page) -> list[str]:
    """Kept values (a role, a state) that stand there by themselves as the API writes them."""
    found: list[str] = page.evaluate(
        """(kept) => {
          const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          const found = new Set();
          while (texts.nextNode()) {
            const text = texts.currentNode.textContent.trim();
            if (kept.includes(text) && !texts.currentNode.parentElement.closest(".mono, code, pre, script, template")) found.add(text);
          }
          return [...found];
        }""",
        list(KEPT),
    )
    return found


def overflow(page: Page) -> str | None:
    """What sticks out at the side, if anything does."""
    wider: str | None = page.evaluate(
        """() => {
          const root = document.documentElement;
          if (root.scrollWidth <= root.clientWidth) return null;
          const out = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > root.clientWidth + 1);
          return `scrolls sideways: ${root.scrollWidth} > ${root.clientWidth}, by ${out.slice(0, 3).map((one) => one.outerHTML.slice(0, 90)).join(" | ")}`;
        }"""
    )
    return wider
