"""What a chart of a month's days is made of: shapes in per cent of its height, so that the page needs no script and no inline style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

SHADES = 4
"""Of a metric's hue, for those who used the most; the rest have one more."""
FARTHEST = 2
"""How many times the highest value a limit may be and still be drawn; beyond, it would press the bars flat."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar: from the top in per cent, and as high."""

    rank: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    date: date
    value: int
    pieces: Sequence[Piece]
    parts: Mapping[int, int]
    """By rank, what the value consists of."""
    is_ahead: bool
    """Has not begun yet."""


@dataclass(frozen=True, slots=True)
class Line:
    """Across the chart, from the beginning of one bar's place to the end of another's."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Chart:
    bars: Sequence[Bar]
    top: int
    """What 100 per cent stand for."""
    limit: Line | None
    projection: Line | None

    @property
    def width(self) -> int:
        return len(self.bars)


def nice(value: int) -> int:
    """The next of 1, 2, 2.5, 3, 4, 5 and 8 times a power of ten."""
    if value <= 1:
        return 1
    power = 10 ** (len(str(value)) - 1)
    return next(
        int(power * step)
        for step in map(Decimal, ("1", "2", "2.5", "3", "4", "5", "8", "10"))
        if power * step >= value
    )


def by_day(
    days: Sequence[date], parts: Mapping[date, Mapping[int, int]], *, today: date, pace: int, even: int | None
) -> Chart:
    """Each day's bar; `pace` a day is how it goes on from today, and `even` how much a day would use the limit up to the day."""
    totals = [sum(parts.get(day, {}).values()) for day in days]
    ahead = sum(day > today for day in days)
    highest = max([*totals, pace if ahead else 0, 1])
    limit = even if even is not None and even <= FARTHEST * highest else None
    top = nice(max(highest, limit or 0))
    return Chart(
        bars=[_bar(day, parts.get(day, {}), top, today) for day in days],
        top=top,
        limit=None if limit is None else _level(limit, top, 0, len(days)),
        projection=_level(pace, top, len(days) - ahead, len(days)) if ahead else None,
    )


def adding_up(
    days: Sequence[date],
    parts: Mapping[date, Mapping[int, int]],
    *,
    today: date,
    projected: int,
    limit: int | None,
) -> Chart:
    """Each day's bar is the month up to it; towards `projected` at the month's end."""
    sums: dict[date, dict[int, int]] = {}
    so_far: dict[int, int] = {}
    for day in days:
        for rank, value in parts.get(day, {}).items():
            so_far[rank] = so_far.get(rank, 0) + value
        sums[day] = dict(so_far) if day <= today else {}
    return levels(days, sums, today=today, projected=projected, limit=limit)


def levels(
    days: Sequence[date],
    parts: Mapping[date, Mapping[int, int]],
    *,
    today: date,
    projected: int,
    limit: int | None,
) -> Chart:
    """Each day's bar is a level; towards `projected` at the month's end."""
    values = [sum(parts.get(day, {}).values()) for day in days]
    ahead = sum(day > today for day in days)
    highest = max([*values, projected if ahead else 0, 1])
    drawn = limit if limit is not None and limit <= FARTHEST * highest else None
    top = nice(max(highest, drawn or 0))
    now = values[len(days) - ahead - 1] if ahead < len(days) else 0
    begins = len(days) - ahead
    return Chart(
        bars=[_bar(day, parts.get(day, {}), top, today) for day in days],
        top=top,
        limit=None if drawn is None else _level(drawn, top, 0, len(days)),
        projection=Line(begins - 0.5, _y(now, top), len(days), _y(projected, top)) if ahead else None,
    )


@dataclass(frozen=True, slots=True)
class Gauge:
    """What was used, what it comes to and what is included, on one scale of 1,000."""

    used: float
    projected: float
    limit: float


def gauge(used: int, projected: int, included: int) -> Gauge | None:
    """None where nothing is included, and so there is no share."""
    if not included:
        return None
    scale = 1_000 / max(used, projected, included)
    return Gauge(round(used * scale, 1), round(max(projected, used) * scale, 1), round(included * scale, 1))


def _bar(day: date, parts: Mapping[int, int], top: int, today: date) -> Bar:
    """The one that used the most lies at the bottom; the rest, of rank 0, on top."""
    pieces = []
    below = 0
    for rank in sorted(parts, key=lambda rank: rank or SHADES + 1):
        value = max(parts[rank], 0)
        if value:
            below += value
            pieces.append(Piece(rank, _y(below, top), round(100 * value / top, 3)))
    return Bar(day, sum(parts.values()), pieces, parts, day > today)


def _level(value: int, top: int, x1: float, x2: float) -> Line:
    return Line(x1, _y(value, top), x2, _y(value, top))


def _y(value: int, top: int) -> float:
    return round(100 - 100 * value / top, 3)
