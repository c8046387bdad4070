"""Invoices over HTTP: lists, formats, previews, voids, who they are made out to, and what Stripe sends."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from api import invoices as resources
from api import payments as webhooks
from api.invoice_csv import csv_of
from api.invoice_pdf import pdf_of, rich
from models.database import transaction
from models.queries import invoices as queries
from models.settings import settings
from tests import billing
from tests.factories import Answer, TeamSetting, execute, fetch, make_team
from tests.stripe_stand_in import event, signature

SECRET = "whsec_test"


@pytest.fixture
def setting(app: Flask) -> TeamSetting:
    """With an invoice of January 2025, and a draft of February."""
    made = make_team(app)
    billing.on_plans(made, ("pro", "2025-01-01", "2025-03-01"))
    billing.used(made, "llm_tokens_used", 60_000_000, "2025-01-07")
    billing.used(made, "storage_bytes", 75 * 10**9, "2025-01-01")
    billing.draft(made)
    execute(
        "UPDATE month_closes SET due_at = now() + interval '1 day' WHERE team_id = :id AND month > '2025-01-01'",
        id=made.id,
    )
    billing.finalize(made)
    return made


def invoice_ids(setting: TeamSetting) -> list[str]:
    return [row["id"] for row in setting.admin.get(f"{setting.path}/invoices").json["items"]]


def test_the_list_and_one_of_it(setting: TeamSetting) -> None:
    draft, final = setting.admin.get(f"{setting.path}/invoices").json["items"]
    assert (draft["state"], draft["number"], draft["period_start"]) == ("draft", None, "2025-02-01")
    assert (final["state"], final["period_start"], final["period_end"]) == (
        "final",
        "2025-01-01",
        "2025-02-01",
    )
    assert final["total"] == {"amount": 4_900 + 400 + 250, "currency": "USD"}
    assert (final["payment_state"], final["kind"], final["revision"]) == ("open", "invoice", 1)
    one = setting.admin.get(f"{setting.path}/invoices/{final['id']}")
    assert one.headers["ETag"]
    assert one.json == {**one.json, **final}
    assert sum(line["amount"]["amount"] for line in one.json["lines"]) == final["total"]["amount"]
    (tokens,) = [line for line in one.json["lines"] if line["metric"] == "llm_tokens_used"]
    assert {name: value for name, value in tokens.items() if name != "details"} == {
        "kind": "usage",
        "description": "Pro plan: LLM tokens",
        "plan": "pro",
        "metric": "llm_tokens_used",
        "quantity": "60000000",
        "unit": "tokens",
        "starts_on": "2025-01-01",
        "ends_on": "2025-02-01",
        "unrounded": "400",
        "amount": {"amount": 400, "currency": "USD"},
    }
    assert tokens["details"]["price"]["model"] == "graduated"
    assert (one.json["seller"]["name"], one.json["buyer"]["name"]) == ("AgentHQ", "Design")


def test_who_may_see_them(setting: TeamSetting, app: Flask) -> None:
    (_, final) = invoice_ids(setting)
    for person in (setting.member, setting.viewer):
        for path in (
            "/invoices",
            f"/invoices/{final}",
            "/invoices/preview?year=2025&month=1",
            "/billing-details",
        ):
            refused = person.get(setting.path + path)
            assert (refused.status_code, refused.json["missing"]) == (403, "billing:read")
    other = make_team(app, roles=())
    assert other.owner.get(f"{other.path}/invoices/{final}").status_code == 404
    assert other.owner.get(f"{other.path}/invoices").json["items"] == []


@pytest.mark.parametrize(
    ("query", "accept", "mimetype"),
    [
        ("", None, "application/json"),
        ("", "*/*", "application/json"),
        ("", "application/pdf", "application/pdf"),
        ("", "text/csv", "text/csv"),
        ("", "text/html", "application/json"),
        ("?format=csv", "application/pdf", "text/csv"),
        ("?format=pdf", None, "application/pdf"),
        ("?format=json", "text/csv", "application/json"),
    ],
)
def test_formats(setting: TeamSetting, query: str, accept: str | None, mimetype: str) -> None:
    (_, final) = invoice_ids(setting)
    headers = {"Accept": accept} if accept else {}
    answer = setting.admin.get(f"{setting.path}/invoices/{final}{query}", headers=headers)
    assert (answer.status_code, answer.mimetype) == (200, mimetype)
    if mimetype != "application/json":
        number = setting.admin.get(f"{setting.path}/invoices/{final}").json["number"]
        kind = mimetype.split("/")[1]
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{number}.{kind}"'
    assert setting.admin.get(f"{setting.path}/invoices/{final}?format=xml").status_code == 422


def test_the_csv(setting: TeamSetting) -> None:
    details = {"name": "=1+1", "address": "1 Quay"}
    assert setting.admin.put(f"{setting.path}/billing-details", json=details).status_code == 200
    draft, final = invoice_ids(setting)
    text = setting.admin.get(f"{setting.path}/invoices/{final}?format=csv").get_data(as_text=True)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["position"] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    assert {row["buyer"] for row in rows} == {"Design"}  # as it was when the invoice was finalized
    assert {row["metric"]: (row["amount"], row["quantity"]) for row in rows if row["metric"]} == {
        "llm_tokens_used": ("4.00", "60000000"),
        "storage_bytes": ("2.50", "75"),
    }
    (base,) = [row for row in rows if row["line"] == "base"]
    assert (base["amount"], base["currency"], base["price"]) == ("49.00", "USD", "49.00 USD a month")
    text = setting.admin.get(f"{setting.path}/invoices/{draft}?format=csv").get_data(as_text=True)
    assert next(csv.DictReader(io.StringIO(text)))["buyer"] == "'=1+1"


def view(setting: TeamSetting, invoice_id: str) -> queries.InvoiceView:
    with transaction() as session:
        return queries.get(session, setting.admin.enter(session, setting.id), UUID(invoice_id))


BUYER = {"name": "주식회사 한빛", "address": "서울특별시\n東京 Łódź Ж <b>&", "tax_id": None, "email": None}


def test_the_pdf(setting: TeamSetting) -> None:
    draft, final = invoice_ids(setting)
    for invoice_id in (draft, final):
        answer = setting.admin.get(f"{setting.path}/invoices/{invoice_id}?format=pdf")
        assert answer.data.startswith(b"%PDF-")
        assert answer.data == setting.admin.get(f"{setting.path}/invoices/{invoice_id}?format=pdf").data
    shown = view(setting, final)
    many = replace(shown, lines=list(shown.lines) * 20)
    assert pdf_of(shown, billing.SELLER, BUYER).count(b"/Type /Page\n") == 1
    assert pdf_of(many, billing.SELLER, BUYER).count(b"/Type /Page\n") > 2
    assert b"HYSMyeongJo-Medium" in pdf_of(shown, billing.SELLER, BUYER)


def test_each_script_is_set_in_a_font_that_has_it() -> None:
    pdf_of_nothing_yet = rich("주식 & Co", bold=True)
    assert pdf_of_nothing_yet == (
        '<font name="HYSMyeongJo-Medium">주식</font><font name="Helvetica-Bold"> &amp; Co</font>'
    )
    assert rich("ひ東") == '<font name="HeiseiMin-W3">ひ東</font>'
    assert rich("東京") == '<font name="STSong-Light">東京</font>'
    assert rich("ł") == '<font name="Vera">ł</font>'
    assert rich("ź\U0001f30a") == '<font name="Helvetica">z?</font>'
    assert rich("a\nb") == '<font name="Helvetica">a<br/>b</font>'


def test_a_formula_is_no_formula_in_the_csv(setting: TeamSetting) -> None:
    (_, final) = invoice_ids(setting)
    for name in ("=1", "+1", "-1", "@a", "\ta"):
        text = csv_of(view(setting, final), billing.SELLER, {"name": name}).decode()
        assert next(csv.DictReader(io.StringIO(text)))["buyer"] == f"'{name}"


def test_the_preview_is_what_the_invoice_would_be_now(app: Flask) -> None:
    team = make_team(app, roles=("admin",))
    this_month = datetime.now(UTC).replace(day=1)
    billing.on_plans(team, ("pro", f"{this_month:%Y-%m}-01", None))
    path = f"{team.path}/invoices/preview?year={this_month.year}&month={this_month.month}"
    before = team.admin.get(path).json
    assert before["total"] == {"amount": 4_900, "currency": "USD"}
    used = (datetime.now(UTC) - timedelta(seconds=1)).replace(tzinfo=None).isoformat()
    if datetime.fromisoformat(used).month == this_month.month:
        billing.used(team, "llm_tokens_used", 75_000_000, used)
        after = team.admin.get(path).json
        assert after["total"] == {"amount": 4_900 + 1_000, "currency": "USD"}
        assert after["period_start"] == f"{this_month:%Y-%m}-01"
    assert billing.invoices(team) == []


@pytest.mark.parametrize(("year", "month"), [(2024, 12), (2998, 1)])
def test_a_month_that_has_no_invoice_has_no_preview(setting: TeamSetting, year: int, month: int) -> None:
    answer = setting.admin.get(f"{setting.path}/invoices/preview?year={year}&month={month}")
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["month"])
    assert setting.admin.get(f"{setting.path}/invoices/preview?year=2025&month=1").status_code == 200


def test_the_owner_alone_voids(setting: TeamSetting) -> None:
    draft, final = invoice_ids(setting)
    path, body = f"{setting.path}/invoices/{final}/void", {"reason": "wrong buyer"}
    refused = setting.admin.post(path, json=body)
    assert (refused.status_code, refused.json["missing"]) == (403, "owner")
    assert setting.owner.post(f"{setting.path}/invoices/{draft}/void", json=body).status_code == 409
    note = setting.owner.post(path, json=body)
    assert note.status_code == 201
    assert (note.json["kind"], note.json["state"], note.json["reason"]) == (
        "credit_note",
        "final",
        "wrong buyer",
    )
    assert note.json["total"] == {"amount": -5_550, "currency": "USD"}
    voided = setting.owner.get(f"{setting.path}/invoices/{final}").json
    assert (voided["state"], voided["voided_by"], voided["payment_state"]) == (
        "void",
        note.json["number"],
        "void",
    )
    assert note.json["credits"] == voided["number"]
    assert setting.owner.post(path, json=body).status_code == 409
    for invoice_id in (final, note.json["id"]):
        assert setting.owner.get(f"{setting.path}/invoices/{invoice_id}?format=pdf").status_code == 200
        assert setting.owner.get(f"{setting.path}/invoices/{invoice_id}?format=csv").status_code == 200


def test_where_a_provider_charges_nobody_voids_what_they_owe(
    setting: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    charging = replace(settings(), payment_provider="stripe")
    monkeypatch.setattr(resources, "settings", lambda: charging)
    (_, final) = invoice_ids(setting)
    refused = setting.owner.post(f"{setting.path}/invoices/{final}/void", json={"reason": "too much"})
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")


def test_billing_details(setting: TeamSetting) -> None:
    path = f"{setting.path}/billing-details"
    empty = setting.admin.get(path)
    assert empty.json == {"name": None, "address": "", "tax_id": None, "email": None, "updated_at": None}
    body = {"name": "한빛", "address": "1 Quay\nBusan", "tax_id": "X1", "email": "a@example.com"}
    put = setting.admin.put(path, json=body)
    assert (put.status_code, put.json) == (200, {**body, "updated_at": put.json["updated_at"]})
    assert setting.admin.get(path).json == put.json
    assert setting.admin.put(path, json=body).json == put.json  # again: nothing happens
    stale = setting.admin.put(path, json=body, headers={"If-Match": empty.headers["ETag"]})
    assert stale.status_code == 412
    less = setting.admin.put(
        path, json={"name": "한빛", "address": "2 Quay"}, headers={"If-Match": put.headers["ETag"]}
    )
    assert (less.json["tax_id"], less.json["email"]) == (None, None)
    assert [each["fields"] for each in billing.events(setting, "billing_details_updated")] == [
        ["name", "address", "tax_id", "email"],
        ["address", "tax_id", "email"],
    ]
    execute("UPDATE month_closes SET due_at = now() WHERE team_id = :id", id=setting.id)
    billing.finalize(setting)
    latest = setting.admin.get(f"{setting.path}/invoices/{invoice_ids(setting)[0]}").json
    assert latest["buyer"] == {"name": "한빛", "address": "2 Quay", "tax_id": None, "email": None}


@pytest.fixture
def tell(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """POSTs to Stripe's webhook, as Stripe would, where Stripe is set up."""
    charging = replace(settings(), payment_provider="stripe", stripe_webhook_secret=SECRET)
    monkeypatch.setattr(webhooks, "settings", lambda: charging)

    def send(body: str | bytes, signed: str) -> Answer:
        headers = {"Stripe-Signature": signed}
        return app.test_client().post("/api/v1/webhooks/stripe", data=body, headers=headers)

    return send


def notices(notice_id: str) -> list[Any]:
    return fetch("SELECT * FROM payment_notices WHERE id = :id", id=notice_id)


def test_a_signed_event_is_taken_in_once(tell: Callable[..., Answer], setting: TeamSetting) -> None:
    body = event("invoice.paid", {"object": "invoice", "id": "in_1"}, id_=f"evt_{setting.id}")
    for _ in range(2):
        assert tell(body, signature(body, SECRET)).status_code == 204
    ((notice),) = notices(f"evt_{setting.id}")
    assert (notice.type, notice.reference, notice.handled_at, notice.attempts) == (
        "invoice.paid",
        "in_1",
        None,
        0,
    )
    other = event("customer.updated", {"object": "customer", "id": "cus_1"}, id_=f"evt_2{setting.id}")
    assert tell(other, signature(other, SECRET)).status_code == 204
    (notice,) = notices(f"evt_2{setting.id}")
    assert (notice.reference, notice.handled_at is None) == (None, False)


def test_what_is_not_signed_is_refused(tell: Callable[..., Answer], setting: TeamSetting) -> None:
    body = event("invoice.paid", {"object": "invoice", "id": "in_1"}, id_=f"evt_{setting.id}")
    good = signature(body, SECRET)
    assert tell(body, signature(body, SECRET, age_s=290)).status_code == 204
    execute("DELETE FROM payment_notices WHERE id = :id", id=f"evt_{setting.id}")
    for signed in (
        "",
        "x",
        "t=,v1=",
        "t=x,v1=y",
        "v1=é",
        good.replace("v1=", "v0="),
        signature(body, "whsec_other"),
        signature(body, SECRET, age_s=310),
        signature(body + " ", SECRET),
    ):
        answer = tell(body, signed)
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["Stripe-Signature"]), signed
    assert notices(f"evt_{setting.id}") == []


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", "{}", '{"id": 1}', json.dumps({"id": "e", "type": "t", "data": {"object": []}})],
)
def test_what_is_signed_and_no_event_is_refused(tell: Callable[..., Answer], body: str) -> None:
    assert tell(body, signature(body, SECRET)).status_code == 422
    assert tell(b"\xff", signature(body, SECRET)).status_code == 422


def test_without_stripe_there_is_nothing_to_tell(app: Flask) -> None:
    body = event("invoice.paid", {"object": "invoice", "id": "in_1"}, id_="evt_nobody")
    headers = {"Stripe-Signature": signature(body, "")}
    answer = app.test_client().post("/api/v1/webhooks/stripe", data=body, headers=headers)
    assert answer.status_code == 422
    assert notices("evt_nobody") == []
