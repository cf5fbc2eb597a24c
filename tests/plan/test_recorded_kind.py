"""A temporal kind that is written in PyTorch alone, `windowed`: planned, swept, verified without a lowering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sora_spec.errors import UserError
from sora_spec.graph import Setting, graph_from_spec
from sora_spec.graph.lower.families import LOWERED
from sora_spec.graph.traced import tracer
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec

SPEC = """\
version: 1
name: windows
clip: {frames: 4, height: 32, width: 32}
vae: {kind: identity}
patch: {time: 1, space: 4}
backbone: {kind: transformer, depth: 12, width: 64, heads: 2, learn_sigma: false}
temporal: {kind: windowed, window: [2, 4, 4]}
objective: {kind: interpolant}
sampler: {kind: euler}
train: {batch: 4}
"""
DEPTH, WIDTH, TOKENS, WINDOW, FRAME = 12, 64, 4 * 64, 2 * 4 * 4, 64


def run(folder: Path, *arguments: str) -> str:
    """A command of the package in a folder with its own cache."""
    (folder / "windows.yaml").write_text(SPEC)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sora_spec", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windows")


def test_a_kind_without_a_lowering_is_planned(folder: Path) -> None:
    asked = ("plan", "windows.yaml", "--gpu", "h100", "--json")
    plan = json.loads(run(folder, *asked))
    # Spatial attention has a lowering. Every other block differs in the keys of a query: 32 of a window, not 64.
    spatial = json.loads(run(folder, *asked, "temporal={kind: none}"))
    more = DEPTH // 2 * TOKENS * 4 * WIDTH * (WINDOW - FRAME)
    flops = [found["components"]["denoiser"]["forward_flops"] for found in (plan, spatial)]
    assert flops[0] - flops[1] == more
    assert plan["components"]["denoiser"]["parameters"] == spatial["components"]["denoiser"]["parameters"]
    told = [line for line in plan["assumptions"] if "no lowering" in line]
    assert len(told) == 1
    assert "recorded on " in told[0]
    kept = sorted((folder / "sora-spec" / "traces").iterdir())
    assert json.loads(run(folder, *asked)) == plan
    assert sorted((folder / "sora-spec" / "traces").iterdir()) == kept


@pytest.mark.slow
def test_and_printed_and_compared_with_its_module(folder: Path) -> None:
    printed = run(folder, "show", "windows.yaml", "--graph", "--component", "denoiser")
    assert "backbone.blocks[2..8].attention  ×4" in printed  # the language's kind alternates: two blocks are a period
    assert "recorded on " in printed
    found = json.loads(run(folder, "plan", "windows.yaml", "--gpu", "h100", "--verify", "--json"))
    assert [part["component"] for part in found][:2] == ["denoiser", "denoiser_step"]
    assert all(part["equal"] for part in found[:2])


@pytest.mark.slow
def test_and_swept_solved_and_shown_on_the_screens(folder: Path) -> None:
    asked = ("windows.yaml", "--gpu", "h100")
    plan = json.loads(run(folder, "plan", *asked, "--json"))
    (screen,) = json.loads(run(folder, "tui", *asked, "--json"))["specs"]
    assert screen["plan"] == plan
    rows = json.loads(run(folder, "plan", *asked, "--sweep", "--over", "train.batch=2,4", "--format", "json"))
    assert [row["settings"] for row in rows] == [["train.batch=2"], ["train.batch=4"]]
    assert rows[1]["allocated_bytes"] == plan["memory"]["allocated_bytes"]
    most = json.loads(run(folder, "plan", *asked, "--solve", "batch", "--json"))
    assert most["micro_batch"] > 4
    again = json.loads(run(folder, "plan", *asked, "--json", *most["overrides"]))
    assert again["fits"]
    assert again["memory"]["device_bytes"] == most["device_bytes"]
    run(folder, "tui", *asked, "--screen", "sweep", "--svg", "sweep.svg")
    assert "train.batch=2,4,8" in (folder / "sweep.svg").read_text().replace("&#160;", " ")


def test_without_pytorch_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(LOWERED, "backbone", ())
    monkeypatch.setattr(tracer, "_torch", lambda: None)
    with pytest.raises(UserError, match=r"denoiser has no lowering.*PyTorch is not installed") as raised:
        graph_from_spec(load_spec("dit"), "denoiser", Setting(batch=3))
    assert raised.value.hint is not None
    assert "[train]" in raised.value.hint


def test_a_kept_recording_needs_no_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(LOWERED, "vae", ())
    spec: Spec = load_spec("tiny-latte")
    first = graph_from_spec(spec, "vae_decode", Setting(attention="efficient"))
    tracer._recorded.cache_clear()
    monkeypatch.setattr(tracer, "_torch", lambda: None)
    again = graph_from_spec(spec, "vae_decode", Setting(attention="efficient"))
    assert again.recorded == first.recorded
    assert again.tape.sizes == first.tape.sizes
    (kept,) = tracer.cache_folder().iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # a damaged one is as good as none
    tracer._recorded.cache_clear()
    with pytest.raises(UserError, match="PyTorch is not installed"):
        graph_from_spec(spec, "vae_decode", Setting(attention="efficient"))
