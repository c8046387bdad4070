"""A team's settings in a browser: saved by section, its workspaces, its plan, and how it ends."""

import pytest
from playwright.sync_api import expect

from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting, join


def test_the_name_is_saved_and_shown_everywhere(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.admin).open(f"{team.path}/settings")
    page.fill("#name [name=name]", "디자인 팀")
    page.click("#name button")
    expect(page.locator("#name [data-form-done]")).to_have_text("Saved")
    expect(page.locator(".switcher-name")).to_have_text("디자인 팀")
    expect(page.locator("#name [name=name]")).to_have_value("디자인 팀")
    assert team.owner.get(team.path).json["name"] == "디자인 팀"


def test_a_second_factor_is_asked_for_by_who_has_one(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"{team.path}/settings")
    expect(page.locator("#f-two-factor")).to_be_disabled()
    team.owner.set_up_second_factor()
    page.reload()
    page.check("#f-two-factor")
    page.locator("section", has=page.locator("#s-two-factor")).get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved")).to_be_visible()
    assert team.owner.get(team.path).json["two_factor_required"] is True


def test_retention_has_the_plans_bounds(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"{team.path}/settings")
    days = page.locator("[name=retention_days]")
    expect(page.locator("#retention")).to_contain_text("7 to 1,095 in the plan pro")
    for wrong in ("6", "1096"):
        days.fill(wrong)
        page.click("#retention button")
        assert days.evaluate("field => field.validity.valid") is False
    days.fill("7")
    page.click("#retention button")
    expect(page.locator("#retention")).to_contain_text("The shorter time counts from")
    assert team.owner.get(team.path).json["retention_days"] == 7
    days.fill("")
    page.click("#retention button")
    expect(page.locator("#retention")).not_to_contain_text("The shorter time counts from")
    assert team.owner.get(team.path).json["retention_days"] is None


def test_a_legal_hold_is_the_owners(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.admin).open(f"{team.path}/settings")
    expect(page.locator("#hold")).to_have_count(0)
    page = screen_of(team.owner).open(f"{team.path}/settings")
    page.fill("#hold [name=reason]", "Case 12")
    page.click("#hold button")
    page.click("text=Change the reason")
    page.fill("#change-hold [name=reason]", "Case 12 and 13")
    page.click("#change-hold button.primary")
    expect(page.locator("#hold")).to_contain_text("Case 12 and 13")
    assert team.owner.get(team.path).json["legal_hold_reason"] == "Case 12 and 13"
    page.click("#hold >> text=Release the hold")
    page.fill("#f-confirm-release", "Design")
    page.click("#release-hold button.danger")
    expect(page.locator("#hold [name=reason]")).to_be_visible()
    assert team.owner.get(team.path).json["legal_hold_reason"] is None


def test_workspaces_are_made_changed_and_deleted(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.admin).open(f"{team.path}/settings")
    page.click("text=New workspace")
    page.fill("#f-workspace-name", "Board papers")
    page.check("#new-workspace [value=private]")
    page.click("#new-workspace button.primary")
    expect(page.get_by_role("heading", name="Listed members")).to_be_visible()
    made = team.owner.get(f"{team.path}/workspaces").json["items"][-1]
    assert (made["name"], made["visibility"], made["description"]) == ("Board papers", "private", None)
    page.select_option("#f-user", label="Viewer")
    page.select_option("#f-role", "member")
    page.click("text=List the member")
    expect(page.locator("#listed .line", has_text="Viewer")).to_contain_text("member")
    listed = team.owner.get(f"{team.path}/workspaces/{made['id']}/members").json["items"]
    assert {each["user"]["name"]: each["role"] for each in listed} == {"Admin": None, "Viewer": "member"}
    page.get_by_role("button", name="Take Viewer off the list").click()
    expect(page.locator("#listed .line")).to_have_count(1)
    page.fill("[name=name]", "Board")
    page.fill("[name=description]", "Drafts")
    page.check("[name=visibility][value=team]")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Board", exact=True)).to_be_visible()
    changed = team.owner.get(f"{team.path}/workspaces/{made['id']}").json
    assert (changed["name"], changed["visibility"], changed["description"]) == ("Board", "team", "Drafts")
    page.get_by_role("button", name="Delete the workspace").first.click()
    page.fill("#f-confirm-delete", "Board papers")
    page.click("#delete-workspace button.danger")
    assert team.owner.get(f"{team.path}/workspaces/{made['id']}").status_code == 200
    page.fill("#f-confirm-delete", "Board")
    page.click("#delete-workspace button.danger")
    page.wait_for_url("**/settings")
    assert team.owner.get(f"{team.path}/workspaces/{made['id']}").status_code == 404


def test_a_private_workspace_is_no_ones_page_who_is_not_listed(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    made = team.owner.post(f"{team.path}/workspaces", json={"name": "Board", "visibility": "private"}).json
    screen = screen_of(team.admin)
    page = screen.open(f"{team.path}/settings")
    expect(page.locator("#workspaces")).not_to_contain_text("Board")
    screen.open(f"{team.path}/workspaces/{made['id']}")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    assert screen.complaints.pop().startswith("Failed to load resource")  # the browser notes the 404 itself


def test_another_sees_a_new_workspace_at_once(team: TeamSetting, screen_of: ScreenOf) -> None:
    screen = screen_of(team.viewer)
    page = screen.open(f"{team.path}/settings")
    screen.live()
    team.owner.post(f"{team.path}/workspaces", json={"name": "Live"})
    expect(page.locator("#workspaces")).to_contain_text("Live")


def test_the_plan_is_chosen_where_the_seats_suffice(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"{team.path}/settings")
    expect(page.locator(".plan", has_text="Pro")).to_contain_text("$49.00 a month")
    expect(page.locator(".plan", has_text="Pro")).to_contain_text("yours")
    page.check("[name=plan][value=free]")
    page.click("#plan button")
    expect(page.locator(".plan", has_text="Free")).to_contain_text("yours")
    assert team.owner.get(team.path).json["plan"] == "free"
    page.check("[name=plan][value=pro]")
    page.click("#plan button")
    expect(page.locator(".plan", has_text="Pro")).to_contain_text("yours")
    join(team, "viewer", "Five")
    page.reload()
    expect(page.locator("[name=plan][value=free]")).to_be_enabled()
    join(team, "viewer", "Six")
    page.reload()
    expect(page.locator("[name=plan][value=free]")).to_be_disabled()
    expect(page.locator(".plan", has_text="Free")).to_contain_text("1 seats too few")


def test_the_team_is_handed_over(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"{team.path}/settings")
    page.click("text=Choose the new owner")
    page.select_option("#f-heir", str(team.member.id))
    page.fill("#f-confirm-transfer", "Design")
    page.click("#transfer button.danger")
    expect(page.get_by_text("Owner: Member")).to_be_visible()
    assert team.owner.get(team.path).json["owner_id"] == str(team.member.id)
    expect(page.get_by_role("button", name="Leave the team").first).to_be_visible()


def test_the_team_is_deleted_and_brought_back(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"{team.path}/settings")
    page.locator(".danger-zone").get_by_role("button", name="Delete the team").click()
    page.fill("#f-confirm-delete", "design")
    page.click("#delete-team button.danger")
    assert team.owner.get(team.path).status_code == 200
    page.fill("#f-confirm-delete", "Design")
    page.click("#delete-team button.danger")
    page.wait_for_url("**/teams/new")
    assert team.owner.get(team.path).status_code == 404
    page.get_by_role("button", name="Bring back").click()
    page.wait_for_url(f"**{team.path}")
    assert team.owner.get(team.path).status_code == 200


def test_others_do_not_see_deleted_teams(team: TeamSetting, screen_of: ScreenOf) -> None:
    team.owner.delete(team.path)
    page = screen_of(team.admin).open("/teams/new")
    expect(page.get_by_text("Your deleted teams")).to_have_count(0)


def test_a_member_leaves(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.member).open(f"{team.path}/settings")
    page.locator(".danger-zone").get_by_role("button", name="Leave the team").click()
    page.fill("#f-confirm-leave", "Design")
    page.click("#leave button.danger")
    page.wait_for_url("**/teams/new")
    assert team.member.get(team.path).status_code == 404


@pytest.mark.parametrize("width", ["phone", "desktop"])
def test_a_viewer_is_offered_nothing_to_change(team: TeamSetting, screen_of: ScreenOf, width: str) -> None:
    page = screen_of(team.viewer, width=width).open(f"{team.path}/settings")
    expect(page.locator("main form[data-api]:visible")).to_have_count(0)
    expect(page.locator("main button:visible")).to_have_text(["Leave the team"])
    page.goto(page.url.replace("settings", f"workspaces/{team.workspace_id}"))
    expect(page.locator("main button:visible, main form:visible")).to_have_count(0)
