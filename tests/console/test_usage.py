"""Usage in the browser: charts that open to the ledger, corrections, backfill sets, the recount."""

from datetime import UTC, datetime
from typing import Any

from playwright.sync_api import expect

from tests.console.conftest import ScreenOf
from tests.factories import Person, TeamSetting, make_key


def report(team: TeamSetting, person: Person, quantity: int, **more: Any) -> None:
    event = {"external_id": f"e-{quantity}", "metric": "llm_tokens_used", "quantity": quantity, **more}
    answer = person.post(f"{team.path}/usage", json={"events": [event]})
    assert answer.status_code == 202, answer.text


def ledger(team: TeamSetting) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = team.owner.get(f"{team.path}/usage/ledger?metric=llm_tokens_used").json[
        "items"
    ]
    return rows


def test_a_bar_is_reached_by_keyboard_says_its_value_and_opens_to_its_rows(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    report(team, team.owner, 1_234, model="gpt-5", part="input")
    report(team, team.member, 4_321)
    page = screen_of(team.viewer).open(f"{team.path}/usage")
    tokens = page.locator("section[aria-labelledby=h-llm_tokens_used]")
    assert tokens.locator(".chart-value").inner_text() == "5,555"
    assert tokens.locator(".days a[tabindex='-1']").count() == tokens.locator(".days a").count() - 1
    first = tokens.locator(".days a").first
    first.focus()
    page.keyboard.press("End")
    today = tokens.locator(".days a:focus")
    readout = today.locator(".readout")
    assert readout.is_visible()
    for shown in ("5,555", "Member 4,321", "Owner 1,234"):
        assert shown in readout.inner_text()
        assert shown in (today.get_attribute("aria-label") or "")
    assert tokens.locator(".days a[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_selector("#ledger tbody tr")
    assert page.locator("#ledger tbody tr").count() == 2
    page.select_option("[name=user_id]", label="Member")
    expect(page.locator("#ledger tbody tr")).to_have_count(1)
    assert "4,321" in page.inner_text("#ledger tbody")
    assert f"user_id={team.member.id}" in page.url


def test_apart_by_key_and_as_a_table_the_figures_are_those_of_the_api(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    key = make_key(team, team.owner, "usage:create")
    report(team, key, 700)
    report(team, team.owner, 50)
    page = screen_of(team.viewer).open(f"{team.path}/usage")
    page.click("text=API keys")
    page.wait_for_selector(".legend >> text=Robot")
    page.click("text=Table")
    table = page.locator("section[aria-labelledby=h-llm_tokens_used] table")
    table.wait_for()
    assert page.url.endswith("?by=api_key&show=table")
    assert table.locator("thead th").all_inner_texts() == ["Day", "Sum", "Robot", "No key"]
    assert table.locator("tbody td").all_inner_texts() == ["750", "700", "50"]
    answer = team.owner.get(f"{team.path}/usage/breakdown?group_by=api_key&metric=llm_tokens_used")
    assert sorted(row["quantity"] for row in answer.json["items"]) == [50, 700]


def test_a_row_is_taken_back_and_another_browser_sees_it(team: TeamSetting, screen_of: ScreenOf) -> None:
    report(team, team.owner, 900)
    report(team, team.owner, 90)
    (row,) = [row for row in ledger(team) if row["quantity"] == 900]
    viewer = screen_of(team.viewer)
    theirs = viewer.open(f"{team.path}/usage")
    viewer.live()
    assert theirs.inner_text("section[aria-labelledby=h-llm_tokens_used] .chart-value") == "990"
    page = screen_of(team.admin).open(f"{team.path}/usage/ledger/{row['id']}")
    page.click("[data-open=take-back]")
    page.fill("#take-back [name=reason]", "재시도가 두 번 보고됨")
    page.fill("#f-confirm", "90")
    page.click("#take-back button.danger")
    assert [each["reversed_by"] for each in ledger(team)] == [None, None]  # the wrong number confirms nothing
    page.fill("#f-confirm", "900")
    page.click("#take-back button.danger")
    page.wait_for_selector("text=It takes another row back: 재시도가 두 번 보고됨")
    (taken,) = [each for each in ledger(team) if each["id"] == row["id"]]
    assert taken["reversed_by"] in page.url
    expect(theirs.locator(".metric-llm_tokens_used .chart-value")).to_have_text("90")
    theirs.goto(page.url)
    assert theirs.locator("text=재시도가 두 번 보고됨").is_visible()


def test_a_viewer_is_not_offered_what_changes_usage(team: TeamSetting, screen_of: ScreenOf) -> None:
    report(team, team.owner, 900)
    made = team.owner.post(f"{team.path}/usage/backfills", json={"name": "March", "reason": "lost"}).json
    screen = screen_of(team.viewer)
    page = screen.open(f"{team.path}/usage/ledger/{ledger(team)[0]['id']}")
    page.wait_for_selector(".facts")
    assert page.locator("main :is([data-api], [data-open])").count() == 0
    for path in ("", f"/{made['id']}"):
        screen.open(f"{team.path}/usage/backfills{path}")
        page.wait_for_selector("main >> text=lost")
        assert page.locator("main :is([data-api], [data-open])").count() == 0
    assert page.locator(".rail >> text=Invoices").count() == 0
    screen.open(f"{team.path}/invoices")
    page.wait_for_selector("text=billing:read")
    assert "403" in screen.complaints.pop()


def test_a_backfill_set_is_opened_staged_applied_and_taken_back(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    page = screen_of(team.admin).open(f"{team.path}/usage/backfills")
    page.click("[data-open=new-set]")
    page.fill("#new-set [name=name]", "배치 누락분")
    page.fill("#new-set [name=reason]", "The batch server was down")
    page.click("#new-set button.primary")
    page.wait_for_selector("text=Nothing in it that is new")
    page.fill("[name=events]", "no JSON")
    page.click("text=Stage them")
    page.wait_for_selector("form [data-form-error]:not([hidden])")
    now = datetime.now(UTC).isoformat()
    page.fill(
        "[name=events]",
        f'[{{"external_id": "b1", "metric": "llm_tokens_used", "quantity": 125, "occurred_at": "{now}"}}]',
    )
    page.click("text=Stage them")
    page.wait_for_selector("#set >> text=125")
    assert ledger(team) == []
    page.reload()  # what a set can do is offered anew
    page.click("[data-open=apply]")
    page.fill("#f-apply", "배치 누락분")
    page.click("#apply button.primary")
    page.wait_for_selector("text=What it changed")
    assert [row["quantity"] for row in ledger(team)] == [125]
    page.click("[data-open=revert]")
    page.fill("#f-revert", "배치 누락분")
    page.click("#revert button.danger")
    page.wait_for_selector("#set >> text=Taken back")
    assert sorted(row["quantity"] for row in ledger(team)) == [-125, 125]


def test_the_recount_and_a_reservation_nobody_settled(team: TeamSetting, screen_of: ScreenOf) -> None:
    report(team, team.owner, 900)
    made = team.owner.post(
        f"{team.path}/usage/reservations",
        json={"external_id": "run-7", "metric": "llm_tokens_used", "quantity": 5_000, "expires_in_s": 1},
    )
    page = screen_of(team.member).open(f"{team.path}/usage")
    page.wait_for_timeout(1_100)  # until it expires
    page.reload()
    page.wait_for_selector("text=1 reservation of at most 5,000 tokens")
    page.click("text=Nothing was used")
    page.wait_for_selector("text=None: every reservation of this month")
    state = team.owner.get(f"{team.path}/usage/reservations/{made.json['id']}").json["state"]
    assert state == "released"
    page.click("text=Recount the month")
    page.wait_for_selector("text=It adds up")
