"""A run folder is never changed by a refusal, and never damaged without a word."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sora_spec.builders.weights.run import load_denoiser
from sora_spec.disk.atomic import replacing_folder, sweep, this_host, write_atomically
from sora_spec.disk.run_folder import RunFolder
from sora_spec.disk.run_lock import NAME, killed_holder, locked
from sora_spec.errors import UserError
from sora_spec.train.data.loader import load_batches
from sora_spec.train.data.order import BatchOrder
from sora_spec.train.ranks import Ranks
from sora_spec.train.stages.denoiser import DenoiserTask
from sora_spec.train.start import train_stage
from sora_spec.video import write_png

CHECKPOINTS = Path("denoiser/checkpoints")


@pytest.fixture(scope="module")
def trained(tiny_spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps with the checkpoints 3 and 6. Tests that change it copy it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    train_stage(tiny_spec(), run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which a refusal may touch."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def other_data(digits: Path, folder: Path, change: Callable[[list[tuple[Path, str]]], list[tuple[Path, str]]]) -> str:
    rows = change([(path, path.parent.name) for path in sorted(digits.rglob("*.mp4"))])
    listing = folder / "list.jsonl"
    listing.write_text("".join(json.dumps({"path": str(path), "label": label}) + "\n" for path, label in rows))
    return str(listing)


def test_a_refusal_changes_no_byte(tiny_spec, digits: Path, run: Path, tmp_path: Path) -> None:
    fewer = other_data(digits, tmp_path, lambda rows: rows[:-1])
    before = bytes_below(run)
    refused = (
        ({"train__data": fewer, "train__steps": 9}, "are not those that"),
        ({"train__optimizer": {"kind": "adamw", "lr": 1e-3}}, r"train\.optimizer\.lr: 0\.002 in the run, 0\.001 now"),
        ({"train__batch": 16, "train__steps": 9}, r"train\.batch: 8 in the run, 16 now"),
        ({"backbone__depth": 3}, "another spec, and no run can go on"),
        ({"condition__classes": 11}, r"condition\.classes: 10 in the run, 11 now"),
    )
    for fields, told in refused:
        with pytest.raises(UserError, match=told):
            train_stage(tiny_spec(**fields), run, resume=True)
        assert bytes_below(run) == before, told
    named = other_data(digits, tmp_path, lambda rows: [(path, "new" + label) for path, label in reversed(rows)])
    with pytest.raises(UserError, match="label 0 is '0' in the run, 'new0' now"):
        train_stage(tiny_spec(train__data=named, train__steps=9), run, resume=True, change=True)
    assert bytes_below(run) == before
    assert train_stage(tiny_spec(train__steps=7), run, resume=True).step == 7


def test_other_pictures_under_the_old_names_are_seen(tiny_spec, tmp_path: Path) -> None:
    from sora_spec.train.data.digits import DigitsRecipe, write_digits

    data, run = tmp_path / "data", tmp_path / "run"
    write_digits(data, DigitsRecipe(clips=20, frames=8, size=16))
    spec = tiny_spec(train__data=str(data))
    train_stage(tiny_spec(train__data=str(data), train__steps=3), run)
    shutil.move(data, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", data)
    assert train_stage(tiny_spec(train__data=str(data), train__steps=4), run, resume=True).step == 4
    shutil.rmtree(data)
    write_digits(data, DigitsRecipe(clips=20, frames=8, size=16, seed=1))
    before = bytes_below(run)
    with pytest.raises(UserError, match=r"old names, but not as many bytes"):
        train_stage(spec, run, resume=True)
    assert bytes_below(run) == before
    assert train_stage(spec, run, resume=True, change=True).step == 6


def test_changes_that_are_asked_for_stand_in_the_history(tiny_spec, digits: Path, run: Path, tmp_path: Path) -> None:
    reversed_ = other_data(digits, tmp_path, lambda rows: list(reversed(rows)))
    fields = {"train__batch": 4, "train__steps": 8, "train__ema": 0.0, "train__data": reversed_}
    assert train_stage(tiny_spec(**fields), run, resume=True, change=True).step == 8
    first, last = (json.loads(line) for line in (run / "history.jsonl").read_text().splitlines())
    assert (first["event"], first["step"], first["stage"], first["ranks"]) == ("started", 0, "denoiser", 1)
    assert (last["event"], last["step"]) == ("changed", 6)
    assert last["versions"]["torch"] == torch.__version__
    assert {"train.batch": [8, 4], "train.ema": [0.9, 0.0]}.items() <= last["changed"].items()
    assert set(last["changed"]) == {"train.batch", "train.ema", "data"}
    lines = [json.loads(line) for line in (run / "denoiser/metrics.jsonl").read_text().splitlines()]
    assert [line["clips"] for line in lines] == [8, 16, 24, 32, 40, 48, 52, 56]
    newest = run / CHECKPOINTS / "step-00000008"
    assert not (newest / "ema.safetensors").exists()
    state = load_denoiser(RunFolder.open(run)).state_dict()
    assert torch.equal(state["patch_in.proj.weight"], load_file(newest / "model.safetensors")["patch_in.proj.weight"])
    # An average that comes back begins with the weights, and a change that no checkpoint holds yet stays allowed.
    again = tiny_spec(**fields | {"train__ema": 0.5, "train__steps": 9})
    with pytest.raises(UserError, match=r"train\.ema: 0\.0 in the run, 0\.5 now"):
        train_stage(again, run, resume=True)
    train_stage(again, run, resume=True, change=True)
    shutil.rmtree(run / CHECKPOINTS / "step-00000009")
    assert train_stage(again, run, resume=True).step == 9


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 4
    path.write_bytes(raw)


def zero(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def from_before(path: Path) -> None:
    shutil.copy(path.parents[1] / "step-00000003" / path.name, path)


DAMAGES = [
    ("optimizer.safetensors", flip, "optimizer.safetensors is not as it was written"),
    ("model.safetensors", zero, "model.safetensors is not as it was written"),
    ("ema.safetensors", from_before, "ema.safetensors is not as it was written"),
    ("model.safetensors", Path.unlink, "model.safetensors is missing"),
    ("state.json", cut, "state.json is damaged"),
    ("state.json", from_before, "state.json is of step 3"),
    ("checksums.sha256", Path.unlink, "checksums.sha256 is missing"),
    ("checksums.sha256", cut, "checksums.sha256 is damaged"),
]


@pytest.mark.parametrize(("name", "damage", "told"), DAMAGES, ids=[f"{d.__name__}-{n}" for n, d, _ in DAMAGES])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny_spec, trained: Path, run: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable, told: str
) -> None:
    damage(run / CHECKPOINTS / "step-00000006" / name)
    train_stage(tiny_spec(), run, resume=True)
    warned = capsys.readouterr().err
    assert f"step-00000006 is damaged ({told}" in warned
    assert "step-00000003 is taken in its place" in warned
    for file in ("model", "ema", "optimizer"):
        place = CHECKPOINTS / "step-00000006" / f"{file}.safetensors"
        assert (run / place).read_bytes() == (trained / place).read_bytes()
    assert (run / CHECKPOINTS / "damaged-step-00000006").is_dir()
    line = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 3
    assert told in line["damaged"]["step-00000006"]
    assert len((run / "denoiser/metrics.jsonl").read_text().splitlines()) == 6


def test_what_is_read_to_generate_is_compared_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened, newest = RunFolder.open(run), run / CHECKPOINTS / "step-00000006"
    flip(newest / "optimizer.safetensors")  # not read
    whole = load_denoiser(opened).state_dict()
    before = load_file(run / CHECKPOINTS / "step-00000003/ema.safetensors")
    flip(newest / "ema.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in load_denoiser(opened).state_dict().items())
    assert "step-00000003 is taken in its place" in capsys.readouterr().err
    (newest / "ema.safetensors").unlink()
    with pytest.raises(UserError, match=r"step-00000006/ema\.safetensors is missing"):
        load_denoiser(opened)
    raw = load_denoiser(opened, ema=False).state_dict()
    assert all(torch.equal(value, raw[name]) for name, value in load_file(newest / "model.safetensors").items())
    assert any(not torch.equal(value, raw[name]) for name, value in whole.items())
    for checkpoint in (run / CHECKPOINTS).iterdir():
        flip(checkpoint / "model.safetensors")
    with pytest.raises(UserError, match=r"no checkpoint of .* can be used(.|\n)*step-00000006(.|\n)*step-00000003"):
        load_denoiser(opened, ema=False)


def test_a_spec_that_was_edited_after_training_is_seen(run: Path) -> None:
    path = run / "spec.yaml"
    path.write_text(path.read_text().replace("prediction: velocity", "prediction: noise"))
    with pytest.raises(UserError, match="prediction: 'velocity' in the checkpoint, 'noise' in spec"):
        load_denoiser(RunFolder.open(run))


def test_checksums_are_those_of_sha256sum(run: Path) -> None:
    for checkpoint in (run / CHECKPOINTS).iterdir():
        lines = dict(reversed(line.split("  ")) for line in (checkpoint / "checksums.sha256").read_text().splitlines())
        files = [path for path in checkpoint.iterdir() if path.name != "checksums.sha256"]
        assert lines == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        assert len(files) == 4


def test_checkpoints_of_earlier_versions_can_be_read(tiny_spec, run: Path, capsys) -> None:
    for checkpoint in (run / CHECKPOINTS).iterdir():
        (checkpoint / "checksums.sha256").unlink()
        old = json.loads((checkpoint / "state.json").read_text())
        kept = {name: old[name] for name in ("step", "stage", "data", "window", "window_steps")}
        (checkpoint / "state.json").write_text(json.dumps(kept))
    (run / "history.jsonl").unlink()
    load_denoiser(RunFolder.open(run))
    assert "has no checksums" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"train\.seed: 0 in the run, 1 now"):
        train_stage(tiny_spec(train__seed=1), run, resume=True)
    cut(run / CHECKPOINTS / "step-00000006/model.safetensors")
    assert train_stage(tiny_spec(train__steps=7), run, resume=True).step == 7
    assert "step-00000003 is taken in its place" in capsys.readouterr().err


DAMAGED_FILES = [
    ("run.json", "{", "it is not JSON"),
    ("run.json", "[]", "it holds no object"),
    ("classes.json", "", "it is empty"),
    ("classes.json", '{"0": "a"}', "it holds no list of names"),
]


@pytest.mark.parametrize(("name", "content", "told"), DAMAGED_FILES)
def test_a_damaged_file_of_the_run_is_named(tiny_spec, run: Path, name: str, content: str, told: str) -> None:
    (run / name).write_text(content)
    before = bytes_below(run)
    with pytest.raises(UserError, match=f"{name} is damaged: {told}") as caught:
        train_stage(tiny_spec(train__steps=7), run, resume=True)
    assert "delete it" in str(caught.value.hint)
    assert bytes_below(run) == before
    (run / name).unlink()
    train_stage(tiny_spec(train__steps=7), run, resume=True)
    assert json.loads((run / name).read_text())


def test_damaged_lines_of_metrics_are_counted_and_kept(tiny_spec, run: Path, capsys) -> None:
    path = run / "denoiser/metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + bytes(100) + b"\n" + b"".join(lines[3:]))
    damaged = path.read_bytes()
    train_stage(tiny_spec(train__steps=7), run, resume=True)
    assert "1 lines are left out" in capsys.readouterr().err
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 4, 5, 6, 7]
    assert (path.parent / "damaged-metrics.jsonl").read_bytes() == damaged


def test_one_training_at_a_time(tiny_spec, run: Path) -> None:
    holder = [sys.executable, "-c", "import sys, pathlib, sora_spec.disk.run_lock as lock\nwith lock.locked("]
    holder[-1] += "pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    other = subprocess.Popen([*holder, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    before = bytes_below(run)
    with pytest.raises(UserError, match=f"is being trained by process {other.pid} on ") as caught:
        train_stage(tiny_spec(train__steps=7), run, resume=True)
    assert "--run" in str(caught.value.hint)
    assert bytes_below(run) == before
    assert killed_holder(run) is None
    other.kill()
    other.wait()
    gone = killed_holder(run)
    assert gone is not None
    assert gone.process == other.pid
    assert train_stage(tiny_spec(train__steps=7), run, resume=True).step == 7
    assert (run / NAME).read_bytes() == b""


def test_two_that_make_the_same_folder(tiny_spec, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(UserError, match=f"process {os.getpid()} on "):
        train_stage(tiny_spec(train__steps=1), tmp_path / "run")
    assert train_stage(tiny_spec(train__steps=1), tmp_path / "run").step == 1


def test_a_folder_that_goes_away_while_training(tiny_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sora_spec.train.trainer import Trainer

    original = Trainer.step

    def step(self: Trainer, number: int, *rest: object) -> object:
        if number == 4:
            shutil.rmtree(tmp_path / "run")
        return original(self, number, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(UserError, match="was deleted or moved while training; training stopped at step 5"):
        train_stage(tiny_spec(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_goes_away_is_named_by_a_background_process_too(tiny_spec, digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "data")
    spec = tiny_spec(train__data=str(tmp_path / "data"), train__workers=1)
    dataset = DenoiserTask(spec, None, Ranks(0, 1, torch.device("cpu"))).dataset
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UserError, match=r"8 damaged files in a row") as caught:
        next(load_batches(dataset, BatchOrder(8, 6), workers=1))
    assert "Traceback" not in caught.value.message
    assert caught.value.hint


def test_a_new_run_starts_from_the_weights_of_another(tiny_spec, run: Path, tmp_path: Path, capsys) -> None:
    newest = run / CHECKPOINTS / "step-00000006"
    longer = {"clip__frames": 6, "train__optimizer": {"kind": "adamw", "lr": 1e-30}, "train__steps": 1}
    for ema, file in ((True, "ema"), (False, "model")):
        target = tmp_path / file
        train_stage(tiny_spec(**longer), target, origin=run, ema=ema)
        began = load_file(target / CHECKPOINTS / "step-00000001/model.safetensors")
        for name, tensor in load_file(newest / f"{file}.safetensors").items():
            assert torch.equal(began[name], tensor), name
        assert RunFolder.open(target).load_spec().backbone.weights == str(newest / f"{file}.safetensors")
        line = json.loads((target / "history.jsonl").read_text())
        assert line["from"] == {"run": str(run), "step": 6, "average": ema}
        assert "clip.frames 4 → 6" in capsys.readouterr().err
    refused = (
        ({"backbone__width": 48}, "does not fit"),
        ({"backbone__weights": "w.safetensors"}, "only one of them can be the start"),
    )
    for fields, told in refused:
        with pytest.raises(UserError, match=told):
            train_stage(tiny_spec(**fields), tmp_path / "other", origin=run)
    shutil.rmtree(run / "denoiser")
    with pytest.raises(UserError, match="has no checkpoint of the denoiser"):
        train_stage(tiny_spec(), tmp_path / "other", origin=run)
    assert not (tmp_path / "other").exists()


def test_lost_checkpoints_are_no_new_beginning(tiny_spec, run: Path) -> None:
    shutil.rmtree(run / CHECKPOINTS)
    before = bytes_below(run)
    with pytest.raises(UserError, match=r"holds no checkpoint, but metrics\.jsonl tells of 6 steps"):
        train_stage(tiny_spec(), run, resume=True)
    assert bytes_below(run) == before
    (run / "denoiser" / "metrics.jsonl").write_text("")  # too few steps for a line of metrics
    with pytest.raises(UserError, match=r"holds no checkpoint, but measured\.json tells of 6 steps"):
        train_stage(tiny_spec(), run, resume=True)
    for place in (CHECKPOINTS, "denoiser"):
        shutil.rmtree(run / place, ignore_errors=True)
        (run / place).write_text("a file")
        with pytest.raises(UserError, match=rf"{place} is no folder"):
            train_stage(tiny_spec(), run, resume=True)
        assert (run / place).read_text() == "a file"
        (run / place).unlink()
    assert train_stage(tiny_spec(train__steps=2), run, resume=True).step == 2
    (run / "spec.yaml").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints, but .*spec\.yaml is missing"):
        train_stage(tiny_spec(), run, resume=True)


def test_what_killed_processes_left_is_put_right(tmp_path: Path) -> None:
    target, gone, here = tmp_path / "bundle", 2**22 + 1, this_host()
    half = (f".bundle.{gone}@{here}.tmp", f".bundle.{gone}.tmp", f".bundle.{os.getpid()}@{here}.tmp")
    kept = (f".bundle.{os.getppid()}@{here}.tmp", f".bundle.{gone}@elsewhere.tmp", f".other.{gone}@{here}.tmp")
    for name in (*half, *kept):
        (tmp_path / name).mkdir()
    before = tmp_path / f".bundle.{gone}@{here}.old"  # killed between two renames
    before.mkdir()
    (before / "file").write_text("before")
    with replacing_folder(target) as filled:
        assert (target / "file").read_text() == "before"
        (filled / "file").write_text("after")
    assert (target / "file").read_text() == "after"
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", *kept}
    (tmp_path / f".bundle.{gone}.tmp.mp4").write_text("")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", *kept[:2]}
    with pytest.raises(FileExistsError):
        write_atomically(target / "file", "other", replace=False)
    assert [path.read_text() for path in target.iterdir()] == ["after"]


@pytest.mark.parametrize(
    ("labels", "said", "fixed"),
    [
        (lambda number: f"{number}", "condition.classes=41", True),  # a label more than the run has classes
        (lambda number: f"name-{number:02}", "condition.classes=40", True),
        (lambda number: None, "condition: {kind: none}", True),
        (lambda number: f"{number % 10}.5", "round them", False),
    ],
)
def test_a_hint_is_one_that_a_begun_run_can_follow(
    labels: Callable[[int], str | None], said: str, fixed: bool, tiny_spec, digits: Path, run: Path, tmp_path: Path
) -> None:
    videos = sorted(digits.rglob("*.mp4"))
    rows = [{"path": str(path), "label": labels(number + (number > 9))} for number, path in enumerate(videos)]
    listing = tmp_path / "list.jsonl"
    listing.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = tiny_spec(train__data=str(listing), train__steps=9)
    with pytest.raises(UserError) as new:
        train_stage(spec, tmp_path / "new")
    with pytest.raises(UserError) as begun:
        train_stage(spec, run, resume=True, change=True)
    assert begun.value.message == new.value.message
    hint = begun.value.hint or ""
    assert "--from" not in (new.value.hint or "")
    assert hint.startswith(new.value.hint or "")
    assert (f"SPEC --from {run} --run {run}-2" in hint) == fixed
    assert not fixed or said in hint


def _folder(target: Path) -> None:
    with replacing_folder(target) as filled:
        (filled / "file").write_text("")


@pytest.mark.parametrize("target", [Path("/proc/x.pt"), Path("/dev/fd/x.pt")])
@pytest.mark.parametrize(
    "write",
    [
        lambda target: write_atomically(target, "text"),
        lambda target: write_atomically(target, "text", replace=False),
        lambda target: write_png(target, np.zeros((2, 2, 3), np.uint8)),
        _folder,
    ],
)
def test_what_the_system_refuses_names_the_file_that_was_meant(write: Callable[[Path], None], target: Path) -> None:
    with pytest.raises(FileNotFoundError) as stop:
        write(target)
    assert (stop.value.filename, stop.value.filename2) == (str(target), None)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as stop:
        write_atomically(tmp_path, "text")
    assert (stop.value.filename, stop.value.filename2) == (str(tmp_path), None)
    with pytest.raises(FileNotFoundError) as gone, replacing_folder(tmp_path / "out") as filled:
        (filled / "no" / "file").write_text("")
    assert gone.value.filename == str(tmp_path / "out" / "no" / "file")
    assert list(tmp_path.iterdir()) == []
