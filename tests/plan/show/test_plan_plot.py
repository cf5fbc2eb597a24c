"""The picture of a sweep, read back: every mark stands where the axis says its value is."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from sora_spec.errors import UserError
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document
from sora_spec.plan.job import Question
from sora_spec.plan.search.sweep import Row, parse_axes, sweep
from sora_spec.plan.show.plot import plot_sweep

SVG = "{http://www.w3.org/2000/svg}"
GIB = 2**30


def rows_of(name: str, gpus: list[str], over: list[str], counts: list[int | None] | None = None) -> list[Row]:
    document = load_document(find_spec_file(name))
    return sweep(document, Question(), gpus, counts or [None], parse_axes(over))


def axis(root: ElementTree.Element, unit: str) -> Callable[[float], float]:
    """From pixels to values, by two numbers at the axis: linear, or logarithmic where the middle one says so."""
    marks = []
    for text in root.iter(f"{SVG}text"):
        match = re.fullmatch(r"([\d,.]+) ?GiB" if unit == "GiB" else r"\$([\d,.]+)", text.text or "")
        if match and text.get("text-anchor") == "end":
            marks.append((float(text.get("y", "")) - 4, float(match[1].replace(",", ""))))
    assert len(marks) >= 3
    (y1, v1), (y2, v2), (y3, v3) = marks[0], marks[1], marks[-1]
    if v1 > 0 and abs((y2 - y1) / (y3 - y1) - math.log(v2 / v1) / math.log(v3 / v1)) < 0.02:
        return lambda y: v1 * (v3 / v1) ** ((y - y1) / (y3 - y1))
    assert (y2 - y1) / (y3 - y1) == pytest.approx((v2 - v1) / (v3 - v1), abs=0.02)
    return lambda y: v1 + (v3 - v1) * (y - y1) / (y3 - y1)


def marks(root: ElementTree.Element) -> list[tuple[float, bool, str]]:
    """Height, filled or not, and words of every dot and bar."""
    found = []
    for shape in [*root.iter(f"{SVG}circle"), *root.iter(f"{SVG}rect")]:
        title = shape.find(f"{SVG}title")
        if title is not None and title.text and ": " in title.text:
            height = shape.get("cy") or shape.get("y") or ""
            found.append((float(height), shape.get("fill") != "#ffffff", title.text))
    return found


@pytest.mark.parametrize(
    ("name", "gpus", "over"),
    [
        ("tiny-latte", ["rtx4090", "h100"], ["train.batch=8,16,32,64,4096"]),
        ("dit", ["rtx4090", "a100-80gb", "cpu"], []),
        ("dit", ["rtx4090", "h100"], ["train.batch=64,256", "train.precision=fp32,bf16"]),
        ("dit", ["h100"], ["train.batch=64,128,256", "train.accumulation=1,2,4", "train.precision=fp32,bf16"]),
    ],
)
def test_marks_stand_at_their_values(name: str, gpus: list[str], over: list[str]) -> None:
    rows = rows_of(name, gpus, over)
    root = ElementTree.fromstring(plot_sweep(rows, name))
    value = axis(root, "GiB")
    shown = {title: (y, filled) for y, filled, title in marks(root) if "GiB" in title}
    assert len(shown) == len(rows)
    for row in rows:
        assert row.plan is not None
        settings = "".join(f", {setting}" for setting in row.settings)
        title = next(t for t in shown if t.startswith(f"{row.plan.job.count} × {row.device}{settings}: "))
        y, filled = shown[title]
        assert value(y) == pytest.approx(row.plan.needed.likely / GIB, rel=0.03, abs=0.02)
        assert filled is row.plan.fits
        assert title.endswith(f"fits: {row.plan.verdict}")


def test_every_device_has_its_capacity_as_a_dashed_line() -> None:
    root = ElementTree.fromstring(plot_sweep(rows_of("dit", ["rtx4090", "a100-80gb"], ["train.batch=64,256"]), "dit"))
    value = axis(root, "GiB")
    dashed = {line.get("y1") for line in root.iter(f"{SVG}line") if line.get("stroke-dasharray") == "6 4"}
    assert sorted(value(float(y or "")) for y in dashed) == pytest.approx([23.6, 79.1], rel=0.03)
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"23.6 rtx4090", "79.1 a100-80gb"} <= words


def test_no_words_lie_outside_the_picture_and_names_are_escaped() -> None:
    over = ["train.batch=8,16", "train.recompute={kind: none},{kind: blocks, every: 2}", "clip.frames=4,8", "name=a,b"]
    rows = rows_of("tiny-latte", ["rtx4090"], over)
    text = plot_sweep(rows, "/somewhere/<&>.yaml")
    root = ElementTree.fromstring(text)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for element in root.iter(f"{SVG}text"):
        assert 0 <= float(element.get("x", "")) <= width
        assert 0 <= float(element.get("y", "")) <= height
    assert "somewhere" not in text
    assert any((element.text or "").startswith("<&>.yaml") for element in root.iter(f"{SVG}text"))


def test_rows_without_a_plan_are_told_and_nothing_at_all_is_an_error() -> None:
    rows = rows_of("tiny-latte", ["rtx4090"], ["backbone.heads=4,5"])
    assert "1 row has no plan" in plot_sweep(rows, "x")
    with pytest.raises(UserError, match="nothing to draw"):
        plot_sweep([row for row in rows if row.plan is None], "x")


def test_a_sweep_of_hundreds_of_settings_stays_one_file(tmp_path: Path) -> None:
    batches = ",".join(str(8 * n) for n in range(1, 101))
    text = plot_sweep(rows_of("tiny-latte", ["rtx4090", "h100", "cpu"], [f"train.batch={batches}"]), "x")
    assert len(marks(ElementTree.fromstring(text))) >= 600
    assert len(text) < 500_000
