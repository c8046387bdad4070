"""Pages of people at both widths and in both themes: nothing that axe finds, nothing that sticks out sideways."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting, invite, make_agent, make_key, make_role

PATHS = {
    "members": "/teams/{team}/members",
    "member": "/teams/{team}/members/{member}?role=viewer",
    "roles": "/teams/{team}/roles?person={member}&permission=members:create",
    "a role": "/teams/{team}/roles?edit=reviewer",
    "a new role": "/teams/{team}/roles?new=1",
    "a role's end": "/teams/{team}/roles?delete=reviewer",
    "keys": "/teams/{team}/keys",
    "account": "/account",
    "jump": "/teams/{team}/jump?q=e",
    "jump to nothing": "/teams/{team}/jump?q=qqq",
}
DIALOGS = {
    "members": ("[data-open=invite]", "[data-open=remove]", "[data-open=revoke]"),
    "keys": (
        "main .actions [data-open=new-key]",
        "[data-open=new-agent]",
        "[data-open=edit-agent]",
        "[data-open=revoke-key]",
    ),
    "account": ("[data-open=password]", "[data-open=enable-factor]"),
}


def problems(page: Page) -> list[str]:
    found = [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in Axe().run(page).response["violations"]
        for node in violation["nodes"]
    ]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        found.append("wider than the window")
    return found


def furnish(team: TeamSetting) -> None:
    make_role(team, "reviewer", "teams:read", "members:read", "tasks:read")
    invite(team, "a-rather-long-address-of-somebody@engineering.example.com")
    make_key(team, team.owner, "teams:read", "tasks:read", agent_id=make_agent(team)["id"])
    team.task(title="주간 보고서를 요약하고 회의 자료로 정리")
    team.owner.post(f"{team.path}/members/{team.viewer.id}/suspend")


@pytest.mark.parametrize("name", PATHS)
def test_a_page_is_accessible_and_fits(team: TeamSetting, screen_of: ScreenOf, name: str) -> None:
    furnish(team)
    path = PATHS[name].format(team=team.id, member=team.member.id)
    assert problems(screen_of(team.owner, width="phone", theme="dark").open(path)) == []
    page = screen_of(team.owner).open(path)
    assert problems(page) == []
    for opener in DIALOGS.get(name, ()):
        page.locator(opener).first.click()
        page.wait_for_selector("dialog[open]")
        assert problems(page) == [], opener
        page.keyboard.press("Escape")


def test_the_open_jump_box_is_accessible(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}")
    page.keyboard.press("/")
    page.keyboard.type("e")
    page.wait_for_selector("#jump-list")
    page.keyboard.press("ArrowDown")
    assert problems(page) == []
