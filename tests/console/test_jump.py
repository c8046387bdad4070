"""The jump box: a part of a name, the arrow keys, Enter."""

import pytest
from playwright.sync_api import Page, expect

from models.queries import tasks
from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting, join, make_role

RESULTS = "#jump-list [role=option]"


def jump_to(page: Page, text: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(text)


def test_a_task_is_reached_by_keyboard_alone(team: TeamSetting, screen_of: ScreenOf) -> None:
    task = team.task(title="주간 보고서 요약")
    page = screen_of(team.viewer).open(f"/teams/{team.id}")
    jump_to(page, "보고서")
    expect(page.locator(RESULTS)).to_have_count(1)
    box = page.locator("[data-jump]")
    expect(box).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#jump-count")).to_have_text("1 result")
    page.keyboard.press("ArrowDown")
    expect(box).to_have_attribute("aria-activedescendant", "jump-list-0")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/teams/{team.id}/tasks/{task['id']}")


def test_people_workspaces_and_pages_are_found_too(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}")
    jump_to(page, "RESEAR")
    expect(page.locator(RESULTS)).to_have_text(["ResearchWorkspace"])
    page.fill("[data-jump]", "viewer")
    expect(page.locator(RESULTS)).to_contain_text([team.viewer.email])
    page.fill("[data-jump]", "role")
    expect(page.locator(RESULTS)).to_have_text(["RolesPage"])
    page.locator(RESULTS).click()
    page.wait_for_url(f"**/teams/{team.id}/roles")


def test_the_arrows_go_round_and_escape_closes(team: TeamSetting, screen_of: ScreenOf) -> None:
    for title in ("One report", "Two reports"):
        team.task(title=title)
    page = screen_of(team.owner).open(f"/teams/{team.id}")
    jump_to(page, "report")
    expect(page.locator(RESULTS)).to_have_count(2)
    selected = page.locator(f"{RESULTS}[aria-selected=true]")
    page.keyboard.press("ArrowUp")
    expect(selected).to_contain_text("One report")
    page.keyboard.press("ArrowDown")
    expect(selected).to_contain_text("Two reports")
    page.keyboard.press("Escape")
    expect(page.locator("#jump-list")).to_have_count(0)
    expect(page.locator("[data-jump]")).to_have_attribute("aria-expanded", "false")


def test_enter_without_a_choice_opens_the_list_as_a_page(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}")
    jump_to(page, "no such thing")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/teams/{team.id}/jump?q=no*such*thing")
    expect(page.locator("main")).to_contain_text("Nothing is called so")


def found(team: TeamSetting, text: str, by: str = "viewer") -> str:
    person = team.people.get(by, team.owner)
    answer = person.client.get(
        f"/teams/{team.id}/jump",
        query_string={"q": text},
        headers={"Authorization": f"Bearer {person.token}"},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_what_is_private_is_found_by_those_alone_who_see_it(team: TeamSetting) -> None:
    made = team.owner.post(f"{team.path}/workspaces", json={"name": "Cellar", "visibility": "private"})
    path = f"{team.path}/workspaces/{made.json['id']}/tasks"
    team.owner.post(path, json={"title": "Count the bottles"})
    for text in ("Cellar", "bottles"):
        assert "data-jump-result" in found(team, text, "owner")
        assert "data-jump-result" not in found(team, text)


@pytest.mark.parametrize("text", ["%", "_", "a\0b", "", " ", "\ud800".encode("utf-8", "surrogatepass")])
def test_no_letter_is_a_wildcard_or_an_error(team: TeamSetting, text: str) -> None:
    team.task(title="A task")
    assert "A task" not in found(team, text)


def test_a_composed_letter_finds_its_decomposed_question(team: TeamSetting) -> None:
    team.task(title="카페 메뉴")
    assert "카페 메뉴" in found(team, "카페")


def test_at_most_eight_of_a_kind(team: TeamSetting) -> None:
    for number in range(9):
        join(team, "viewer", f"Twin{number}")
    answer = found(team, "Twin")
    assert "Twin7" in answer
    assert "Twin8" not in answer


def test_of_a_workspaces_tasks_the_newest_are_looked_through(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "NEWEST_SEARCHED", 3)
    for title in ("Needle", "Hay", "Straw"):
        team.task(title=title)
    assert 'state-pending"></use></svg><span>Needle' in found(team, "needle")
    team.task(title="Grass")
    assert "<span>Needle" not in found(team, "needle")


def test_a_member_who_may_not_see_members_finds_none(team: TeamSetting) -> None:
    make_role(team, "narrow", "teams:read", "tasks:read")
    narrow = join(team, "narrow", "Narrow")
    team.people["narrow"] = narrow
    assert "data-jump-result" not in found(team, "Viewer", "narrow")
