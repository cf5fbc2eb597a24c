"""The verbs for Python: each does what its command does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sora_spec
from sora_spec.errors import UserError
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import packaged_path


def printed_plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    from typer.main import get_command

    from sora_spec.cli.main import app

    command: Any = get_command(app)
    command.main(args=["plan", *arguments, "--json"], prog_name="sora-spec", standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def test_a_plan_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert sora_spec.plan("tiny-latte", {"train.batch": 32}, gpu="rtx4090") == printed_plan(
        capsys, "tiny-latte", "train.batch=32", "--gpu", "rtx4090"
    )
    generated = sora_spec.plan("tiny-dit", gpu="h100", mode="generate", batch=2, one_at_a_time=True)
    assert generated == printed_plan(
        capsys, "tiny-dit", "--gpu", "h100", "--mode", "generate", "--batch", "2", "--one-at-a-time"
    )


def test_a_loaded_spec_is_planned_as_its_file_but_has_no_lines(tmp_path: Path) -> None:
    def without_lines(plan: dict[str, Any]) -> dict[str, Any]:
        memory = plan["memory"]
        terms = {key: [{**term, "line": None} for term in memory[key]] for key in ("terms", "host_terms")}
        return {**plan, "memory": {**memory, **terms}}

    # Of four devices, and of a layout that is not written: written out with its defaults it would say one rank.
    path = tmp_path / "four.yaml"
    text = (packaged_path("tiny-latte") or path).read_text()
    path.write_text(text.replace("hardware: {gpu: cpu}", "hardware: {gpu: a100-80gb, count: 4}"))
    planned = sora_spec.plan(path)
    assert planned["count"] == 4
    assert planned["memory"]["terms"][0]["line"] is not None
    assert sora_spec.plan(sora_spec.load(path)) == without_lines(planned)


def test_overrides_mean_what_they_mean_on_the_command_line(tmp_path: Path) -> None:
    values = {"train.batch": 16, "train.optimizer.betas": (0.9, 0.95), "train.data": tmp_path, "name": "other"}
    given = ["train.batch=16", "train.optimizer.betas=[0.9, 0.95]", f"train.data={tmp_path}", "name=other"]
    assert sora_spec.load("dit", values) == sora_spec.load("dit", **values) == load_spec("dit", given)
    loaded = sora_spec.load("dit", values)
    assert sora_spec.load(loaded, {"train.batch": 8}) == load_spec("dit", [*given, "train.batch=8"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"train.bach": 8}, "Did you mean `batch`"),
        ({"gpus": 3}, "gpus"),
        ({"train.batch": -1}, "train.batch"),
        ({"train.batch=4": 1}, "no dotted path"),
        ({"train.batch": object()}, "train.batch: no spec can hold"),
        ({"train.optimizer.lr": float("nan")}, "train.optimizer.lr: no spec can hold"),
    ],
)
def test_what_no_spec_has_is_refused(overrides: dict[str, Any], told: str) -> None:
    with pytest.raises(sora_spec.UserError, match=told):
        sora_spec.load("dit", overrides)


def test_validate_returns_every_problem() -> None:
    assert sora_spec.validate("dit") == []
    wrong = {"clip.frames": 18, "train.batch": 0}
    assert {problem.code for problem in sora_spec.validate("sora-480p", wrong)} >= {"E301"}
    with pytest.raises(sora_spec.SpecErrors) as error:
        sora_spec.load("sora-480p", wrong)
    assert "clip.frames=18" in error.value.message
    assert "train.batch=0" in error.value.message


def test_options_without_an_effect_are_refused() -> None:
    with pytest.raises(UserError, match="about generating"):
        sora_spec.plan("dit", batch=2)
    with pytest.raises(UserError, match="about training"):
        sora_spec.plan("dit", mode="generate", stage="vae")
    with pytest.raises(UserError, match="no device 'abacus'"):
        sora_spec.plan("dit", gpu="abacus")


def test_a_network_runs() -> None:
    torch.manual_seed(0)
    net = sora_spec.build("tiny-latte")
    spec = sora_spec.load("tiny-latte")
    with torch.device("meta"):
        vae = sora_spec.build("tiny-causal3d", part="vae")
    assert all(parameter.is_meta for parameter in vae.parameters())
    parts = sora_spec.plan("tiny-latte", gpu="cpu")["components"]
    assert sum(parameter.numel() for parameter in net.parameters()) == parts["denoiser"]["parameters"]
    from sora_spec.language.shapes import derive_shapes

    latent = torch.randn(2, *derive_shapes(spec).latent)
    out = net(latent, torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    assert out.shape[0] == 2
    assert out.shape[2:] == latent.shape[2:]


def test_packages_and_verbs_share_their_names() -> None:
    code = (
        "import sys, sora_spec, sora_spec.plan.planner as planner, sora_spec.train\n"
        "from sora_spec.plan import make_plan\n"
        "assert planner.make_plan is make_plan is sora_spec.plan.make_plan\n"
        "print(sora_spec.plan('dit', gpu='h100')['verdict'], callable(sora_spec.train), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["yes", "True", "False"]


def test_train_and_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sora_spec.train.data.digits import DigitsRecipe, write_digits

    monkeypatch.chdir(tmp_path)
    write_digits(Path("digits"), DigitsRecipe(clips=20, frames=4, size=16))
    small = {
        "clip": {"frames": 4, "height": 16, "width": 16, "fps": 8},
        "vae": {"kind": "identity"},
        "patch": {"time": 1, "space": 4},
        "backbone": {"kind": "transformer", "depth": 1, "width": 32, "heads": 2, "learn_sigma": False},
        "sampler": {"kind": "euler", "steps": 2, "guidance": 2.0},
        "export": {"precision": "fp32", "frames": [4, 4]},
        "name": "small",
        "train": {"data": Path("digits"), "batch": 4, "steps": 3, "workers": 0, "checkpoint_every": 3},
    }
    run = sora_spec.train("tiny-sit-digits", small, device="cpu")
    assert (run.run, run.status, run.step) == (Path("runs/small"), "finished", 3)
    with pytest.raises(UserError, match="is a run folder"):
        sora_spec.train(run)
    assert sora_spec.train(run, resume=True).status == "already finished"
    clips = list(sora_spec.sample(run, {"sampler.steps": 1}, labels=[3, "7", None], seed=1))
    assert [clip.label for clip in clips] == [3, 7, None]
    assert all(clip.frames.shape == (4, 16, 16, 3) and clip.frames.dtype == np.uint8 for clip in clips)
    one = list(sora_spec.sample(run, {"sampler.steps": 1}, labels=[3], seed=1))
    assert np.array_equal(one[0].frames, clips[0].frames)
    half = list(sora_spec.sample(run, {"sampler.steps": 1}, labels=[3], seed=1, precision="bf16"))
    assert 0 < np.abs(half[0].frames.astype(int) - one[0].frames).max() < 32, "the same clip, in eight bits"
    with pytest.raises(UserError, match="not a setting of the sampler"):
        sora_spec.sample(run, {"train.batch": 2})
