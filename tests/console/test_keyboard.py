"""The console without a mouse."""

import pytest

from tests.console.conftest import ScreenOf
from tests.console.pages import violations
from tests.factories import TeamSetting

FOCUSED = "document.activeElement.id || document.activeElement.getAttribute('href') || document.activeElement.tagName"


def test_the_first_tab_skips_to_the_content(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "#main"
    assert page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]  # it is there
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_slash_goes_to_the_jump_box_but_not_while_one_writes(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/tasks")
    page.keyboard.press("/")
    assert page.evaluate(FOCUSED) == "jump"
    page.keyboard.type("a/b")
    assert page.input_value("#jump") == "a/b"


@pytest.mark.parametrize("path", ["", "/tasks?view=table", "/members", "/activity"])
def test_tab_goes_through_all_there_is_in_the_order_that_it_is_read(
    team: TeamSetting, screen_of: ScreenOf, path: str
) -> None:
    team.task(title="Summarize the week")
    screen = screen_of(team.owner)
    page = screen.open(f"/teams/{team.id}{path}")
    screen.live()
    assert page.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0
    page.evaluate("window.order = [...document.querySelectorAll('*')]")
    positions: list[int] = []
    for _ in range(200):
        page.keyboard.press("Tab")
        position = page.evaluate(
            "document.activeElement === document.body ? -1 : window.order.indexOf(document.activeElement)"
        )
        if position < 0 or (positions and position <= positions[0]):
            break
        positions.append(position)
    assert len(positions) > 12
    assert positions == sorted(positions)


def test_a_dialog_keeps_the_focus_and_gives_it_back(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/tasks")
    page.focus("[data-open=new-task]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#new-task[open]")
    for _ in range(12):
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('#new-task')"
        )
        page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    page.wait_for_selector("#new-task", state="hidden")
    assert page.evaluate("document.activeElement.dataset.open") == "new-task"


def test_menus_open_and_close_by_key_and_are_accessible_open(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}")
    page.focus(".menu > summary")
    page.keyboard.press("Enter")
    page.wait_for_selector(".menu[open]")
    assert violations(page) == []
    page.keyboard.press("Escape")
    assert page.locator(".menu[open]").count() == 0
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_the_drawer_on_a_phone_opens_and_closes_by_key(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner, width="phone").open(f"/teams/{team.id}")
    page.focus(".drawer-toggle")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rail[data-open]")
    assert page.get_attribute(".drawer-toggle", "aria-expanded") == "true"
    assert page.evaluate("!!document.activeElement.closest('#rail')")
    assert violations(page) == []
    page.keyboard.press("Escape")
    assert page.locator("#rail[data-open]").count() == 0


def test_the_language_and_theme_are_switched_by_key_and_stay(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}")
    page.click(".menu > summary")
    page.focus("[data-theme-choice=dark]")
    page.keyboard.press("Enter")
    page.focus("[data-language=ko]")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('개요')")
    assert page.get_attribute("html", "lang") == "ko"
    assert page.get_attribute("html", "data-theme") == "dark"
