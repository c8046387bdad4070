"""Webhooks in a browser: made, tested, changed, watched and ended."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.console.conftest import ScreenOf, settle
from tests.factories import TeamSetting, execute, make_delivery, make_webhook
from tests.receiver import Receiver, Reply, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_the_secret_is_shown_once(team: TeamSetting, receiver: Receiver, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"{team.path}/webhooks")
    expect(page.get_by_text("No webhook yet")).to_be_visible()
    page.click("text=New webhook")
    page.fill("#new-webhook [name=url]", receiver.url)
    page.fill("#new-webhook [name=description]", "SIEM")
    page.click("#new-webhook summary")
    page.check("#new-webhook [value=task_created]")
    page.check("#new-webhook [value=task_failed]")
    page.click("#new-webhook button.primary")
    secret = page.locator("#new-webhook .secret")
    expect(secret).to_contain_text("whsec_")
    shown = secret.inner_text()
    page.click("text=I have kept it")
    expect(page.locator("#new-webhook")).to_be_hidden()
    expect(page.locator("#webhooks tbody tr")).to_contain_text("2 kinds of events")
    assert shown not in page.content()
    (made,) = team.owner.get(f"{team.path}/webhooks").json["items"]
    assert made["url"] == receiver.url
    assert (made["description"], made["actions"]) == ("SIEM", ["task_created", "task_failed"])
    page.click(f"text={receiver.url}")
    page.click("text=Send a test")
    expect(page.get_by_text("The test arrived.")).to_be_visible()
    (received,) = receiver.received
    assert received.signature_by(shown.strip()) in received.signatures


def test_without_a_choice_it_gets_everything(
    team: TeamSetting, receiver: Receiver, screen_of: ScreenOf
) -> None:
    page = screen_of(team.owner).open(f"{team.path}/webhooks")
    page.click("text=Make one")
    page.fill("#new-webhook [name=url]", receiver.url)
    page.click("#new-webhook button.primary")
    expect(page.locator("#new-webhook .secret")).to_contain_text("whsec_")
    (made,) = team.owner.get(f"{team.path}/webhooks").json["items"]
    assert (made["actions"], made["description"]) == (None, None)


def test_an_address_that_is_refused_says_so_beside_its_field(team: TeamSetting, screen_of: ScreenOf) -> None:
    screen = screen_of(team.owner)
    page = screen.open(f"{team.path}/webhooks")
    page.click("text=New webhook")
    page.fill("#new-webhook [name=url]", "https://10.0.0.1/hook")
    page.click("#new-webhook button.primary")
    expect(page.locator("#new-webhook [data-error=url]")).to_contain_text("private or reserved")
    assert page.evaluate("document.activeElement.name") == "url"
    assert screen.complaints.pop().startswith("Failed to load resource")  # the browser notes each 422 itself


def test_a_test_that_fails_says_why(team: TeamSetting, receiver: Receiver, screen_of: ScreenOf) -> None:
    webhook = make_webhook(team, url=receiver.url)
    receiver.reply(Reply(status=500))
    page = screen_of(team.owner).open(f"{team.path}/webhooks/{webhook['id']}")
    page.click("text=Send a test")
    expect(page.get_by_text("The test did not arrive.")).to_be_visible()
    expect(page.locator("#test-result")).to_contain_text("answered with an error (500)")


def test_it_is_edited_disabled_and_enabled(
    team: TeamSetting, receiver: Receiver, screen_of: ScreenOf
) -> None:
    webhook = make_webhook(team, url=receiver.url, description="Old", actions=["task_created"])
    path = f"{team.path}/webhooks/{webhook['id']}"
    page = screen_of(team.admin).open(path)
    page.get_by_role("button", name="Edit").click()
    page.fill("#edit [name=description]", "")
    page.uncheck("#edit [value=task_created]")
    page.click("#edit button.primary")
    expect(page.locator("#webhook")).to_contain_text("everything")
    changed = team.owner.get(path).json
    assert (changed["description"], changed["actions"]) == (None, None)
    page.locator(".actions summary").click()
    page.get_by_role("button", name="Disable").click()
    expect(page.locator("#webhook .status")).to_have_text("Disabled")
    assert team.owner.get(path).json["enabled"] is False
    page.locator("#webhook").get_by_role("button", name="Enable").click()
    expect(page.locator("#webhook .status")).to_have_text("Working")
    expect(page.locator("#webhook")).to_contain_text("Admin")
    assert team.owner.get(path).json["user_id"] == str(team.admin.id)


def test_rotating_shows_the_new_secret(team: TeamSetting, screen_of: ScreenOf) -> None:
    webhook = make_webhook(team)
    page = screen_of(team.owner).open(f"{team.path}/webhooks/{webhook['id']}")
    page.locator(".actions summary").click()
    page.get_by_role("button", name="Rotate the secret").click()
    page.click("#rotate button.primary")
    expect(page.locator("#rotate .secret")).to_contain_text("whsec_")
    assert page.locator("#rotate .secret").inner_text().strip() != webhook["secret"]
    page.locator("#rotate").get_by_role("link", name="I have kept it").click()
    expect(page.locator("#webhook")).to_contain_text("signs too, until")


def test_deliveries_are_filtered_sent_again_and_replayed(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    webhook = make_webhook(team)
    settle(team)
    make_delivery(webhook, seq=1, state="dead")
    make_delivery(webhook, seq=2, state="delivered")
    execute(
        "UPDATE webhook_deliveries SET last_error = 'timeout' WHERE webhook_id = :id AND seq = 1",
        id=webhook["id"],
    )
    path = f"{team.path}/webhooks/{webhook['id']}"
    page = screen_of(team.owner).open(path)
    expect(page.locator("#deliveries tbody tr")).to_have_count(2)
    page.locator("#deliveries").get_by_role("link", name="Given up").click()
    expect(page.locator("#deliveries tbody tr")).to_have_count(1)
    assert page.url.endswith("?state=dead")
    expect(page.locator("#deliveries tbody tr")).to_contain_text("no answer in 10 s")
    page.locator("#deliveries").get_by_role("button", name="Send again").click()
    expect(page.get_by_text("No delivery is in this state")).to_be_visible()
    (again, _) = sorted(team.owner.get(f"{path}/deliveries").json["items"], key=lambda each: each["seq"])
    assert again["state"] == "pending"
    page.locator(".actions summary").click()
    page.get_by_role("button", name="Send events again").click()
    page.fill("#replay [name=from_seq]", "1")
    page.fill("#replay [name=until_seq]", "2")
    page.click("#replay button.primary")
    expect(page.locator("#webhook")).to_contain_text("event 0 of 2")
    assert team.owner.get(path).json["replay_until"] == 2


def test_a_delivery_leads_to_its_row_of_the_log(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    webhook = make_webhook(team)
    make_delivery(webhook, seq=2)
    page = screen_of(team.owner).open(f"{team.path}/webhooks/{webhook['id']}")
    page.click("#deliveries >> text=#2")
    expect(page.locator("#e-2 .log-open")).to_be_visible()


def test_it_is_deleted_by_its_typed_url(team: TeamSetting, screen_of: ScreenOf) -> None:
    webhook = make_webhook(team)
    page = screen_of(team.owner).open(f"{team.path}/webhooks/{webhook['id']}")
    page.locator(".actions summary").click()
    page.get_by_role("button", name="Delete").click()
    page.fill("#f-confirm", "http://127.0.0.1")
    page.click("#delete-webhook button.danger")
    assert team.owner.get(f"{team.path}/webhooks/{webhook['id']}").status_code == 200
    page.fill("#f-confirm", webhook["url"])
    page.click("#delete-webhook button.danger")
    page.wait_for_url("**/webhooks")
    expect(page.get_by_text("No webhook yet")).to_be_visible()


def test_lag_and_failure_are_told(team: TeamSetting, screen_of: ScreenOf) -> None:
    webhook = make_webhook(team)
    team.task()
    settle(team)
    head = team.owner.get(f"{team.path}/activity?limit=1").json["items"][0]["seq"]
    execute(
        "UPDATE webhooks SET delivered_seq = :seq, failing_since = now(), last_error = 'connection' WHERE id = :id",
        id=webhook["id"],
        seq=head - 1,
    )
    page = screen_of(team.owner).open(f"{team.path}/webhooks")
    expect(page.locator("#webhooks tbody tr")).to_contain_text("Failing since")
    expect(page.locator("#webhooks tbody tr")).to_contain_text("behind")


def test_who_may_not_see_them_is_told_what_is_missing(team: TeamSetting, screen_of: ScreenOf) -> None:
    screen = screen_of(team.member)
    page = screen.open(f"{team.path}/tasks")
    expect(page.locator(".rail-links")).not_to_contain_text("Webhooks")
    page = screen.open(f"{team.path}/webhooks")
    expect(page.get_by_text("webhooks:read")).to_be_visible()
    assert screen.complaints.pop().startswith("Failed to load resource")
