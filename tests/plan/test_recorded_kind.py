"""A temporal kind that is written in PyTorch alone: planned, printed, swept and verified without a lowering.

The kind is the language's `windowed`; the folder's `sitecustomize` gives it a builder, in the process that has PyTorch.
"""

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

BUILDER = """
import sys
from sora_spec.language.rules import buildable

buildable.BUILDABLE["temporal"] += ("windowed",)
if any("builders.trace" in word for word in sys.orig_argv):
    from einops import rearrange
    from sora_spec.builders import denoiser
    from sora_spec.builders.blocks import adaln

    others, attend = denoiser._axes, adaln.attend

    def axes(spec, depth):
        return (spec.temporal.window,) * depth if spec.temporal.kind == "windowed" else others(spec, depth)

    def within_windows(axis, attention, x, rotation):
        if isinstance(axis, str):
            return attend(axis, attention, x, rotation)
        f, h, w = axis
        side = int(x.shape[2] ** 0.5)
        rows = "b (F f) (H h W w) d -> (b F H W) (f h w) d"
        sizes = {"f": f, "h": h, "w": w, "F": x.shape[1] // f, "H": side // h, "W": side // w}
        y = attention(rearrange(x, rows, **sizes), rotation)
        return rearrange(y, "(b F H W) (f h w) d -> b (F f) (H h W w) d", **sizes)

    denoiser._axes, adaln.attend = axes, within_windows
"""
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
    """A command of the package in a folder with its own cache, where `windowed` has a builder."""
    (folder / "windows.yaml").write_text(SPEC)
    (folder / "sitecustomize.py").write_text(BUILDER)
    environment = os.environ | {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
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
    # Spatial attention has a lowering, and differs in the keys of a query: 64 of its frame, or 32 of its window.
    spatial = json.loads(run(folder, *asked, "temporal={kind: none}"))
    more = DEPTH * TOKENS * 4 * WIDTH * (WINDOW - FRAME)
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
