"""How pages write quantities of usage: counts as numbers, bytes in the unit that fits, months by their name."""

from datetime import date
from decimal import Decimal

from babel.dates import format_skeleton
from babel.units import format_unit
from flask_babel import get_locale, lazy_gettext
from markupsafe import Markup

from api.console.formats import SMALLEST_COMPACT, compact, exact, number
from api.console.page import blueprint
from models.tables.usage import Metric

SIZES = ("byte", "kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte")
GB_HOUR = 10**9 * 3_600
LABELS = {
    Metric.llm_tokens_used: lazy_gettext("Tokens"),
    Metric.api_calls: lazy_gettext("API calls"),
    Metric.tasks_completed: lazy_gettext("Tasks completed"),
    Metric.tasks_created: lazy_gettext("Tasks created"),
    Metric.storage_bytes: lazy_gettext("Storage"),
}
"""In the order in which pages show them."""
PARTS = {
    "input": lazy_gettext("Input"),
    "cached_input": lazy_gettext("Cached input"),
    "output": lazy_gettext("Output"),
    "reasoning": lazy_gettext("Reasoning"),
}


def size(value: int) -> str:
    """Bytes in the decimal unit in which they are at least 1."""
    scaled, unit = Decimal(value), 0
    while abs(scaled) >= 1_000 and unit < len(SIZES) - 1:
        scaled, unit = scaled / 1_000, unit + 1
    if unit == 0:
        return str(format_unit(value, "digital-byte", locale=get_locale()))
    return str(format_unit(round(scaled, 1), f"digital-{SIZES[unit]}", length="short", locale=get_locale()))


def short(value: int, metric: str) -> str:
    """A quantity as text: a large one to one decimal place, bytes in their unit."""
    if metric == Metric.storage_bytes:
        return size(value)
    if -SMALLEST_COMPACT < value < SMALLEST_COMPACT:
        return exact(value)
    return compact(value)


def quantity(value: int, metric: str) -> Markup:
    """A quantity, with the exact one on hover where it is shortened."""
    if metric == Metric.storage_bytes:
        return Markup('<data value="{}" title="{}">{}</data>').format(
            value, format_unit(value, "digital-byte", locale=get_locale()), size(value)
        )
    return number(value)


def gb_hours(byte_seconds: int) -> str:
    return exact(round(Decimal(byte_seconds) / GB_HOUR, 1))


def month_name(value: date) -> str:
    return str(format_skeleton("yMMMM", value, locale=get_locale()))


def day_name(value: date) -> str:
    """A day without its year."""
    return str(format_skeleton("MMMd", value, locale=get_locale()))


def metric_name(metric: str) -> str:
    return str(LABELS[Metric(metric)])


def part_name(part: str) -> str:
    return str(PARTS.get(part, part))


for function in (size, short, quantity, gb_hours, month_name, day_name, metric_name, part_name):
    blueprint.add_app_template_filter(function)
