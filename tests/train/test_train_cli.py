"""`sora-spec train` and `sora-spec data` as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sora_spec.cli.main import app
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec


@pytest.fixture
def spec_file(tiny_spec, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_spec(tiny_spec(train__steps=4)))
    return path


def invoke(*arguments: object) -> int:
    """Exit code of a command; its output goes to the captured streams."""
    command: Any = get_command(app)
    try:
        return command.main(args=[str(a) for a in arguments], prog_name="sora-spec", standalone_mode=False) or 0
    except SystemExit as stop:
        return int(stop.code or 0)


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_dry_run_writes_nothing(spec_file: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = everything_below(tmp_path)
    assert invoke("train", spec_file, "--dry-run") == 0
    shown = capsys.readouterr()
    assert everything_below(tmp_path) == before
    for fact in ("parameters", "3x4x16x16", "64 per clip", "40 files", "runs/tiny", "s a step"):
        assert fact in shown.out, fact
    assert "nothing was written" in shown.err
    assert invoke("train", spec_file, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4


def test_train_prints_the_run_folder_and_resumes_from_it(spec_file: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("train", spec_file, "train.seed=3") == 0
    assert capsys.readouterr().out == "runs/tiny\n"
    assert "seed: 3" in Path("runs/tiny/spec.yaml").read_text()
    assert json.loads(Path("runs/tiny/classes.json").read_text()) == [str(k) for k in range(10)]
    report = json.loads(Path("runs/tiny/denoiser/data.json").read_text())
    assert [(each["name"], each["clips"]) for each in report["classes"]] == [(str(k), 4) for k in range(10)]
    with pytest.raises(UserError, match="is a run folder"):
        invoke("train", "runs/tiny")
    assert invoke("train", "runs/tiny", "--resume", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["status"], summary["step"], summary["run"]) == ("already finished", 4, "runs/tiny")
    assert invoke("train", "runs/tiny", "--resume", "train.steps=6", "--json") == 0
    assert json.loads(capsys.readouterr().out)["step"] == 6
    assert "steps: 6" in Path("runs/tiny/spec.yaml").read_text()


def test_events_for_tensorboard_hold_the_metrics(spec_file: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    invoke("train", spec_file, "--run", tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/denoiser/tensorboard"))
    events.Reload()
    logged = [json.loads(line) for line in (tmp_path / "run/denoiser/metrics.jsonl").read_text().splitlines()]
    scalars = events.Scalars("loss")
    assert [scalar.step for scalar in scalars] == [line["step"] for line in logged] == [1, 2, 3, 4]
    assert [scalar.value for scalar in scalars] == pytest.approx([line["loss"] for line in logged], rel=1e-6)


def test_missing_data_names_the_override(spec_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.data is missing") as error:
        invoke("train", spec_file, "train.data=null", "--run", tmp_path / "run")
    assert "train.data=" in str(error.value.hint)
    assert not (tmp_path / "run").exists()


def test_a_failure_before_the_first_step_leaves_no_run(spec_file: Path, tmp_path: Path) -> None:
    for override, told in (("train.data=nowhere", "does not exist"), ("clip.frames=400", "none of the 40 files")):
        with pytest.raises(UserError, match=told):
            invoke("train", spec_file, override, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_says_what_to_try(spec_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="training stopped at step") as error:
        invoke("train", spec_file, "train.optimizer.lr=1e12", "train.steps=30", "--run", tmp_path / "run")
    assert error.value.exit_code == 1
    assert "learning rate" in str(error.value.hint)


def test_data_verbs(tmp_path: Path, capsys) -> None:
    assert invoke("data", "digits", tmp_path / "d", "--clips", 10, "--frames", 4, "--size", 16, "--split", "test") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'd'}\n"
    assert json.loads((tmp_path / "d/dataset.json").read_text())["recipe"]["split"] == "test"
    assert invoke("data", "check", tmp_path / "d") == 0
    assert "10 of 10 files can be used" in capsys.readouterr().out
    (tmp_path / "d/0/bad.mp4").write_bytes(b"")
    assert invoke("data", "check", tmp_path / "d", "--json") == 1
    rows = json.loads(capsys.readouterr().out)["files"]
    assert [row["problem"] for row in rows if row["problem"]] == ["the file is empty"]
    assert invoke("data", "clips", tmp_path / "c") == 0
    assert len(list((tmp_path / "c").glob("*.mp4"))) == 4
    with pytest.raises(UserError, match="odd"):
        invoke("data", "digits", tmp_path / "e", "--size", 17)


def test_raw_weights_are_asked_for_only_where_weights_are_read(spec_file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = everything_below(tmp_path)
    with pytest.raises(UserError, match="--no-ema says which weights to start from, and none are read here"):
        invoke("train", spec_file, "--no-ema")
    assert everything_below(tmp_path) == before
