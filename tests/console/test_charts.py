"""Shapes of charts: what is drawn, and how high."""

from datetime import date, timedelta

import pytest

from api.console import charts

DAYS = [date(2025, 1, 1) + timedelta(days=number) for number in range(31)]


@pytest.mark.parametrize(
    ("value", "top"),
    [
        (0, 1),
        (1, 1),
        (2, 2),
        (3, 3),
        (20, 20),
        (21, 25),
        (25, 25),
        (26, 30),
        (31, 40),
        (51, 80),
        (81, 100),
        (999, 1000),
    ],
)
def test_a_scale_ends_at_a_round_number(value: int, top: int) -> None:
    assert charts.nice(value) == top


def test_a_bar_is_as_high_as_its_share_of_the_scale() -> None:
    chart = charts.by_day(DAYS, {DAYS[0]: {1: 30, 0: 10, 2: 20}}, today=DAYS[0], pace=100, even=None)
    first, second = chart.bars[:2]
    assert (chart.top, first.value) == (100, 60)
    assert [(piece.rank, piece.y, piece.height) for piece in first.pieces] == [
        (1, 70, 30),
        (2, 50, 20),
        (0, 40, 10),
    ]
    assert not first.is_ahead
    assert second.is_ahead
    assert chart.projection == charts.Line(1, 0, 31, 0)


def test_adding_up_ends_where_the_projection_begins() -> None:
    parts = {DAYS[0]: {1: 10}, DAYS[2]: {1: 30, 2: 10}}
    chart = charts.adding_up(DAYS, parts, today=DAYS[3], projected=200, limit=None)
    assert [bar.value for bar in chart.bars[:5]] == [10, 10, 50, 50, 0]
    assert chart.projection == charts.Line(3.5, 75, 31, 0)


def test_a_limit_that_would_press_the_bars_flat_is_not_drawn() -> None:
    parts = {DAYS[0]: {1: 100}}
    last = charts.levels(DAYS, parts, today=DAYS[-1], projected=0, limit=charts.FARTHEST * 100)
    beyond = charts.levels(DAYS, parts, today=DAYS[-1], projected=0, limit=charts.FARTHEST * 100 + 1)
    assert (last.top, last.limit) == (200, charts.Line(0, 0, 31, 0))
    assert (beyond.top, beyond.limit, beyond.projection) == (100, None, None)


def test_a_gauge_is_of_what_is_more() -> None:
    assert charts.gauge(50, 75, 100) == charts.Gauge(500, 750, 1_000)
    assert charts.gauge(150, 200, 100) == charts.Gauge(750, 1_000, 500)
    assert charts.gauge(5, 5, 0) is None
