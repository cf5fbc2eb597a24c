"""Reading metrics.jsonl while it grows: any pieces, any crash, and the trainer's own cut when it resumes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_spec.watch.metrics import Metrics, MetricsReader, smoothed

LINES = st.lists(
    st.dictionaries(st.sampled_from(["loss", "lr", "kl"]), st.floats(-10, 10), max_size=3), min_size=1, max_size=20
)


def written(lines: list[dict[str, float]]) -> bytes:
    return b"".join(json.dumps({"step": i + 1, **line}).encode() + b"\n" for i, line in enumerate(lines))


def columns(metrics: Metrics) -> dict[str, Any]:
    return {"step": list(metrics.steps), **{name: column.tolist() for name, column in metrics.columns.items()}}


@given(lines=LINES, cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_any_pieces_give_what_json_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, float]], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    raw = written(lines)
    reader = MetricsReader(path)
    with path.open("wb") as file:
        before = 0
        for cut in [*sorted(min(cut, len(raw)) for cut in cuts), len(raw)]:
            file.write(raw[before:cut])
            file.flush()
            before = cut
            reader.read()
            whole = raw[:cut].count(b"\n")
            assert list(reader.metrics.steps) == list(range(1, whole + 1))
    for name, column in reader.metrics.columns.items():
        assert [None if math.isnan(v) else v for v in column] == [line.get(name) for line in lines]
    assert reader.metrics.skipped == 0
    assert reader.read() is False


def test_a_resumed_run_is_read_anew(tmp_path: Path) -> None:
    """The trainer drops the lines after its checkpoint and goes on: the reader must show what a fresh one shows."""
    from sora_spec.train.metrics import truncate_metrics

    path = tmp_path / "metrics.jsonl"
    path.write_bytes(written([{"loss": float(i)} for i in range(10)]) + b'{"step": 11, "lo')
    reader = MetricsReader(path)
    assert reader.read()
    assert list(reader.metrics.steps)[-1] == 10
    truncate_metrics(path, 6)
    with path.open("a") as file:
        for step in range(7, 13):
            file.write(json.dumps({"step": step, "loss": 100.0 + step}) + "\n")
    assert reader.read()
    fresh = MetricsReader(path)
    fresh.read()
    assert columns(reader.metrics) == columns(fresh.metrics)
    assert list(reader.metrics.columns["loss"]) == [0, 1, 2, 3, 4, 5, *(100.0 + step for step in range(7, 13))]


def test_a_file_replaced_in_place_by_a_longer_one_is_read_anew(tmp_path: Path) -> None:
    """As a copy over the network does: the same inode, other lines."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(written([{"loss": 1.0}] * 5))
    reader = MetricsReader(path)
    reader.read()
    with path.open("r+b") as file:
        file.write(written([{"loss": 2.0}] * 9))
    assert reader.read()
    assert list(reader.metrics.columns["loss"]) == [2.0] * 9


def test_steps_that_go_back_void_what_followed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "loss": i}) + "\n" for i, s in enumerate([1, 2, 3, 4, 3, 4, 5])))
    reader = MetricsReader(path)
    reader.read()
    assert columns(reader.metrics) == {"step": [1, 2, 3, 4, 5], "loss": [0, 1, 4, 5, 6]}


def test_what_is_no_line_is_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rubbish = (
        b'{"step": 2, "lo{"step": 3, "loss": 1}\n[1]\n\xff\xfe\n{"loss": 3}\n{"step": true}\n' + b"[" * 5000 + b"\n"
    )
    path.write_bytes(b'{"step": 1, "loss": 1}\n\n' + rubbish + b'{"step": 4, "loss": NaN, "note": "x"}\n')
    reader = MetricsReader(path)
    reader.read()
    assert list(reader.metrics.steps) == [1, 4]
    assert reader.metrics.skipped == 6
    assert dict(reader.metrics.latest()) == {}
    assert reader.metrics.curve("loss", 10, 0.9).values == (1.0,)


def test_a_file_that_comes_late_and_goes_again(tmp_path: Path) -> None:
    reader = MetricsReader(tmp_path / "metrics.jsonl")
    assert reader.read() is False
    reader.path.write_bytes(written([{"loss": 1.0}]))
    assert reader.read() is True
    reader.path.unlink()
    assert reader.read() is True
    assert len(reader.metrics) == 0


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), points=st.integers(1, 40))
def test_thinning_keeps_both_ends_and_every_extreme(values: list[float], points: int) -> None:
    metrics = Metrics()
    for step, value in enumerate(values):
        metrics.add(json.dumps({"step": step, "loss": value}).encode())
    curve = metrics.curve("loss", points, 0.9)
    assert len(curve.steps) == len(curve.values) == len(curve.smoothed) <= max(2 * points + 2, 1)
    assert list(curve.steps) == sorted(set(curve.steps))
    assert min(curve.values) == min(values)
    assert max(curve.values) == max(values)
    assert (curve.steps[0], curve.steps[-1]) == (0, len(values) - 1)
    assert all(values[step] == value for step, value in zip(curve.steps, curve.values, strict=True))


def test_smoothing_is_adams_corrected_average() -> None:
    """Against the moments that torch's Adam keeps of the same gradients."""
    torch = pytest.importorskip("torch")
    gradients = [3.0, -1.0, 2.5, 0.0, 7.0]
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weight], lr=0.1, betas=(0.9, 0.999))
    expected: list[float] = []
    for count, gradient in enumerate(gradients, 1):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        adam.step()
        expected.append(float(adam.state[weight]["exp_avg"] / (1 - 0.9**count)))
    assert smoothed(gradients, 0.9) == pytest.approx(expected, rel=1e-12)
