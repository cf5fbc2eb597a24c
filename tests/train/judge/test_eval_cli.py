"""`sora-spec eval` from the command line: folders of clips, a run, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sora_spec.cli import main
from sora_spec.disk.run_folder import RunFolder
from sora_spec.train.data.digits import DigitsRecipe, plan_clips, render, write_digits
from sora_spec.train.start import train_stage
from sora_spec.video import write_mp4

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sora-spec", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main.run()
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, DigitsRecipe(clips=10, frames=6))
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Real clips of held-out handwriting, with a record as `generate` writes it."""
    folder, files = tmp_path / "clips", []
    for clip in plan_clips(DigitsRecipe(clips=30, frames=4, split="test", seed=9)):
        files.append({"file": f"{clip.number:03d}.mp4", "label": clip.label, "seed": 0})
        write_mp4(folder / f"{clip.number:03d}.mp4", render(clip, 32), 8)
    shape = {"frames": 4, "height": 32, "width": 32, "fps": 8.0}
    record = {"source": "gone", "seed": 0, "clip": shape, "sampler": {"kind": "heun"}, "clips": files}
    (folder / "generate.json").write_text(json.dumps(record))
    return folder


def test_a_folder_is_judged_and_compared(call: Call, clips: Path, data: Path, tmp_path: Path) -> None:
    code, out, _ = call("eval", clips, "--data", data, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["generated"]["read_as_asked"] >= 0.9
    assert result["protocol"]["clips"] == 30
    (tmp_path / "before.json").write_text(out)
    code, out, _ = call("eval", clips, "--data", data, "--against", tmp_path / "before.json")
    assert code == 0
    assert f"before: {clips}" in out
    assert result["protocol"]["hash"] in out
    code, out, error = call("eval", clips, "--data", data, "--shuffle", "--against", tmp_path / "before.json")
    assert (code, out) == (2, "")
    assert "another protocol" in error
    assert "shuffled: False there, True here" in error


def test_what_is_no_set_of_clips(call: Call, clips: Path, data: Path, tmp_path: Path) -> None:
    def refusal(*arguments: object) -> str:
        code, out, error = call("eval", *arguments)
        assert (code, out) == (2, "")
        return error

    assert "name the data set: --data FOLDER" in refusal(clips)
    assert "nothing is drawn" in refusal(clips, "--data", data, "--clips", 30)
    assert "is no result of an evaluation" in refusal(clips, "--data", data, "--against", data / "dataset.json")
    assert "is no run, no bundle" in refusal(data, "--data", data)
    record: dict[str, Any] = json.loads((clips / "generate.json").read_text())
    (clips / "007.mp4").rename(tmp_path / "lost.mp4")
    assert "007.mp4: the file does not exist" in refusal(clips, "--data", data)
    write_mp4(clips / "007.mp4", render(next(plan_clips(DigitsRecipe(clips=1, frames=3))), 32), 8)
    assert "007.mp4 holds 3 frames in place of 4" in refusal(clips, "--data", data)
    (clips / "007.mp4").write_text("no video")
    assert "007.mp4" in refusal(clips, "--data", data)
    (clips / "generate.json").write_text(json.dumps(record | {"clips": record["clips"][:5]}))
    assert "5 clips of 4 frames are too few" in refusal(clips, "--data", data)
    (clips / "generate.json").write_text(json.dumps(record | {"clips": [record["clips"][0] | {"label": None}] * 20}))
    assert "'None'" in refusal(clips, "--data", data)
    for text in ("{}", "[]", "no", '{"clips": 3}'):
        (clips / "generate.json").write_text(text)
        assert "no record of `sora-spec generate`" in refusal(clips, "--data", data)


@pytest.mark.slow
def test_a_run_is_drawn_from_and_judged(call: Call, tiny_spec: Any, tmp_path: Path) -> None:
    write_digits(tmp_path / "digits", DigitsRecipe(clips=20, frames=6, size=16))
    spec = tiny_spec(train__data=str(tmp_path / "digits"), train__steps=2, train__checkpoint_every=2)
    train_stage(spec, tmp_path / "run", device="cpu")
    assert RunFolder.is_run(tmp_path / "run")
    code, out, error = call("eval", tmp_path / "run", "--clips", 20, "--out", tmp_path / "kept", "--json")
    assert code == 0, error
    result = json.loads(out)
    assert result == json.loads((tmp_path / "kept" / "eval.json").read_text())
    assert result["generated"]["read_as_asked"] < 0.6  # two steps teach nothing
    assert result["ratios"]["frechet"] > 1
    code, out, _ = call("eval", tmp_path / "kept", "--data", tmp_path / "digits", "--json")
    again = json.loads(out)
    assert again["protocol"] == result["protocol"]
    assert again["generated"] == result["generated"]
    assert call("eval", tmp_path / "run", "sampler.nonsense=3", "--clips", 20)[0] == 1
