"""
An invoice as PDF, by reportlab: the same bytes whenever it is asked for.

Latin text is set in Helvetica and Bitstream Vera; the rest in the CJK fonts that every PDF reader brings or fetches
(PDF 1.7, 9.7.5.2), so that a name is shown in its own script wherever the service runs.
"""

# reportlab has no types:
# mypy: disable-error-code="no-untyped-call"

import io
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any
from xml.sax.saxutils import escape  # it parses nothing  # nosec B406

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph, Table, TableStyle
from reportlab.platypus.flowables import Flowable, Spacer

from api.invoice_text import explanation, quantity_of
from models.currencies import shown
from models.queries.invoices import InvoiceView
from models.tables.billing import CREDIT_NOTE, DRAFT, VOID

KOREAN, JAPANESE, CHINESE = "HYSMyeongJo-Medium", "HeiseiMin-W3", "STSong-Light"
LATIN = {False: "Helvetica", True: "Helvetica-Bold"}
EXTENDED = {False: "Vera", True: "VeraBd"}
MARGIN, FOOT = 18 * mm, 20 * mm
LAST_OF_UCS2 = 0xFFFF
"""What the CJK fonts' encodings reach."""
WIDTH = A4[0] - 2 * MARGIN
INK, PALE, RULE = colors.HexColor("#1a1f2b"), colors.HexColor("#667085"), colors.HexColor("#d0d5dd")
TITLES = {CREDIT_NOTE: "Credit note"}


def pdf_of(view: InvoiceView, seller: Mapping[str, Any], buyer: Mapping[str, Any]) -> bytes:
    """The document, with DRAFT or VOID across it where it is that."""
    _fonts()
    out = io.BytesIO()
    invoice = view.invoice
    title = TITLES.get(invoice.kind, "Invoice")
    document = BaseDocTemplate(
        out,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=FOOT,
        title=f"{title} {invoice.number or 'draft'}",
        author=seller["name"],
        invariant=1,
    )
    frame = Frame(MARGIN, FOOT, WIDTH, A4[1] - MARGIN - FOOT, 0, 0, 0, 0)
    mark = {DRAFT: "DRAFT", VOID: "VOID"}.get(view.state)
    document.addPageTemplates(PageTemplate(frames=[frame], onPage=lambda canvas, _: _watermark(canvas, mark)))
    foot = " · ".join(part for part in (seller["name"], seller.get("tax_id"), title, invoice.number) if part)
    document.build(
        list(_content(view, title, seller, buyer)),
        canvasmaker=lambda *arguments, **named: PagedCanvas(foot, *arguments, **named),
    )
    return out.getvalue()


class PagedCanvas(Canvas):
    """Writes the foot of each page once it is known how many there are."""

    def __init__(self, foot: str, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._foot = foot
        self._pages: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802  reportlab's name
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(self._pages, start=1):
            self.__dict__.update(page)
            self.setStrokeColor(RULE)
            self.line(MARGIN, 14 * mm, A4[0] - MARGIN, 14 * mm)
            paragraph = Paragraph(rich(self._foot), _style(8, PALE))
            _, height = paragraph.wrap(WIDTH - 30 * mm, 10 * mm)
            paragraph.drawOn(self, MARGIN, 12.5 * mm - height)
            self.setFillColor(PALE)
            self.setFont(LATIN[False], 8)
            self.drawRightString(A4[0] - MARGIN, 10 * mm, f"Page {number} of {len(self._pages)}")
            super().showPage()
        super().save()


def rich(text: str, *, bold: bool = False) -> str:
    """The text as reportlab's markup, each run in a font that has its letters; lines stay lines."""
    text = "".join(_drawable(letter, bold=bold) for letter in text)
    runs = groupby(text, lambda letter: _font_for(letter, text, bold=bold))
    marked = "".join(f'<font name="{font}">{escape("".join(run))}</font>' for font, run in runs)
    return marked.replace("\n", "<br/>")


def _content(
    view: InvoiceView, title: str, seller: Mapping[str, Any], buyer: Mapping[str, Any]
) -> Iterator[Flowable]:
    invoice = view.invoice
    yield Table(
        [[_party(seller), Paragraph(rich(title, bold=True), _style(22, INK, right=True))]],
        colWidths=[WIDTH * 0.6, WIDTH * 0.4],
        style=PLAIN,
    )
    yield Spacer(0, 10 * mm)
    facts = [
        ("Number", invoice.number or "not yet given"),
        ("Date", f"{invoice.finalized_at:%Y-%m-%d}" if invoice.finalized_at else "draft"),
        ("Period", f"{invoice.period_start} to {_last_day(invoice)} (UTC)"),
        ("Credits invoice" if view.credits else "Credited by", view.credits or view.voided_by),
        ("Reason", invoice.reason),
    ]
    rows = [
        [Paragraph(rich(name), _style(9, PALE)), Paragraph(rich(value), _style(9, INK))]
        for name, value in facts
        if value
    ]
    yield Table(
        [
            [
                [Paragraph("Bill to", _style(9, PALE)), *_party(buyer)],
                Table(rows, colWidths=[26 * mm, None], style=PLAIN),
            ]
        ],
        colWidths=[WIDTH * 0.52, WIDTH * 0.48],
        style=PLAIN,
    )
    yield Spacer(0, 9 * mm)
    yield _lines(view)
    yield Spacer(0, 4 * mm)
    yield _totals(view, seller)


def _party(party: Mapping[str, Any]) -> list[Flowable]:
    tax_id = party.get("tax_id")
    rest = [party.get("address"), f"Tax ID {tax_id}" if tax_id else None, party.get("email")]
    return [
        Paragraph(rich(party["name"], bold=True), _style(11, INK)),
        *(Paragraph(rich(text), _style(9, INK)) for text in rest if text),
    ]


def _lines(view: InvoiceView) -> Table:
    currency = view.invoice.currency
    head, right = _style(8, PALE), _style(8, PALE, right=True)
    rows: list[list[Any]] = [
        [
            Paragraph("Description", head),
            Paragraph("Quantity", right),
            Paragraph("Unit", head),
            Paragraph("Amount", right),
        ]
    ]
    for line in view.lines:
        days = f"{line.starts_on} to {_before(line.ends_on)}"
        how = explanation(line, currency)
        small = f"{days}. {how}" if how else days
        rows.append(
            [
                [
                    Paragraph(rich(line.description), _style(9, INK)),
                    Paragraph(rich(small), _style(7.5, PALE)),
                ],
                Paragraph(quantity_of(line.quantity), _style(9, INK, right=True)),
                Paragraph(rich(line.unit), _style(9, INK)),
                Paragraph(shown(line.amount, currency), _style(9, INK, right=True)),
            ]
        )
    widths = [WIDTH - 88 * mm, 33 * mm, 23 * mm, 32 * mm]
    return Table(rows, colWidths=widths, repeatRows=1, style=RULED)


def _totals(view: InvoiceView, seller: Mapping[str, Any]) -> Table:
    invoice = view.invoice
    subtotal = shown(sum(line.amount for line in view.lines), invoice.currency)
    total = shown(invoice.total, invoice.currency)
    note = Paragraph(rich(seller.get("tax_note") or ""), _style(8, PALE))
    sums = Table(
        [
            [Paragraph("Subtotal", _style(9, INK)), Paragraph(subtotal, _style(9, INK, right=True))],
            [
                Paragraph(rich("Total", bold=True), _style(11, INK)),
                Paragraph(rich(total, bold=True), _style(11, INK, right=True)),
            ],
        ],
        colWidths=[26 * mm, 46 * mm],
        style=SUMS,
    )
    return Table([[note, sums]], colWidths=[WIDTH - 72 * mm, 72 * mm], style=PLAIN)


def _watermark(canvas: Canvas, mark: str | None) -> None:
    if mark is None:
        return
    canvas.saveState()
    canvas.setFillColor(colors.HexColor("#98a2b3"), alpha=0.25)
    canvas.setFont(LATIN[True], 110)
    canvas.translate(A4[0] / 2, A4[1] / 2)
    canvas.rotate(52)
    canvas.drawCentredString(0, -35, mark)
    canvas.restoreState()


def _last_day(invoice: Any) -> Any:
    return _before(invoice.period_end)


def _before(day: Any) -> Any:
    return day.fromordinal(day.toordinal() - 1)


def _drawable(letter: str, *, bold: bool) -> str:
    """The letter, or what is left of it without the accent that none of the fonts has; of what they can't show at all, a ?."""
    if letter == "\n" or _is_latin(letter) or _is_extended(letter, bold=bold):
        return letter
    base = unicodedata.normalize("NFKD", letter)[0]
    if base.isascii():
        return base
    return letter if ord(letter) <= LAST_OF_UCS2 and letter.isprintable() else "?"


def _font_for(letter: str, text: str, *, bold: bool) -> str:
    if letter == "\n" or _is_latin(letter):
        return LATIN[bold]
    return EXTENDED[bold] if _is_extended(letter, bold=bold) else _cjk(text)


def _is_extended(letter: str, *, bold: bool) -> bool:
    return bool(pdfmetrics.getFont(EXTENDED[bold]).face.charToGlyph.get(ord(letter)))


def _is_latin(letter: str) -> bool:
    try:
        letter.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def _cjk(text: str) -> str:
    """Han letters are drawn as the language of the text draws them; Greek and Cyrillic are in all of these fonts."""
    if any("\u3040" <= letter <= "\u30ff" for letter in text):
        return JAPANESE
    if any("\uac00" <= letter <= "\ud7a3" or "\u1100" <= letter <= "\u11ff" for letter in text):
        return KOREAN
    has_han = any("\u4e00" <= letter <= "\u9fff" for letter in text)
    return CHINESE if has_han else KOREAN


@cache
def _style(size: float, color: Any, *, right: bool = False) -> ParagraphStyle:
    return ParagraphStyle(
        f"{size}{color}{right}",
        fontName=LATIN[False],
        fontSize=size,
        leading=size * 1.35,
        textColor=color,
        splitLongWords=1,
        **({"alignment": TA_RIGHT} if right else {}),
    )


@cache
def _fonts() -> None:
    for name in (KOREAN, JAPANESE, CHINESE):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    for name in EXTENDED.values():
        pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))


NO_PADDING = [
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("RIGHTPADDING", (0, 0), (-1, -1), 0),
    ("TOPPADDING", (0, 0), (-1, -1), 1),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
]
PLAIN = TableStyle(NO_PADDING)
RULED = TableStyle(
    [
        *NO_PADDING,
        ("RIGHTPADDING", (0, 0), (-2, -1), 6),
        ("TOPPADDING", (0, 0), (-1, -1), 4),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, INK),
        ("LINEBELOW", (0, 1), (-1, -1), 0.4, RULE),
    ]
)
SUMS = TableStyle(
    [*NO_PADDING, ("LINEABOVE", (0, 1), (-1, 1), 0.8, INK), ("TOPPADDING", (0, 0), (-1, -1), 4)]
)
