"""The Runs screen over a recorded training, and over one that is really running."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Static

from sora_spec.plan.amounts import duration
from sora_spec.tui.charts import Chart
from sora_spec.tui.pictures import SampleGrid
from sora_spec.tui.rows import RowList
from sora_spec.tui.runs import RunsScreen
from sora_spec.tui.runs_view import CHARTS
from sora_spec.watch.metrics import MetricsReader, smoothed

RECORDED = Path(__file__).with_name("recorded") / "digits"
NOW = 1_800_000_000.0


@pytest.fixture
def runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, of which `digits` was touched last, three seconds before now."""
    for name, moment in (("digits", NOW - 3), ("older", NOW - 9000)):
        run = shutil.copytree(RECORDED, home / "runs" / name)
        for path in [*run.rglob("*"), run]:
            back = 60 if "vae" in path.parts else 0
            os.utime(path, (moment - back, moment - back))
    monkeypatch.setattr(RunsScreen, "now", lambda _: NOW)
    return home / "runs"


def lines_of(run: Path, stage: str = "denoiser") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]


def text(screen: Any, id: str) -> str:
    return str(screen.query_one(id, Static).render())


async def looked(pilot: Any) -> RunsScreen:
    """On the screen, with the newest look shown."""
    app = pilot.app
    app.action_show("runs")
    await pilot.pause()
    screen = app.screen
    assert isinstance(screen, RunsScreen)
    await shown(pilot)
    return screen


async def shown(pilot: Any) -> None:
    for _ in range(6_000):
        await pilot.pause(0.01)
        if not pilot.app.screen._busy and pilot.app.screen.view.run is not None:
            return
    raise AssertionError("the folders were not read")


def test_figures_are_those_of_the_files(runs: Path, make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await looked(pilot)
        rows = ["".join(c.text for c in (*r.left, *r.right)) for r in screen.query_one(RowList).lines]
        assert rows == ["✔ digitsfinished", "✔ olderfinished"]
        last = lines_of(runs / "digits")[-1]
        progress = text(screen, "#progress")
        assert "step 80 of 80 · 100 %" in progress
        assert f"loss {last['loss']:.3g}" in progress
        assert f"step {duration(last['step_seconds'])}" in progress
        assert f"data wait {duration(last['data_seconds'])}" in progress
        assert f"grad norm {last['grad_norm']:.3g}" in progress
        measured = json.loads((runs / "digits/denoiser/measured.json").read_text())
        table = text(screen, "#compared")
        assert f"{measured['memory']['allocated_bytes'] / 2**20:.3g} MiB" in table
        assert f"{measured['memory']['predicted_allocated_bytes']['likely'] / 2**20:.3g} MiB" in table
        assert duration(measured["time"]["step_seconds"]) in table
        assert duration(measured["time"]["predicted_step_seconds"]["likely"]) in table
        assert "checkpoints 60, 80" in table

    drive(make_app("image.yaml"), scene, (160, 40))


def test_c_goes_through_the_charts_and_each_holds_every_line(runs: Path, make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await looked(pilot)
        lines = lines_of(runs / "digits")
        for charted in CHARTS:
            chart = screen.query_one("#chart", Chart)
            assert str(chart.border_title).startswith(charted.title)
            values = tuple(line[charted.field] for line in lines)
            traces = {trace.name: trace for trace in chart.plot.traces}
            own = traces["step" if charted.second else "" if charted.field == "lr" else "each line"]
            assert own.xs == tuple(float(line["step"]) for line in lines)
            assert own.ys == values
            if charted.second:
                assert traces["data wait"].ys == tuple(line["data_seconds"] for line in lines)
            elif charted.field != "lr":
                assert traces["smoothed"].ys == tuple(smoothed(values, 0.9))
            await pilot.press("c")
        assert screen.chart == 0

    drive(make_app("image.yaml"), scene)


def test_s_shows_the_other_stage_and_arrows_another_run(runs: Path, make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await looked(pilot)
        assert screen.view.stage.name == "denoiser"
        await pilot.press("s")
        await shown(pilot)
        assert screen.view.stage.name == "vae"
        assert f"loss {lines_of(runs / 'digits', 'vae')[-1]['loss']:.3g}" in text(screen, "#progress")
        assert "VAE" in text(screen, "#progress")
        await pilot.press("down")
        for _ in range(6_000):
            await pilot.pause(0.01)
            if screen.view.run.path.name == "older":
                break
        assert screen.view.run.path.name == "older"
        assert screen.view.stage.name == "denoiser"

    drive(make_app("image.yaml"), scene)


def test_brackets_page_through_sample_grids_and_space_plays(runs: Path, make_app, drive, until) -> None:
    async def scene(pilot: Any) -> None:
        screen = await looked(pilot)
        samples = screen.query_one(SampleGrid)
        assert samples.border_title == "samples of step 80, 2 of 2"
        assert (len(samples.frames), len(samples.frames[0])) == (8, 8)
        await pilot.press("left_square_bracket")
        await shown(pilot)
        assert samples.border_title == "samples of step 40, 1 of 2"
        await pilot.press("left_square_bracket")
        await pilot.press("right_square_bracket")
        await shown(pilot)
        assert samples.border_title == "samples of step 80, 2 of 2"
        still = [strip.text + str([s.style for s in strip]) for strip in samples._draw(samples.size)]
        await pilot.press("space")
        assert samples.playing
        await until(pilot, lambda: samples.moment > 0)
        moving = [strip.text + str([s.style for s in strip]) for strip in samples._draw(samples.size)]
        assert moving != still
        await pilot.press("space")
        assert (samples.playing, samples.moment) == (False, 0)
        await pilot.press("z")
        await pilot.pause()
        assert samples.size.width == 120
        await pilot.press("z")
        await pilot.pause()
        assert samples.size.width < 60

    drive(make_app("image.yaml"), scene)


def test_no_runs_says_how_to_make_one(home: Path, make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        pilot.app.action_show("runs")
        for _ in range(6_000):
            await pilot.pause(0.01)
            if "sora-spec train" in text(pilot.app.screen, "#progress"):
                break
        assert "No run in nowhere" in text(pilot.app.screen, "#progress")
        for key in ("c", "s", "left_square_bracket", "space", "z", "z", "down", "enter"):
            await pilot.press(key)

    drive(make_app("image.yaml", run_folders=[Path("nowhere")]), scene)


@pytest.mark.parametrize("size", [(60, 20), (240, 70), (20, 8), (110, 22)])
def test_a_run_that_falls_to_pieces_while_it_is_shown(runs: Path, make_app, drive, size: tuple[int, int]) -> None:
    async def scene(pilot: Any) -> None:
        screen = await looked(pilot)
        stage = runs / "digits" / "denoiser"
        for damage in (
            lambda: (stage / "samples/step-00000080.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf"),
            lambda: (stage / "metrics.jsonl").write_text('{"step": 3, "loss": Infinity}\n{"step": 4}\nhalf'),
            lambda: (runs / "digits/spec.yaml").write_text("version: ["),
            lambda: shutil.rmtree(stage / "samples"),
            lambda: shutil.rmtree(stage),
            lambda: shutil.rmtree(runs),
        ):
            damage()
            await pilot.press("r")
            await pilot.pause(0.1)
        assert screen.is_current

    drive(make_app("image.yaml"), scene, size)


@pytest.mark.slow
def test_a_real_training_is_followed_from_start_to_end(home: Path, make_app, drive) -> None:
    """`sora-spec train` in another process; what the screen shows on the way are prefixes of what it wrote."""
    program = [sys.executable, "-m", "sora_spec"]
    subprocess.run([*program, "data", "digits", "digits", "--clips", "24"], check=True, capture_output=True)
    arguments = "train.data=digits train.steps=600 train.warmup=2 train.log_every=1 train.sample_every=200"
    arguments += " train.checkpoint_every=200 sampler.steps=2 backbone.depth=2 backbone.width=64 train.batch=8"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    train = subprocess.Popen(
        [*program, "train", "tiny-dit", *arguments.split(), "--run", "runs/live"],
        env=environment,
        stderr=subprocess.PIPE,
    )
    seen: list[tuple[str, int]] = []
    curves: list[tuple[float, ...]] = []

    async def scene(pilot: Any) -> None:
        pilot.app.action_show("runs")
        await pilot.pause()
        screen, until = pilot.app.screen, time.monotonic() + 120
        while time.monotonic() < until:
            await pilot.press("r")
            await pilot.pause(0.1)
            stage = screen.view.stage
            if stage is not None:
                seen.append((stage.status, stage.step))
                curves.append(stage.curves["loss"].values)
                if stage.status == "finished":
                    break
        assert "step 600 of 600" in text(screen, "#progress")
        assert screen.query_one(SampleGrid).frames

    try:
        drive(make_app("image.yaml"), scene)
        assert train.wait(30) == 0, train.stderr.read().decode() if train.stderr else ""
    finally:
        train.kill()
    assert [step for _, step in seen] == sorted(step for _, step in seen)
    assert {status for status, _ in seen} >= {"running", "finished"}
    reader = MetricsReader(home / "runs/live/denoiser/metrics.jsonl")
    reader.read()
    losses = tuple(reader.metrics.columns["loss"])
    assert len(losses) == 600
    assert all(losses[: len(curve)] == curve for curve in curves)
    assert len({len(curve) for curve in curves}) > 5
