"""The shipped specs against PyTorch's trace, its FLOP counter, and published tables."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.trace.compare import compare
from sora_spec.builders.trace.kernels import forced_attention
from sora_spec.graph import Component, Setting, count, graph_from_spec
from sora_spec.graph.component import Precision
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.condition import TextCondition
from sora_spec.language.shapes import derive_shapes

SPECS = Path(__file__).parents[2] / "specs"
TINY = sorted(path.stem for path in SPECS.glob("tiny-*.yaml"))
KERNELS: tuple[Kernel, ...] = ("flash", "efficient", "math", "cpu")
LARGE = sorted(path.stem for path in SPECS.glob("*.yaml") if not path.stem.startswith("tiny-"))


def agree(name: str, component: Component, setting: Setting) -> None:
    found = compare(load_spec(SPECS / f"{name}.yaml"), component, setting)
    assert found.divergence is None
    assert [row for row in found.rows if not row.equal] == []


def each_kernel_in_turn(kernels: tuple[Kernel, ...]) -> list[Any]:
    """Every tiny spec under every kernel; in the short suite under one, the next spec under the next one."""
    return [
        pytest.param(name, kernel, marks=() if (place - turn) % len(kernels) == 0 else pytest.mark.slow)
        for place, name in enumerate(TINY)
        for turn, kernel in enumerate(kernels)
    ]


@pytest.mark.parametrize(("name", "attention"), each_kernel_in_turn(KERNELS))
def test_tiny_specs_equal_the_trace(name: str, attention: Kernel) -> None:
    for precision, recompute in product(get_args(Precision), ("none", "blocks", "selective")):
        agree(name, "denoiser_step", Setting(2, precision, attention, recompute, fused_rms_norm=attention != "cpu"))


@pytest.mark.parametrize(("name", "attention"), each_kernel_in_turn(KERNELS[1:]))
def test_tiny_vaes_equal_the_trace(name: str, attention: Kernel) -> None:
    for component in ("vae_encode", "vae_decode", *(["vae_step"] if trains(name) else [])):
        agree(name, component, Setting(attention=attention))


def trains(name: str) -> bool:
    """Whether the spec's VAE can be trained."""
    return load_spec(SPECS / f"{name}.yaml").vae.kind != "identity"


def test_dit_xl_equals_the_trace() -> None:
    agree("dit", "denoiser_step", Setting(batch=2, precision="bf16", rounding=512))


def test_the_sd_vae_equals_the_trace() -> None:
    agree("dit", "vae_encode", Setting(attention="math"))
    agree("dit", "vae_decode", Setting(attention="math"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("attention", ["flash", "efficient", "math"])
@pytest.mark.parametrize("recompute", ["none", "blocks", "selective"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_large_specs_equal_the_trace(name: str, attention: str, recompute: str, precision: str) -> None:
    assert attention in ("flash", "efficient", "math")
    assert recompute in ("none", "blocks", "selective")
    assert precision in ("fp32", "bf16")
    agree(name, "denoiser_step", Setting(batch=2, attention=attention, recompute=recompute, precision=precision))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_large_vaes_equal_the_trace(name: str, precision: str) -> None:
    assert precision in ("fp32", "bf16")
    for component in ("vae_encode", "vae_decode"):
        agree(name, component, Setting(attention="efficient", precision=precision))


# Table 4 of arXiv 2212.09748: width, depth, heads, "Gflops" (multiply-accumulates) at patch 2, 4 and 8 and 256x256.
PUBLISHED = {
    "S": (384, 12, 6, (6.06, 1.41, 0.36)),
    "B": (768, 12, 12, (23.01, 5.56, 1.42)),
    "L": (1024, 24, 16, (80.71, 19.70, 5.01)),
    "XL": (1152, 28, 16, (118.64, 29.05, 7.39)),
}


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_multiply_accumulates_are_those_of_the_dit_paper(size: str, patch: int) -> None:
    width, depth, heads, gmacs = PUBLISHED[size]
    changes = [f"backbone.width={width}", f"backbone.depth={depth}", f"backbone.heads={heads}", f"patch.space={patch}"]
    graph = graph_from_spec(load_spec(SPECS / "dit.yaml", changes), "denoiser")
    # The paper's counter also sees what is no matrix product: up to 0.5 % of the small models.
    assert count(graph).forward_macs / 1e9 == pytest.approx(gmacs[(2, 4, 8).index(patch)], rel=0.005, abs=0.011)


@pytest.mark.parametrize("name", ["dit", "latte", "opendit-video"])
def test_flops_equal_the_closed_form_and_pytorchs_counter(name: str) -> None:
    spec = load_spec(SPECS / f"{name}.yaml", ["backbone.depth=4"])
    latent = derive_shapes(spec).latent
    with torch.device("meta"):
        network, x, time = build_denoiser(spec), torch.zeros(1, *latent), torch.zeros(1)
        text = isinstance(spec.condition, TextCondition)
        condition = torch.zeros(1, spec.condition.width) if text else torch.zeros(1, dtype=torch.int64)
    with forced_attention("flash"), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(network(x, time, condition).sum())
    found = count(graph_from_spec(spec, "denoiser_step", Setting(recompute="none")))
    assert found.flops == counter.get_total_flops()


def test_dit_xl_at_512_pixels_has_the_flops_of_its_closed_form() -> None:
    spec = load_spec(SPECS / "dit.yaml", ["clip.height=512", "clip.width=512"])
    d, depth, tokens = 1152, 28, 1024
    matrices = 2 * tokens * d * 16 + 2 * (256 * d + d * d) + 4 * d * d + 2 * tokens * d * 32
    blocks = depth * (12 * d * d + 24 * tokens * d * d + 4 * tokens**2 * d)
    assert count(graph_from_spec(spec, "denoiser")).forward_flops == matrices + blocks == 1_049_076_596_736
