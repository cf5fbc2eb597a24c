"""Killed at any moment and resumed, a run is the run that was never stopped, to the last bit."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sora_spec.disk.history import Change
from sora_spec.disk.run_folder import RunFolder, StageFolder
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.train import checkpoint as checkpoint_module
from sora_spec.train.metrics import TIMING, truncate_metrics
from sora_spec.train.resume import changed_fields
from sora_spec.train.start import train_stage

# One process imports torch, and every run is forked from it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sora_spec.train.stages.denoiser", "sora_spec.train.start", "torch.utils.tensorboard"])
STEPS = 36
NO_PROCESS = 2**22 + 1  # above the largest number that Linux gives
FIELDS = {"train__steps": STEPS, "train__checkpoint_every": 5, "train__sample_every": 20, "train__warmup": 10}


def lines(run: Path) -> list[dict[str, float]]:
    path = run / "denoiser" / "metrics.jsonl"
    if not path.exists():
        return []
    parsed = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in parsed]


def assert_same_end(run: Path, whole: Path, steps: int = STEPS) -> None:
    assert lines(run) == lines(whole)
    for name in ("model", "ema", "optimizer"):
        file = f"denoiser/checkpoints/step-{steps:08d}/{name}.safetensors"
        one, other = load_file(run / file), load_file(whole / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.fixture(scope="module")
def whole(tiny_spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    process = start(tiny_spec(**FIELDS), run)
    process.join()
    assert process.exitcode == 0
    return run


def start(spec: Spec, run: Path):
    """Train in a process of its own, from the newest checkpoint if there is one."""
    process = CONTEXT.Process(target=train_stage, args=(spec, run), kwargs={"resume": run.exists()})
    process.start()
    return process


def stop_at(spec: Spec, run: Path, line: int, delay: float, how: signal.Signals) -> int:
    """Start, wait until `line` lines of metrics are written and `delay` more seconds, and send a signal."""
    process = start(spec, run)
    while len(lines(run)) < line:
        assert process.is_alive(), f"ended with {process.exitcode} before line {line}"
        time.sleep(0.002)
    time.sleep(delay)
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join()
    return process.exitcode or 0


def test_killed_at_random_points_and_resumed(tiny_spec, tmp_path: Path, whole: Path) -> None:
    spec, run = tiny_spec(**FIELDS), tmp_path / "killed"
    rng = random.Random()
    seed = rng.randrange(10**6)
    rng.seed(seed)
    print(f"points drawn from seed {seed}")
    for line in sorted(rng.sample(range(1, STEPS - 6), 3)):
        code = stop_at(spec, run, line, rng.random() * 0.05, signal.SIGKILL)
        assert code in (-signal.SIGKILL, 0)
    last = start(spec, run)
    last.join()
    assert last.exitcode == 0
    assert_same_end(run, whole)
    assert not list((run / "denoiser" / "checkpoints").glob(".*"))


def test_a_polite_signal_writes_a_checkpoint_first(tiny_spec, tmp_path: Path, whole: Path) -> None:
    spec, run = tiny_spec(**FIELDS), tmp_path / "stopped"
    for line, how in ((4, signal.SIGINT), (17, signal.SIGTERM)):
        assert stop_at(spec, run, line, 0.0, how) == 0
        newest = RunFolder.open(run).stage("denoiser").latest()
        assert newest is not None
        assert json.loads((newest / "state.json").read_text())["step"] == len(lines(run))
    last = start(spec, run)
    last.join()
    assert_same_end(run, whole)


def descendants(process: int) -> set[int]:
    """Processes started below `process`, by /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    below = children.get(process, [])
    return set(below).union(*map(descendants, below))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_background_workers_change_no_bit_and_end_with_the_run(tiny_spec, tmp_path: Path, whole: Path) -> None:
    spec, run = tiny_spec(**FIELDS, train__workers=1), tmp_path / "workers"
    process = start(spec, run)
    while len(lines(run)) < 10:
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    helpers = descendants(process.pid)
    assert helpers
    process.kill()
    process.join()
    deadline = time.monotonic() + 30
    while (left := {pid for pid in helpers if Path(f"/proc/{pid}").exists()}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "processes outlive a run that was killed"
    last = start(spec, run)
    last.join()
    assert_same_end(run, whole)


def test_a_crash_while_writing_leaves_nothing_that_counts(
    tiny_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec()
    train_stage(spec, tmp_path / "whole")
    original, calls = checkpoint_module.save_file, 0

    def failing(tensors, path) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:  # in the middle of the second checkpoint
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(tensors, path)

    monkeypatch.setattr(checkpoint_module, "save_file", failing)
    with pytest.raises(UserError, match=r"stopped at step 6; the last checkpoint is .*003: no space is left"):
        train_stage(spec, tmp_path / "run")
    monkeypatch.undo()
    stage = StageFolder(tmp_path / "run" / "denoiser")
    assert [path.name for path in stage.checkpoints()] == ["step-00000003"]
    # What SIGKILL in the middle leaves: a temporary folder, and a line without its end.
    leftover = stage.checkpoints_path / f".step-00000006.{NO_PROCESS}.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    with stage.metrics_path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert train_stage(spec, tmp_path / "run", resume=True).status == "finished"
    assert_same_end(tmp_path / "run", tmp_path / "whole", 6)
    assert not leftover.exists()


def test_means_over_a_window_survive_a_stop_inside_it(tiny_spec, tmp_path: Path) -> None:
    fields = {"train__log_every": 4, "train__steps": 9}
    train_stage(tiny_spec(**fields), tmp_path / "whole")
    train_stage(tiny_spec(**fields | {"train__steps": 6}), tmp_path / "parts")
    train_stage(tiny_spec(**fields), tmp_path / "parts", resume=True)
    assert [line["step"] for line in lines(tmp_path / "whole")] == [1, 4, 8]
    assert_same_end(tmp_path / "parts", tmp_path / "whole", 9)
    train_stage(tiny_spec(train__steps=9), tmp_path / "every")
    each = [line["loss"] for line in lines(tmp_path / "every")]
    assert lines(tmp_path / "whole")[2]["loss"] == pytest.approx(sum(each[4:8]) / 4)


def test_old_checkpoints_go_and_a_finished_run_says_so(tiny_spec, tmp_path: Path) -> None:
    spec = tiny_spec(train__checkpoint_every=1, train__keep=2)
    assert train_stage(spec, tmp_path / "run").status == "finished"
    stage = StageFolder(tmp_path / "run" / "denoiser")
    assert [path.name for path in stage.checkpoints()] == ["step-00000005", "step-00000006"]
    before = stage.metrics_path.read_bytes()
    again = train_stage(spec, tmp_path / "run", resume=True)
    assert (again.status, again.step) == ("already finished", 6)
    assert stage.metrics_path.read_bytes() == before


def test_a_run_is_never_overwritten(tiny_spec, tmp_path: Path) -> None:
    train_stage(tiny_spec(train__steps=1), tmp_path / "run")
    with pytest.raises(UserError, match="already holds a denoiser stage") as error:
        train_stage(tiny_spec(train__steps=1), tmp_path / "run")
    assert "--resume" in str(error.value.hint)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="is not a run folder"):
        train_stage(tiny_spec(), tmp_path / "other", resume=True)


def test_another_spec_or_other_data_cannot_be_resumed(tiny_spec, digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_stage(tiny_spec(train__steps=2), run)
    with pytest.raises(UserError, match=r"backbone\.width: 32 in the run, 64 now") as error:
        train_stage(tiny_spec(backbone__width=64, train__seed=4), run, resume=True, change=True)
    assert "--from" in str(error.value.hint)
    with pytest.raises(UserError, match=r"train\.seed: 0 in the run, 4 now") as error:
        train_stage(tiny_spec(train__seed=4), run, resume=True)
    assert "--change" in str(error.value.hint)
    names = sorted(path for path in digits.rglob("*.mp4"))[:-1]
    listing = tmp_path / "fewer.jsonl"
    listing.write_text("\n".join(json.dumps({"path": str(path), "label": path.parent.name}) for path in names))
    with pytest.raises(UserError, match="are not those that"):
        train_stage(tiny_spec(train__data=str(listing)), run, resume=True)
    moved = tmp_path / "same.jsonl"
    paths = sorted(digits.rglob("*.mp4"))
    moved.write_text("\n".join(json.dumps({"path": str(path), "label": path.parent.name}) for path in paths))
    assert train_stage(tiny_spec(train__data=str(moved), train__steps=3), run, resume=True).step == 3
    assert RunFolder.open(run).load_spec().train.steps == 3


def test_which_changes_matter(tiny_spec) -> None:
    old = tiny_spec()
    free = tiny_spec(train__steps=9, train__keep=7, train__workers=2, train__log_every=3, sampler__steps=9, name="b")
    assert changed_fields(old, free, "denoiser") == []
    other = tiny_spec(train__ema=0.5, condition__dropout=0.2)
    dropout = Change("condition.dropout", 0.1, 0.2)
    assert changed_fields(old, other, "denoiser") == [dropout, Change("train.ema", 0.9, 0.5)]
    assert changed_fields(old, other, "vae") == [dropout]
    cosine = tiny_spec(train__schedule="cosine"), tiny_spec(train__schedule="cosine", train__steps=9)
    assert changed_fields(*cosine, "denoiser") == [Change("train.steps", 6, 9)]


def test_truncating_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    truncate_metrics(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    truncate_metrics(tmp_path / "none.jsonl", 2)
    assert not (tmp_path / "none.jsonl").exists()
