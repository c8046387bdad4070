"""Invoices in the browser: paper whose lines open to the usage behind them, downloads, voiding, the plan, billing details."""

import pytest
from flask import Flask

from tests import billing
from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting, execute, make_role, make_team


@pytest.fixture
def team(app: Flask) -> TeamSetting:
    """With an invoice of January 2025, and a draft of February."""
    made = make_team(app)
    billing.on_plans(made, ("pro", "2025-01-01", "2025-03-01"))
    billing.used(made, "llm_tokens_used", 60_000_000, "2025-01-07")
    billing.draft(made)
    execute(
        "UPDATE month_closes SET due_at = now() + interval '1 day' WHERE team_id = :id AND month > '2025-01-01'",
        id=made.id,
    )
    billing.finalize(made)
    return made


def test_an_invoice_reads_as_its_pdf_and_its_lines_open_to_the_usage(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    _, final = team.admin.get(f"{team.path}/invoices").json["items"]
    page = screen_of(team.admin).open(f"{team.path}/invoices")
    row = page.locator(f"#invoice-{final['id']}")
    assert [row.locator("td").nth(number).inner_text() for number in range(4)] == [
        "January 2025", "Final", "Open", "$53.00",
    ]  # fmt: skip
    row.locator("th a").click()
    page.wait_for_selector(".paper")
    paper = page.inner_text(".paper")
    for shown in (
        final["number"],
        "Pro plan: LLM tokens",
        "60,000,000",
        "4.00 USD",
        "53.00 USD",
        "50,000,000 included",
    ):
        assert shown in paper
    with page.expect_download() as download:
        page.click("text=PDF")
    assert download.value.suggested_filename == f"{final['number']}.pdf"
    assert download.value.path().read_bytes().startswith(b"%PDF")
    page.click("text=Pro plan: LLM tokens")
    page.wait_for_selector("#ledger tbody tr")
    assert page.locator("#ledger tbody tr").count() == 1
    assert "60M" in page.inner_text("#ledger tbody")


def test_the_owner_voids_by_typing_the_number_and_nobody_else_is_offered_it(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    draft, final = team.admin.get(f"{team.path}/invoices").json["items"]
    page = screen_of(team.admin).open(f"{team.path}/invoices/{final['id']}")
    page.wait_for_selector(".paper")
    assert page.locator("[data-open=void]").count() == 0
    page = screen_of(team.owner).open(f"{team.path}/invoices/{draft['id']}")
    page.wait_for_selector(".paper .watermark")
    assert page.locator("[data-open=void]").count() == 0
    page.goto(page.url.replace(draft["id"], final["id"]))
    page.click("[data-open=void]")
    page.fill("#void [name=reason]", "Wrong company")
    page.fill("#f-confirm", final["number"])
    page.click("#void button.danger")
    page.wait_for_selector("h1:has-text('Credit note')")
    assert "Wrong company" in page.inner_text(".paper")
    voided = team.owner.get(f"{team.path}/invoices/{final['id']}").json
    assert voided["state"] == "void"
    assert voided["voided_by"] in page.inner_text("h1")


def test_who_invoices_are_made_out_to(team: TeamSetting, screen_of: ScreenOf) -> None:
    screen = screen_of(team.admin)
    page = screen.open(f"{team.path}/invoices")
    page.click("#details >> text=Change")
    page.fill("[name=name]", "주식회사 그린필드")
    page.fill("[name=address]", "왕십리로 83-21\n04769 서울")
    page.fill("[name=email]", "no-address@")
    page.evaluate("document.querySelector('[name=email]').type = 'text'")  # past the browser's own check
    page.click("text=Save")
    page.wait_for_selector("#e-email:not([hidden])")
    assert "422" in screen.complaints.pop()
    page.fill("[name=email]", "billing@example.com")
    page.click("text=Save")
    page.wait_for_selector("#details >> text=주식회사 그린필드")
    details = team.admin.get(f"{team.path}/billing-details").json
    assert (details["address"], details["tax_id"], details["email"]) == (
        "왕십리로 83-21\n04769 서울", None, "billing@example.com",
    )  # fmt: skip


def test_a_plan_is_compared_before_it_is_changed(app: Flask, screen_of: ScreenOf) -> None:
    team = make_team(app)
    make_role(team, "accountant", "teams:read", "billing:read", "realtime:read")
    team.owner.patch(f"{team.path}/members/{team.member.id}", json={"role": "accountant"})
    reader = screen_of(team.member).open(f"{team.path}/plan?to=enterprise")
    reader.wait_for_selector("text=Changing to Enterprise now")
    assert reader.locator("main [data-api]").count() == 0
    page = screen_of(team.admin).open(f"{team.path}/invoices")
    page.click("[aria-label='Compare with Enterprise']")
    page.wait_for_selector("text=Changing to Enterprise now")
    page.click("text=Change to Enterprise")
    page.wait_for_selector("#plan li[aria-current] >> text=Enterprise")
    assert team.owner.get(team.path).json["plan"] == "enterprise"
    page.goto(page.url.replace("/invoices", "/invoices/preview"))
    page.wait_for_selector(".paper >> text=Enterprise plan")
