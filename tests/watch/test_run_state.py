"""What a run does, told from its files: a recorded training, its files made older or younger, cut and completed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from statistics import median

import pytest

from sora_spec.disk.atomic import this_host
from sora_spec.disk.run_lock import locked
from sora_spec.errors import UserError
from sora_spec.plan.interval import Interval
from sora_spec.watch.prediction import Compared
from sora_spec.watch.run import RunState, RunWatch, StageState, find_runs

RECORDED = Path(__file__).parents[1] / "tui" / "recorded" / "digits"
NOW = 1_800_000_000.0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The recorded run, last touched at `NOW`."""
    shutil.copytree(RECORDED, tmp_path / "runs" / "digits")
    return aged(tmp_path / "runs" / "digits", NOW)


def aged(run: Path, moment: float) -> Path:
    for path in [*run.rglob("*"), run]:
        os.utime(path, (moment, moment))
    for path in [*(run / "vae").rglob("*"), run / "vae"]:
        os.utime(path, (moment - 60, moment - 60))
    return run


def denoiser(run: Path, later: float = 3.0) -> StageState:
    found = RunWatch(run).look(NOW + later).current
    assert found is not None
    assert found.name == "denoiser"
    return found


def cut(run: Path, step: int, checkpoints: list[int], measured: str = "running") -> None:
    """The run as it was after `step`."""
    stage = run / "denoiser"
    lines = [line for line in (stage / "metrics.jsonl").read_text().splitlines() if json.loads(line)["step"] <= step]
    (stage / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    for folder in (stage / "checkpoints").iterdir():
        shutil.rmtree(folder)
    for kept in checkpoints:
        folder = stage / "checkpoints" / f"step-{kept:08d}"
        folder.mkdir()
        (folder / "state.json").write_text("{}")
    for sample in (stage / "samples").iterdir():
        if int(sample.stem.removeprefix("step-")) > step:
            sample.unlink()
    values = json.loads((stage / "measured.json").read_text())
    (stage / "measured.json").write_text(json.dumps(values | {"status": measured, "step": max([0, *checkpoints])}))
    aged(run, NOW)


def test_a_finished_run(run: Path) -> None:
    stage = denoiser(run, later=1e6)
    assert (stage.status, stage.step, stage.eta_seconds) == ("finished", 80, 0.0)
    assert stage.checkpoints == (60, 80)
    assert [sample.stem for sample in stage.samples] == ["step-00000040", "step-00000080"]
    last = json.loads((run / "denoiser/metrics.jsonl").read_text().splitlines()[-1])
    assert stage.latest == {name: value for name, value in last.items() if name != "step"}
    assert stage.curves["loss"].steps[-1] == 80
    assert stage.schedule.steps == 80
    assert (stage.schedule.frame_height, stage.schedule.frame_width) == (32, 32)


def test_a_running_one_and_how_long_it_takes(run: Path) -> None:
    cut(run, 52, [40])
    stage = denoiser(run)
    assert (stage.status, stage.step) == ("running", 52)
    assert "3 s ago" in stage.why
    lines = [json.loads(line) for line in (run / "denoiser/metrics.jsonl").read_text().splitlines()]
    rate = median(line["step_seconds"] for line in lines[-25:])
    assert stage.seconds_per_step == pytest.approx(rate)
    assert stage.eta_seconds == pytest.approx((80 - 52) * rate)


def test_silence_stops_it_and_says_what_is_kept(run: Path) -> None:
    cut(run, 52, [40])
    stage = denoiser(run, later=3600)
    assert stage.status == "stopped"
    assert "60 min" in stage.why
    assert "checkpoint of step 40 is kept" in stage.why


def test_a_silence_while_a_sample_grid_is_due_is_work(run: Path) -> None:
    cut(run, 40, [20])
    (run / "denoiser/samples/step-00000040.png").unlink()
    aged(run, NOW)
    stage = denoiser(run, later=600)
    assert stage.status == "running"
    assert stage.why == "working on the sample grid of step 40"
    assert denoiser(run, later=4000).status == "stopped"


def test_a_checkpoint_that_is_being_written_is_a_sign_of_life(run: Path) -> None:
    cut(run, 52, [40])
    part = run / "denoiser/checkpoints/.step-00000060.7.tmp/model.safetensors"
    part.parent.mkdir()
    part.write_bytes(b"half")
    os.utime(part, (NOW + 3590, NOW + 3590))
    assert denoiser(run, later=3600).status == "running"


def test_an_interruption_is_known_at_once(run: Path) -> None:
    cut(run, 60, [60], measured="interrupted")
    stage = denoiser(run)
    assert stage.status == "stopped"
    assert stage.why == "interrupted at step 60; the checkpoint of step 60 is kept"
    for path in (run / "denoiser/metrics.jsonl", run / "denoiser/plan.json"):  # resumed: both are renewed
        os.utime(path, (NOW + 100, NOW + 100))
    assert denoiser(run, later=101).status == "running"


def test_a_stage_that_has_just_begun(run: Path) -> None:
    cut(run, 0, [])
    assert (denoiser(run).status, denoiser(run).why) == ("starting", "no line of metrics yet")
    assert denoiser(run, later=1e5).status == "stopped"


def test_the_stage_that_was_worked_on_last_is_the_current_one(run: Path) -> None:
    state = RunWatch(run).look(NOW)
    assert [stage.name for stage in state.stages] == ["vae", "denoiser"]
    os.utime(run / "vae/metrics.jsonl", (NOW + 5, NOW + 5))
    current = RunWatch(run).look(NOW).current
    assert current is not None
    assert current.name == "vae"
    assert current.schedule.steps == 60


def test_predicted_and_real_are_those_of_the_files(run: Path) -> None:
    stage = denoiser(run)
    measured = json.loads((run / "denoiser/measured.json").read_text())
    found = {one.quantity: one for one in stage.compared}
    memory, clock = measured["memory"], measured["time"]
    assert found["allocated memory"].real == memory["allocated_bytes"]
    assert found["allocated memory"].predicted == Interval(**memory["predicted_allocated_bytes"])
    assert found["step time"].real == clock["step_seconds"]
    assert found["step time"].predicted == Interval(**clock["predicted_step_seconds"])
    assert stage.device == measured["device"]
    planned = json.loads((run / "denoiser/plan.json").read_text())
    assert stage.capacity_bytes == planned["memory"]["capacity_bytes"]
    (run / "denoiser/measured.json").unlink()
    early = {one.quantity: one for one in denoiser(run).compared}
    assert early["allocated memory"].real is None
    assert early["allocated memory"].predicted == Interval(**planned["memory"]["allocated_bytes"])
    lines = [json.loads(line) for line in (run / "denoiser/metrics.jsonl").read_text().splitlines()][-25:]
    assert early["step time"].real == pytest.approx(median(x["step_seconds"] - x["data_seconds"] for x in lines))


@pytest.mark.parametrize(
    ("predicted", "real", "words"),
    [
        (Interval(90, 100, 120), 100.08, "+0.1 %, as predicted"),
        (Interval(90, 100, 120), 110, "+10.0 %, in the range"),
        (Interval(90, 100, 120), 80, "−20.0 %, out of range"),
        (Interval(90, 100, 120), None, "not measured yet"),
        (None, 80, "no prediction"),
    ],
)
def test_the_two_in_words(predicted: Interval | None, real: float | None, words: str) -> None:
    assert Compared("step time", predicted, real).verdict == words


@pytest.mark.parametrize("damage", ["absent", "no spec", "wrong spec", "half files", "folders for files"])
def test_damaged_folders_are_shown_as_far_as_they_go(run: Path, damage: str) -> None:
    stage = run / "denoiser"
    if damage == "absent":
        shutil.rmtree(run)
    elif damage == "no spec":
        (run / "spec.yaml").unlink()
    elif damage == "wrong spec":
        (run / "spec.yaml").write_text("version: [")
    elif damage == "half files":
        for name in ("plan.json", "measured.json", "metrics.jsonl"):
            (stage / name).write_bytes((stage / name).read_bytes()[:50])
    else:
        for name in ("plan.json", "measured.json", "metrics.jsonl"):
            (stage / name).unlink()
            (stage / name).mkdir()
    state = RunWatch(run).look(NOW)
    assert isinstance(state, RunState)
    assert len(state.stages) == (0 if damage == "absent" else 2)
    if damage in ("no spec", "wrong spec"):
        assert state.problem
        assert denoiser(run, later=0).step == 80


def test_runs_are_found_below_and_at_the_paths_newest_first(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(RECORDED, tmp_path / "elsewhere")
    aged(other, NOW - 1000)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "a-file").write_text("")
    bundle = tmp_path / "runs" / "bundle"
    bundle.mkdir()
    (bundle / "spec.yaml").write_text("")
    (bundle / "manifest.json").write_text("{}")
    missing = tmp_path / "nowhere"
    assert find_runs([tmp_path / "runs", other, missing]) == [run, other]
    os.utime(other / "denoiser/metrics.jsonl", (NOW + 9, NOW + 9))
    assert find_runs([tmp_path / "runs", other]) == [other, run]


def test_following_costs_no_import_of_heavy_packages() -> None:
    import subprocess
    import sys

    sample = RECORDED / "denoiser/samples/step-00000040.png"
    code = f"""
import sys
from pathlib import Path
from sora_spec.watch.pictures import read_png
from sora_spec.watch.run import RunWatch

RunWatch(Path({str(RECORDED)!r})).look()
read_png(Path({str(sample)!r}))
print([name for name in ("torch", "numpy", "pydantic", "PIL", "textual") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_user_error_is_what_a_wrong_picture_raises(run: Path) -> None:
    from sora_spec.watch.pictures import read_png

    with pytest.raises(UserError):
        read_png(run / "spec.yaml")


def test_a_killed_run_is_known_at_once(run: Path) -> None:
    """By the lock that its process no longer holds, not by the minutes of silence that a long step may take too."""
    cut(run, 52, [40])
    lock = run / "train.lock"
    held = {"process": 2**22 + 1, "host": this_host(), "since": "2026-01-01 00:00:00"}
    lock.write_text(json.dumps(held))
    stage = denoiser(run)
    assert stage.status == "stopped"
    assert stage.why == f"process {2**22 + 1} was killed at step 52; the checkpoint of step 40 is kept"
    lock.write_text(json.dumps(held | {"host": "another-machine"}))
    assert denoiser(run).status == "running"
    lock.write_text("")
    assert denoiser(run).why.startswith("training ended at step 52")
    lock.unlink()
    with locked(run):
        assert denoiser(run).status == "running"
