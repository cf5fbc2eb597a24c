"""Sizes that follow from two batches equal those of a graph made for the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sora_spec.graph import Setting, count, graph_from_spec, memory
from sora_spec.graph.component import Component, Recompute
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import packaged_names
from sora_spec.plan.memory.schedule import schedule_of
from sora_spec.plan.memory.workload import workload

CASES: list[tuple[str, Component, Recompute]] = [
    ("dit", "denoiser_step", "none"),
    ("dit", "denoiser_step", "blocks"),
    ("latte", "denoiser_step", "none"),
    ("opendit-video", "denoiser", "none"),
    ("dit", "vae_encode", "none"),
    ("tiny-latte", "vae_decode", "none"),
]


@pytest.mark.parametrize(("name", "component", "recompute"), CASES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bytes_and_flops(name: str, component: Component, recompute: Recompute, precision: str) -> None:
    spec = load_spec(name)
    setting = Setting(precision=precision, rounding=512, recompute=recompute)  # pyright: ignore[reportArgumentType]
    for batch in (1, 3, 2, 16):
        direct = replace(setting, batch=batch)
        graph = graph_from_spec(spec, component, direct)
        held, counts, found = memory(graph), count(graph), workload(spec, component, direct)
        assert found.parameter_bytes + found.buffer_bytes + found.peak.tensor_bytes == held.peak_bytes
        assert found.gradient_bytes == held.gradient_bytes
        assert found.parameters == counts.parameters
        assert (found.forward_flops, found.backward_flops) == (counts.forward_flops, counts.backward_flops)
        assert sum(size for _, size in found.peak.by_path) == found.peak.activation_bytes


def test_the_peak_never_grows_when_gradients_shrink() -> None:
    found = workload(load_spec("dit"), "denoiser_step", Setting(batch=4, rounding=512))
    whole, half, none = (found.peak_with(scale) for scale in (1.0, 0.5, 0.0))
    peaks = ((whole, 1), (half, 0.5), (none, 0))
    heights = [peak.activation_bytes + scale * peak.gradient_bytes for peak, scale in peaks]
    assert heights == sorted(heights, reverse=True)
    assert none.activation_bytes >= half.activation_bytes >= whole.activation_bytes


@pytest.mark.parametrize("name", packaged_names())
@pytest.mark.parametrize("component", ["denoiser", "vae_encode", "vae_decode"])
def test_flops_of_one_sample_follow_from_several(name: str, component: Component) -> None:
    """Extents of 1 change strides, and with them copies, but no arithmetic."""
    spec = load_spec(name)
    several = schedule_of(spec, component, Setting(batch=2))
    assert several.forward_flops(1) == count(graph_from_spec(spec, component, Setting(batch=1))).forward_flops
    assert several.forward_flops(5) == count(graph_from_spec(spec, component, Setting(batch=5))).forward_flops
