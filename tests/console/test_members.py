"""Members and invitations, as somebody sees and changes them in a browser."""

from playwright.sync_api import expect

from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting, drain, invite, join, make_person


def row(user_id: object) -> str:
    return f"#member-{user_id}"


def test_a_role_changes_in_place_once_its_effect_was_shown(team: TeamSetting, screen_of: ScreenOf) -> None:
    joan = join(team, "member")
    screen = screen_of(team.owner)
    page = screen.open(f"/teams/{team.id}/members")
    page.select_option(f"{row(joan.id)} select", "viewer")
    dialog = page.locator("#from-page")
    expect(dialog).to_contain_text("tasks:create")
    assert team.owner.get(f"{team.path}/members/{joan.id}").json["role"] == "member"
    dialog.locator("button.primary").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(f"{row(joan.id)} select")).to_have_value("viewer")
    assert team.owner.get(f"{team.path}/members/{joan.id}").json["role"] == "viewer"


def test_a_role_that_is_left_as_it_is_shows_as_before(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    select = page.locator(f"{row(team.member.id)} select")
    select.select_option("admin")
    page.click("#from-page [data-in-dialog]")
    expect(select).to_have_value("member")
    assert team.owner.get(f"{team.path}/members/{team.member.id}").json["role"] == "member"


def test_the_effect_in_the_dialog_follows_the_choice(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    page.select_option(f"{row(team.member.id)} select", "viewer")
    effect = page.locator("#from-page #role-effect")
    expect(effect.locator(".loss")).to_contain_text("tasks:create")
    page.select_option("#from-page select", "admin")
    expect(effect.locator(".gain")).to_contain_text("members:create")
    expect(effect.locator(".loss")).to_have_count(0)


def test_a_removal_asks_for_the_name_and_shows_at_once_elsewhere(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    joan = join(team, "viewer", "Joan")
    watching = screen_of(team.admin)
    theirs = watching.open(f"/teams/{team.id}/members")
    watching.live()
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    page.click(f"{row(joan.id)} >> text=Remove")
    page.fill("#f-remove", "Joa")
    page.click("#remove button.danger")
    assert team.owner.get(f"{team.path}/members/{joan.id}").status_code == 200
    page.fill("#f-remove", "Joan")
    page.click("#remove button.danger")
    expect(theirs.locator(row(joan.id))).to_have_count(0)
    assert team.owner.get(f"{team.path}/members/{joan.id}").status_code == 404


def test_a_suspension_and_its_end(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    page.click(f"{row(team.viewer.id)} >> text=Suspend")
    expect(page.locator(row(team.viewer.id))).to_contain_text("suspended")
    assert team.viewer.get(team.path).status_code == 403
    page.click(f"{row(team.viewer.id)} >> text=Reactivate")
    expect(page.locator(row(team.viewer.id))).not_to_contain_text("suspended")
    assert team.viewer.get(team.path).status_code == 200


def test_who_is_online_has_a_dot_and_a_word(team: TeamSetting, screen_of: ScreenOf) -> None:
    here = screen_of(team.member)
    here.open(f"/teams/{team.id}")
    here.live()
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    expect(page.locator(f"{row(team.member.id)} .dot")).to_be_visible()
    expect(page.locator(f"{row(team.member.id)} .badge.ok")).to_have_text("online")
    expect(page.locator(f"{row(team.viewer.id)} .dot")).to_be_hidden()


def test_last_active_is_the_last_act_in_the_log(team: TeamSetting, screen_of: ScreenOf) -> None:
    team.member.post(f"{team.path}/workspaces/{team.workspace_id}/tasks", json={"title": "One"})
    drain()
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    expect(page.locator(f"{row(team.member.id)} time")).to_be_visible()
    expect(page.locator(row(team.viewer.id))).to_contain_text("never")


def test_many_addresses_are_invited_at_once_and_each_says_what_became_of_it(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    invite(team, "waiting@example.com")
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    page.click("[data-open=invite]")
    page.fill(
        "#f-addresses", "Kim Minji <kim@example.com>, lee@example.com;KIM@example.com\nwaiting@example.com"
    )
    expect(page.locator("#invite form button.primary")).to_have_text("Invite 3 people")
    page.select_option("#f-invite-role", "viewer")
    page.click("#invite form button.primary")
    results = page.locator("#invite .results li")
    expect(results).to_have_count(3)
    expect(page.locator("#invite [data-outcome]")).to_have_text("Invited: 2, not invited: 1")
    expect(results.filter(has_text="waiting@")).to_contain_text("waits for this address already")
    items = team.owner.get(f"{team.path}/invitations").json["items"]
    assert {(item["email"], item["role"]) for item in items} == {
        ("waiting@example.com", "viewer"),
        ("KIM@example.com", "viewer"),
        ("lee@example.com", "viewer"),
    }
    link = results.first.locator("[data-copy]").get_attribute("data-copy") or ""
    token = link.partition("/invitations/accept?token=")[2]
    preview = team.owner.post("/invitations/preview", json={"token": token})
    assert preview.json["team_name"] == "Design"


def test_a_mistyped_address_is_named_beside_the_field_and_nobody_is_invited(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    screen = screen_of(team.owner)
    page = screen.open(f"/teams/{team.id}/members")
    page.click("[data-open=invite]")
    page.fill("#f-addresses", "kim@example.com, lee")
    page.click("#invite form button.primary")
    expect(page.locator("#e-addresses")).to_contain_text("lee: Not a valid email address.")
    assert team.owner.get(f"{team.path}/invitations").json["items"] == []
    screen.expect_complaint("422")


def test_more_than_a_hundred_addresses_go_in_several_batches(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    page.click("[data-open=invite]")
    page.fill("#f-addresses", "\n".join(f"p{number}@example.com" for number in range(101)))
    page.click("#invite form button.primary")
    expect(page.locator("#invite .results li")).to_have_count(101, timeout=30_000)
    taken = 46  # of 50 seats, four have members
    expect(page.locator("#invite [data-outcome]")).to_have_text(
        f"Invited: {taken}, not invited: {101 - taken}"
    )


def test_an_invitation_is_sent_again_and_revoked(team: TeamSetting, screen_of: ScreenOf) -> None:
    made = invite(team, "kim@example.com")
    page = screen_of(team.owner).open(f"/teams/{team.id}/members")
    line = page.locator(f"#invitation-{made['id']}")
    line.locator("text=Resend").click()
    expect(page.locator("#link .copy")).to_contain_text("token=")
    token = (page.locator("#link .copy").text_content() or "").partition("token=")[2]
    assert token != made["token"]
    assert team.owner.post("/invitations/preview", json={"token": token}).status_code == 200
    page.click("#link [data-dismiss]")
    line.locator("text=Revoke").click()
    page.fill("#f-revoke", "kim@example.com")
    page.click("#revoke button.danger")
    expect(line).to_have_count(0)
    assert team.owner.get(f"{team.path}/invitations/{made['id']}").json["status"] == "revoked"


def test_an_accepted_invitation_becomes_a_member_before_ones_eyes(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    kim = make_person(team.owner.app, "Newcomer")
    made = invite(team, kim.email)
    screen = screen_of(team.owner)
    page = screen.open(f"/teams/{team.id}/members")
    screen.live()
    kim.post("/invitations/accept", json={"token": made["token"]})
    expect(page.locator(row(kim.id))).to_be_visible()
    expect(page.locator(f"#invitation-{made['id']}")).to_have_count(0)


def test_a_viewer_is_offered_no_change(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.viewer).open(f"/teams/{team.id}/members")
    expect(page.locator(row(team.member.id))).to_be_visible()
    for offered in ("select[data-dialog-from]", "[data-open]", "[data-api]:not([data-goto])", "#invitations"):
        expect(page.locator(f"main {offered}")).to_have_count(0)
    page = screen_of(team.viewer).open(f"/teams/{team.id}/members/{team.member.id}?role=admin")
    expect(page.locator("#facts")).to_contain_text("member")
    expect(page.locator("#role")).to_have_count(0)


def test_nobody_is_offered_to_change_the_owner(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.admin).open(f"/teams/{team.id}/members")
    expect(page.locator(f"{row(team.owner.id)} select, {row(team.owner.id)} button")).to_have_count(0)
    expect(page.locator(f"{row(team.member.id)} select")).to_have_count(1)


def test_a_persons_page_shows_and_saves_another_role(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/members/{team.member.id}")
    page.select_option("#f-role", "viewer")
    expect(page.locator("#role-effect .loss")).to_contain_text("tasks:update")
    page.click("#role button.primary")
    expect(page.locator("#facts")).to_contain_text("viewer")
    assert team.owner.get(f"{team.path}/members/{team.member.id}").json["role"] == "viewer"


def test_members_of_one_role(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/members?role=viewer")
    expect(page.locator(row(team.viewer.id))).to_be_visible()
    expect(page.locator(row(team.member.id))).to_have_count(0)
