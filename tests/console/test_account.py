"""One's own account in a browser."""

import pyotp
import pytest
from flask import Flask
from playwright.sync_api import Route, expect

from api.console.account import device
from tests.accounts import PASSWORD, Account
from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting, invite, make_person


@pytest.fixture
def account(app: Flask) -> Account:
    return Account(app)


def test_the_name_changes(account: Account, screen_of: ScreenOf) -> None:
    page = screen_of(account.person).open("/account")
    page.fill("#f-name", "김민지")
    with page.expect_response(lambda response: "text/html" in response.headers["content-type"]):  # shown anew
        page.click("#profile form button.primary")
    page.evaluate("new Promise(requestAnimationFrame)")
    expect(page.locator("#profile [data-form-done]")).to_be_visible()
    assert account.person.get("/me").json["name"] == "김민지"


def test_the_password_changes_and_ends_other_sessions(account: Account, screen_of: ScreenOf) -> None:
    other = account.another_session()
    page = screen_of(account.person).open("/account")
    expect(page.locator("#sessions li")).to_have_count(2)
    page.click("[data-open=password]")
    page.fill("#f-current_password", PASSWORD)
    page.fill("#f-new-password", "another good password")
    page.click("#password button.primary")
    expect(page.locator("#password")).to_be_hidden()
    expect(page.locator("#sessions li")).to_have_count(1)
    assert other.get("/me").status_code == 401
    assert account.sign_in("another good password").status_code == 200


def test_a_wrong_password_is_told_beside_its_field(account: Account, screen_of: ScreenOf) -> None:
    screen = screen_of(account.person)
    page = screen.open("/account")
    page.click("[data-open=password]")
    page.fill("#f-current_password", "no good password")
    page.fill("#f-new-password", "another good password")
    page.click("#password button.primary")
    expect(page.locator("#e-current_password")).to_have_text("This is not your password.")
    screen.expect_complaint("422")


def test_the_second_factor_is_set_up_and_turned_off(account: Account, screen_of: ScreenOf) -> None:
    page = screen_of(account.person).open("/account")
    page.click("[data-open=enable-factor]")
    page.fill("#f-enable-password", PASSWORD)
    page.click("#enable-factor [data-step=secret] button.primary")
    expect(page.locator("[data-qr] svg path")).to_be_attached()
    secret = page.locator("[data-setup-secret]").get_attribute("data-copy") or ""
    link = page.locator("[data-setup-link]").get_attribute("href") or ""
    assert f"secret={secret}" in link
    page.fill("#f-enable-code", pyotp.TOTP(secret).now())
    page.click("#enable-factor [data-step=codes] button.primary")
    codes = page.locator("#codes li")
    expect(codes).to_have_count(10)
    first, second = codes.nth(0).text_content() or "", codes.nth(1).text_content() or ""
    page.click("#codes [data-dismiss]")
    expect(page.locator("#signing-in")).to_contain_text("Recovery codes left: 10")
    assert account.sign_in().status_code == 401
    assert account.sign_in(code=first).status_code == 200
    page.click("[data-open=disable-factor]")
    page.fill("#f-disable-password", PASSWORD)
    page.fill("#f-disable-code", second)
    page.click("#disable-factor button.danger")
    expect(page.locator("[data-open=enable-factor]")).to_be_visible()
    assert account.sign_in().status_code == 200


def test_new_recovery_codes_replace_the_old(account: Account, screen_of: ScreenOf) -> None:
    old = account.enable_second_factor()
    page = screen_of(account.person).open("/account")
    page.click("[data-open=renew-codes]")
    page.fill("#f-renew-code", old[0])
    page.click("#renew-codes button.primary")
    expect(page.locator("#codes li")).to_have_count(10)
    fresh = page.locator("#codes li").first.text_content() or ""
    assert account.sign_in(code=old[1]).status_code == 401
    assert account.sign_in(code=fresh).status_code == 200


def test_a_session_goes_at_once_and_comes_back_if_that_is_refused(
    account: Account, screen_of: ScreenOf
) -> None:
    account.another_session()
    screen = screen_of(account.person)
    page = screen.open("/account")
    waiting: list[Route] = []
    page.route("**/me/sessions/*", lambda route: waiting.append(route))  # noqa: PLW0108  not Playwright's to wrap
    page.click("#sessions >> text=End")
    expect(page.locator("#sessions li:visible")).to_have_count(1)
    waiting[0].fulfill(status=503, content_type="application/problem+json", body='{"detail": "Not now."}')
    expect(page.locator("#sessions li:visible")).to_have_count(2)
    expect(page.locator(".toast")).to_have_text("Not now.")
    screen.expect_complaint("503")


def test_one_session_ends_and_then_all_others(account: Account, screen_of: ScreenOf) -> None:
    others = [account.another_session() for _ in range(3)]
    page = screen_of(account.person).open("/account")
    page.click("#sessions li:first-child >> text=End")
    expect(page.locator("#sessions li")).to_have_count(3)
    assert [other.get("/me").status_code for other in others] == [200, 200, 401]
    page.click("text=End all others")
    expect(page.locator("#sessions li")).to_have_count(1)
    assert account.person.get("/me").status_code == 200
    assert [other.get("/me").status_code for other in others] == [401, 401, 401]


def test_what_happened_is_told_in_words(account: Account, screen_of: ScreenOf) -> None:
    account.sign_in("a wrong password")
    page = screen_of(account.person).open("/account")
    expect(page.locator("#activity li").first).to_contain_text("Somebody failed to sign in.")
    expect(page.locator("#activity li").last).to_contain_text("You made the account.")


def test_a_team_is_left_by_its_name(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.member).open("/account")
    page.click("#teams >> text=Leave")
    page.fill("#f-leave", "Design")
    page.click("#leave button.danger")
    expect(page.locator("#teams")).to_contain_text("You are in no team")
    assert team.owner.get(f"{team.path}/members/{team.member.id}").status_code == 404


def test_the_owner_is_told_to_hand_over_first(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open("/account")
    expect(page.locator("#teams")).to_contain_text("Hand over the ownership before you leave.")
    expect(page.locator("[data-open=leave]")).to_have_count(0)


def test_an_invitation_is_accepted_and_another_declined(team: TeamSetting, screen_of: ScreenOf) -> None:
    kim = make_person(team.owner.app, "Newcomer")
    invite(team, kim.email)
    page = screen_of(kim).open("/account")
    expect(page.locator("#teams")).to_contain_text("Confirm your address first")
    kim.verify_email()
    page.reload()
    page.click("#teams >> text=Decline")
    expect(page.locator("#teams")).not_to_contain_text("invites you")
    assert kim.get("/me/invitations").json["items"] == []
    invite(team, kim.email)
    page.reload()
    page.click("#teams >> text=Accept")
    page.wait_for_url(f"**/teams/{team.id}")
    assert team.owner.get(f"{team.path}/members/{kim.id}").status_code == 200


@pytest.mark.parametrize(
    ("user_agent", "shown"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
            "Edge · Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1",
            "Safari · iPhone",
        ),
        ("python-httpx/0.28.1", "python-httpx/0.28.1"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 60),
        (None, ""),
    ],
)
def test_a_device_is_named_short(user_agent: str | None, shown: str) -> None:
    assert device(user_agent) == shown
