"""`plan --verify` through the command line: what it compares, where it points, and what it says without PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sora_spec.language.packaged import install_command

SPEC = """\
version: 1
name: small
clip: {frames: 3, height: 16, width: 16}
vae: {kind: causal3d, compression: {time: 2, space: 2}, channels: 2, width: 4, multipliers: [1, 2], blocks: 1}
patch: {time: 1, space: 2}
backbone:
  kind: transformer
  depth: 5
  width: 32
  heads: 2
  mlp_ratio: 3.0
  qk_norm: true
  learn_sigma: false
objective: {kind: interpolant}
sampler: {kind: euler}
hardware: {gpu: cpu}
"""

# What every process of the command does first. The code is exchanged: others have imported the function by name.
BREAK = """
from types import FunctionType
from sora_spec.graph.eager.ops import {module}
rule = {module}.{name}
{module}.real = FunctionType(rule.__code__, rule.__globals__)
def broken({arguments}):
    {body}
rule.__code__ = broken.__code__
"""


def plan(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a folder whose `sitecustomize` runs first."""
    (folder / "small.yaml").write_text(SPEC)
    (folder / "sitecustomize.py").write_text(before)
    command = [sys.executable, "-m", "sora_spec", "plan", "small.yaml", "--verify", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_both_columns_of_every_component_agree(tmp_path: Path) -> None:
    done = plan(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)
    components = [part["component"] for part in parts]
    assert components == ["denoiser", "denoiser_step", "vae_encode", "vae_decode", "vae_step", "denoiser_step"]
    assert all(part["equal"] and part["divergence"] is None for part in parts)
    quantities = {row["quantity"] for row in parts[1]["rows"]}
    assert {"parameters", "forward FLOPs", "backward FLOPs", "bytes alive after forward", "peak bytes"} <= quantities
    real = parts[-1]["rows"]
    assert [row["quantity"] for row in real] == ["peak bytes of the allocator"]
    assert real[0]["predicted"] == pytest.approx(real[0]["traced"], rel=1e-4)


def test_a_gpus_fused_norms_are_traced_as_such(tmp_path: Path) -> None:
    done = plan(tmp_path, "--gpu", "rtx4090", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[1]["setting"]["fused_rms_norm"] is True


# The broken rule, and the component, op, part and line that the command must name.
BROKEN = [
    (
        {"module": "pointwise", "name": "gelu", "arguments": "x", "body": "return silu(x)"},
        ("denoiser", "backbone.blocks[0].mlp, made by backbone.mlp_ratio (line 11)", "silu -> ", "gelu -> "),
    ),
    (
        {
            "module": "attention",
            "name": "attention_flops",
            "arguments": "q, k",
            "body": "return 2 * real(q, k)",
        },
        (
            "denoiser",
            "backbone.blocks[0].attention, made by backbone.heads (line 10)",
            "efficient_attention",
            "efficient",
        ),
    ),
    (
        {"module": "norm", "name": "rms_norm", "arguments": "x, weight", "body": "return x"},
        ("denoiser", "backbone.blocks[0].attention, made by backbone.heads (line 10)", "_scaled_dot", "pow -> "),
    ),
    (
        {"module": "conv", "name": "conv", "arguments": "x, w, b, s, p", "body": "return real(x, w, None, s, p)"},
        ("vae_encode", "vae.encoder, made by vae.multipliers (line 4)", "convolution -> ", "convolution -> "),
    ),
]


@pytest.mark.parametrize(
    ("broken", "told"), BROKEN, ids=lambda value: value.get("name") if isinstance(value, dict) else ""
)
def test_a_broken_rule_is_named_with_its_line(
    broken: dict[str, str], told: tuple[str, str, str, str], tmp_path: Path
) -> None:
    done = plan(tmp_path, before=BREAK.format(**broken))
    assert done.returncode == 1, done.stderr
    component, place, predicted, traced = told
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if "they part at op" in line)
    assert place in lines[at]
    assert predicted in lines[at + 1]
    assert traced in lines[at + 2]
    assert [line for line in lines[:at] if ": batch" in line][-1].startswith(f"{component}:")


def test_without_pytorch_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = plan(tmp_path)
    assert done.returncode == 2
    assert "--verify builds the real modules, which needs PyTorch" in done.stderr
    assert install_command("train") in done.stderr
