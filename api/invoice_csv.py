"""An invoice as CSV (RFC 4180): a row a line, amounts as plain decimals of the currency."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from api.invoice_text import explanation
from models.currencies import decimal_of
from models.queries.invoices import InvoiceView

COLUMNS = (
    "number", "kind", "state", "period_start", "period_end", "buyer", "position", "line", "description", "plan", "metric",
    "quantity", "unit", "starts_on", "ends_on", "price", "amount", "currency",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_of(view: InvoiceView, _seller: Mapping[str, Any], buyer: Mapping[str, Any]) -> bytes:
    """UTF-8, for machines and for spreadsheets: text that would start a formula there has a ' before it."""
    invoice = view.invoice
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for position, line in enumerate(view.lines, start=1):
        writer.writerow(
            (
                invoice.number or "",
                invoice.kind,
                view.state,
                invoice.period_start,
                invoice.period_end,
                _text(buyer["name"]),
                position,
                line.kind,
                _text(line.description),
                line.plan,
                line.metric or "",
                f"{line.quantity:f}",
                line.unit,
                line.starts_on,
                line.ends_on,
                _text(explanation(line, invoice.currency)),
                decimal_of(line.amount, invoice.currency),
                invoice.currency,
            )
        )
    return out.getvalue().encode()


def _text(value: str) -> str:
    return f"'{value}" if value.startswith(FORMULA) else value
