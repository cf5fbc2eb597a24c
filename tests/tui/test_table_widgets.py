"""Plots and pictures by themselves: sizes, colours, terminals without either; axes whose labels have room."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_spec.tui.charts import SERIES, Chart, Level, Plot, Trace, axes_of, gib, nice_ticks, number, seconds
from sora_spec.tui.pictures import SHADES, SampleGrid, layout, mosaic
from sora_spec.watch.pictures import Picture

SIZES = [(60, 20), (80, 24), (240, 70), (20, 8), (3, 3)]


def flat(width: int, height: int, colour: tuple[int, int, int]) -> Picture:
    return Picture(width, height, (bytes(colour) * width,) * height)


def grid(app: Any, widget: Any, scene: Any, drive: Any, size: tuple[int, int] = (80, 24)) -> None:
    async def mounted(pilot: Any) -> None:
        await app.screen.mount(widget)
        widget.styles.dock = "top"
        widget.styles.height = "100%"
        await pilot.pause()
        await scene(pilot)

    drive(app, mounted, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_picture_fills_any_panel_and_never_more(size: tuple[int, int], ascii_only: bool, make_app, drive) -> None:
    app, samples = make_app("image.yaml", ascii_only=ascii_only), SampleGrid()

    async def scene(pilot: Any) -> None:
        samples.frames = tuple(tuple(flat(32, 24, (30 * x, 30 * y, 99)) for x in range(8)) for y in range(8))
        await pilot.pause()
        strips = samples._draw(samples.size)
        assert len(strips) <= samples.size.height
        assert {strip.cell_length for strip in strips} == {samples.size.width}
        if ascii_only:
            assert all(strip.text.isascii() for strip in strips)

    grid(app, samples, scene, drive, size)


def test_half_blocks_carry_two_pixels_each(make_app, drive) -> None:
    """Upper pixel as ink, lower one as paper: read back, they are the picture."""
    app, samples = make_app("image.yaml"), SampleGrid()
    pixels = np.random.default_rng(0).integers(0, 256, (46, 46, 3), dtype=np.uint8)
    picture = Picture(46, 46, tuple(row.tobytes() for row in pixels))

    async def scene(pilot: Any) -> None:
        samples.frames = ((picture,),)
        await pilot.pause()
        found = []
        for strip in samples._draw(samples.size.with_height(23))[:23]:
            pairs = [(s.style.color.triplet, s.style.bgcolor.triplet) for s in strip for c in s.text if c == "▀"]
            found += [[ink for ink, _ in pairs], [paper for _, paper in pairs]]
        assert np.array_equal(np.array(found, np.uint8), pixels)

    grid(app, samples, scene, drive)


def test_without_colour_brighter_pixels_are_denser_letters(make_app, drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app, samples = make_app("image.yaml"), SampleGrid()

    async def scene(pilot: Any) -> None:
        ramp = Picture(20, 20, (bytes(c for x in range(20) for c in [x * 255 // 19] * 3),) * 20)
        samples.frames = ((ramp,),)
        await pilot.pause()
        line = samples._draw(samples.size)[0].text.rstrip("\n")
        places = [SHADES.index(c) for c in line[:48]]
        assert places == sorted(places)
        assert max(places) == len(SHADES) - 1
        app.theme = "textual-light"
        await pilot.pause()
        line = samples._draw(samples.size)[0].text
        places = [SHADES.index(c) for c in line[:48]]
        assert places == sorted(places, reverse=True)

    grid(app, samples, scene, drive)


@given(
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    frame=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    panel=st.tuples(st.integers(1, 240), st.integers(2, 140)),
)
def test_frames_keep_their_proportions_and_stay_in_the_panel(
    rows: int, columns: int, frame: tuple[int, int], panel: tuple[int, int]
) -> None:
    plan = layout(rows, columns, frame, panel)
    assert 1 <= plan.rows <= rows
    assert 1 <= plan.columns <= columns
    assert plan.columns * (plan.width + 1) - 1 <= panel[0] or plan.width == 1
    assert plan.rows * (plan.height + 1) - 1 <= panel[1] or plan.height == 1
    scale = min(plan.width / frame[0], plan.height / frame[1])
    assert plan.width <= frame[0] * scale + frame[0] / frame[1] + 1
    lines = mosaic([[flat(2, 2, (1, 2, 3))] * plan.columns] * plan.rows, plan, b"\0\0\0")
    assert len(lines) == plan.rows * (plan.height + 1) - 1
    assert {len(line) for line in lines} == {3 * (plan.columns * (plan.width + 1) - 1)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_plot_fills_any_panel(size: tuple[int, int], ascii_only: bool, make_app, drive) -> None:
    app = make_app("image.yaml", ascii_only=ascii_only)
    traces = tuple(
        Trace(name, (1.0, 2.0, 8.0, 64.0), tuple(2.0**30 * y * k for y in (1, 3, 9, 60)), SERIES[k], name)
        for k, name in enumerate("AB", 1)
    )
    chart = Chart(Plot(traces, (Level("a100", 80 * 2.0**30),), gib, log_x=True, knobs=True))

    async def scene(pilot: Any) -> None:
        drawn = chart.render().plain.split("\n")
        if chart.size.width >= 16 and chart.size.height >= 4:
            assert len([line for line in drawn if line]) <= chart.size.height
            assert max(len(line) for line in drawn) <= chart.size.width
            if size[0] >= 60:
                assert "a100" in "".join(drawn)
                assert "64" in drawn[-1] or "64" in drawn[-2]
                assert ("B" in "".join(drawn).replace("GiB", "")) is ascii_only
        else:
            assert "no room" in drawn[0]

    grid(app, chart, scene, drive, size)


@given(
    ys=st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=30),
    form=st.sampled_from([gib, seconds, number]),
    log=st.booleans(),
    zero=st.booleans(),
    size=st.tuples(st.integers(16, 240), st.integers(4, 70)),
)
def test_axes_hold_every_value_and_few_ticks(
    ys: list[float], form: Any, log: bool, zero: bool, size: tuple[int, int]
) -> None:
    xs = tuple(float(2**i) for i in range(len(ys)))
    plot = Plot((Trace("a", xs, tuple(ys)),), (), form, log_x=True, log_y=log, knobs=True, from_zero=zero)
    axes = axes_of(plot, *size)
    low, high = axes.y_ends
    assert all(low - 1e-9 * abs(low) <= axes.y(y) <= high + 1e-9 * abs(high) for y in ys) or log
    assert axes.y_ticks
    assert len(axes.y_ticks) <= max(2, (size[1] - 1) // 3) + 2
    assert list(axes.x_ticks) == sorted(set(axes.x_ticks))
    assert set(axes.x_ticks) <= set(xs)


def test_ticks_are_round_in_their_unit() -> None:
    assert nice_ticks(0, 100 * 2**30, 5, 2**30) == [k * 20 * 2**30 for k in range(6)]
    assert nice_ticks(0.8, 1.1, 3) == pytest.approx([0.8, 0.9, 1.0, 1.1])
    assert seconds(10 * 86_400) == "10 days"
    assert gib(1.5 * 2**30) == "1.5 GiB"
