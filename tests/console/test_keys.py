"""Agents and API keys in a browser."""

from playwright.sync_api import expect

from tests.console.conftest import ScreenOf
from tests.factories import Person, TeamSetting, make_agent, make_key


def keys(team: TeamSetting) -> list[dict[str, object]]:
    items: list[dict[str, object]] = team.owner.get(f"{team.path}/api-keys").json["items"]
    return items


def test_a_key_is_made_shown_once_and_works(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/keys")
    page.click("main .actions [data-open=new-key]")
    page.fill("#f-key-name", "Digest")
    page.check("#new-key [value='tasks:read']")
    page.check("#new-key [value='teams:read']")
    page.click("#new-key form button.primary")
    shown = page.locator("output.secret")
    expect(shown).to_contain_text("ahk_")
    key = shown.text_content() or ""
    robot = Person(team.owner.app, team.owner.id, "", "", key)
    assert robot.get(team.path).status_code == 200
    assert robot.get(f"{team.path}/members").status_code == 403
    page.click("#new-key [data-after-secret] [data-dismiss]")
    expect(page.locator("#keys")).to_contain_text("Digest")
    page.click("main .actions [data-open=new-key]")
    expect(page.locator("output.secret")).to_be_hidden()
    (made,) = keys(team)
    assert made["permissions"] == ["tasks:read", "teams:read"]


def test_a_key_without_permissions_is_refused_beside_the_field(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    screen = screen_of(team.owner)
    page = screen.open(f"/teams/{team.id}/keys")
    page.click("main .actions [data-open=new-key]")
    page.fill("#f-key-name", "Digest")
    page.click("#new-key form button.primary")
    expect(page.locator("#new-key [data-error=permissions]")).to_be_visible()
    assert keys(team) == []
    screen.expect_complaint("422")


def test_all_that_only_reads_is_chosen_at_once(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/keys")
    page.click("main .actions [data-open=new-key]")
    page.click("[data-check=read]")
    expect(page.locator("#new-key [value='members:read']")).to_be_checked()
    expect(page.locator("#new-key [value='members:create']")).not_to_be_checked()


def test_another_role_of_an_agent_is_weighed_before_it_is_saved(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    agent = make_agent(team, "viewer", "Scout")
    page = screen_of(team.owner).open(f"/teams/{team.id}/keys")
    page.click(f"#agent-{agent['id']} [data-open=edit-agent]")
    change = page.locator("#agent-change")
    expect(change).to_be_empty()
    page.select_option("#f-edit-agent-role", "member")
    expect(change.locator(".gain")).to_contain_text("+ tasks:create")
    expect(change.locator(".loss")).to_have_count(0)
    page.select_option("#f-edit-agent-role", "viewer")
    expect(change).to_be_empty()
    page.select_option("#f-edit-agent-role", "member")
    expect(change.locator(".gain")).to_be_visible()
    page.click("#edit-agent button.primary")
    page.wait_for_selector("#edit-agent", state="hidden")
    expect(page.locator(f"#agent-{agent['id']}")).to_contain_text("member")
    page.click(f"#agent-{agent['id']} [data-open=edit-agent]")
    expect(change).to_be_empty()
    page.select_option("#f-edit-agent-role", "viewer")
    expect(change.locator(".loss")).to_contain_text("− tasks:create")  # noqa: RUF001  a minus sign


def test_what_is_chosen_in_a_dialog_stays_while_the_team_works(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    agent = make_agent(team, "member", "Scout")
    screen = screen_of(team.owner)
    page = screen.open(f"/teams/{team.id}/keys")
    screen.live()
    page.click("main .actions [data-open=new-key]")
    page.select_option("#f-key-agent", agent["id"])
    page.focus("#f-key-name")
    make_agent(team, "member", "Another")
    expect(page.locator("#f-key-agent option")).to_have_count(3)
    expect(page.locator("#f-key-agent")).to_have_value(agent["id"])


def test_an_agent_is_made_gets_a_key_and_another_role_and_goes(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/keys")
    page.click("main .actions [data-open=new-agent]")
    page.fill("#f-agent-name", "Scout")
    page.click("#new-agent button.primary")
    line = page.locator("#agents tbody tr")
    expect(line).to_contain_text("Scout")
    line.locator("text=New key").click()
    page.fill("#f-key-name", "Scout in production")
    page.check("#new-key [value='tasks:read']")
    page.click("#new-key form button.primary")
    page.click("#new-key [data-after-secret] [data-dismiss]")
    (agent,) = team.owner.get(f"{team.path}/agents").json["items"]
    assert [key["agent_id"] for key in keys(team)] == [agent["id"]]
    line.locator("text=Edit").click()
    expect(page.locator("#f-edit-agent-name")).to_have_value("Scout")
    page.select_option("#f-edit-agent-role", "viewer")
    page.click("#edit-agent button.primary")
    expect(line).to_contain_text("viewer")
    line.locator("text=Delete").click()
    page.fill("#f-delete-agent", "Scout")
    page.click("#delete-agent button.danger")
    expect(page.locator("#agents")).to_contain_text("No agent yet")
    assert keys(team) == []


def test_a_key_is_revoked_by_its_name(team: TeamSetting, screen_of: ScreenOf) -> None:
    robot = make_key(team, team.owner, "teams:read", agent_id=make_agent(team)["id"])
    page = screen_of(team.owner).open(f"/teams/{team.id}/keys")
    page.click(f"#key-{robot.key_id} >> text=Revoke")
    page.fill("#f-revoke-key", "Robo")
    page.click("#revoke-key button.danger")
    assert robot.get(team.path).status_code == 200
    page.fill("#f-revoke-key", "Robot")
    page.click("#revoke-key button.danger")
    expect(page.locator(f"#key-{robot.key_id}")).to_have_count(0)
    assert robot.get(team.path).status_code == 401


def test_a_member_is_not_offered_the_page(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.member).open(f"/teams/{team.id}")
    expect(page.locator("#rail")).not_to_contain_text("Agents & keys")
