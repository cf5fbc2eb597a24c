"""A step of every sampler against a trace of the real one, from the middle of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.samplers import Condition, sample
from sora_spec.builders.diffusion.torch_arrays import TORCH
from sora_spec.builders.trace.compare import first_divergence
from sora_spec.builders.trace.kernels import forced_attention
from sora_spec.builders.trace.memory_trace import MemoryTrace
from sora_spec.graph import Graph, Setting, count, graph_from_spec, memory, verify
from sora_spec.graph.eager.tape import Op
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes

CALLS = {"heun": 2, "dopri5": 6}
BATCH = 3


def small(name: str, *overrides: str) -> Spec:
    return load_spec(name, ["backbone.depth=6", *overrides])


def traced_step(spec: Spec, graph: Graph, precision: str, kernel: str) -> list[Op]:
    """Events of the third step; `graph` says how many come before the network's first."""
    device = "cpu" if kernel == "cpu" else "meta"
    torch.manual_seed(0)
    with torch.device(device):
        network = build_denoiser(spec).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        initial = torch.randn(BATCH, *derive_shapes(spec).latent)
        labels = torch.zeros(BATCH, dtype=torch.long) if spec.condition.kind == "class" else None
    network = network.to(torch.bfloat16) if precision == "bf16" else network
    trace = MemoryTrace()
    given = [initial] if labels is None else [initial, labels]
    trace.hold([*network.parameters(), *network.buffers(), *given])
    marks: list[int] = []

    def marked(latents: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        marks.append(len(trace.ops))
        return network(latents, time, condition)

    with torch.no_grad(), forced_attention(kernel), trace:
        sample(spec, marked, initial, Condition(labels), lambda: torch.randn(initial.shape, device=device), TORCH)
    before = next(i for i, op in enumerate(graph.ops) if graph.regions[op.region].path.startswith("backbone"))
    first = 2 * CALLS.get(spec.sampler.kind, 1) + (2 if spec.sampler.kind == "dopri5" else 0)
    start = marks[first] - before
    return trace.ops[start : start + len(graph.ops)]


def check(spec: Spec, precision: Any = "fp32", kernel: Any = "flash") -> None:
    setting = Setting(batch=BATCH, precision=precision, attention=kernel, observed=True)
    whole = graph_from_spec(spec, "sampler_step", Setting(**{**vars(setting), "full": True}))
    verify(whole)
    events = traced_step(spec, whole, precision, kernel)
    assert first_divergence(whole, events) is None
    graph = graph_from_spec(spec, "sampler_step", setting)
    assert memory(graph).peak_bytes == memory(whole).peak_bytes == max(event.live_bytes for event in events)
    assert count(graph).forward_flops == count(whole).forward_flops == sum(event.flops for event in events)


@pytest.mark.parametrize(
    "overrides",
    [
        ["sampler={kind: ddpm, steps: 5}"],
        ["sampler={kind: ddpm, steps: 5, guidance: 4}"],
        ["sampler={kind: ddpm, steps: 5, guidance: 4, guidance_channels: 2}"],
        ["sampler={kind: ddpm, steps: 5}", "objective.variance=fixed_small", "backbone.learn_sigma=false"],
        ["sampler={kind: ddpm, steps: 5, guidance: 2}", "objective.variance=fixed_large"],
        ["sampler={kind: ddim, steps: 5}"],
        ["sampler={kind: ddim, steps: 5, eta: 0.5, guidance: 2}"],
        ["sampler={kind: ddim, steps: 5, eta: 1.0}", "condition={kind: none}"],
    ],
)
@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_discrete_samplers(overrides: list[str], prediction: str) -> None:
    variance = [] if any("objective.variance" in text for text in overrides) else ["objective.variance=learned_range"]
    check(small("tiny-dit", *overrides, *variance, f"objective.prediction={prediction}"))


@pytest.mark.parametrize(
    ("guidance", "learn_sigma"),
    [
        (1, "false"),
        (2, "true"),
        pytest.param(1, "true", marks=pytest.mark.slow),
        pytest.param(2, "false", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("prediction", ["velocity", "score", "noise"])
@pytest.mark.parametrize("kind", ["euler", "heun", "euler_maruyama"])
def test_samplers_of_interpolants(kind: str, prediction: str, guidance: int, learn_sigma: str) -> None:
    sampler = f"sampler={{kind: {kind}, steps: 5, guidance: {guidance}}}"
    check(
        small("tiny-sit-digits", sampler, f"objective.prediction={prediction}", f"backbone.learn_sigma={learn_sigma}")
    )


@pytest.mark.parametrize(
    ("guidance", "learn_sigma"),
    [(2, "true"), pytest.param(1, "true", marks=pytest.mark.slow), pytest.param(2, "false", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("prediction", ["velocity", "score", "noise"])
def test_the_adaptive_sampler_on_real_tensors(prediction: str, guidance: int, learn_sigma: str) -> None:
    """It looks at values to choose its steps, so it runs on the CPU."""
    changes = [f"sampler={{kind: dopri5, guidance: {guidance}}}", f"objective.prediction={prediction}"]
    check(small("tiny-sit-digits", *changes, f"backbone.learn_sigma={learn_sigma}", "backbone.depth=4"), kernel="cpu")


@pytest.mark.parametrize("kernel", ["efficient", "math"])
def test_other_precision_and_kernels(kernel: str) -> None:
    check(small("tiny-sit-digits", "sampler={kind: heun, steps: 5, guidance: 2}"), precision="bf16", kernel=kernel)


def test_temporal_blocks_and_joint_attention() -> None:
    check(small("tiny-latte", "sampler={kind: ddpm, steps: 5, guidance: 2}"))
    check(small("tiny-opendit-video", "sampler={kind: ddim, steps: 5}"))


@pytest.mark.parametrize(("kind", "more"), [("heun", 1), ("dopri5", 5)])
def test_a_step_counts_the_network_as_often_as_it_is_called(kind: str, more: int) -> None:
    sampler = "sampler={kind: heun, steps: 5}" if kind == "heun" else "sampler={kind: dopri5}"
    once = count(graph_from_spec(small("tiny-sit-digits"), "denoiser", Setting(batch=4))).forward_flops
    step = count(graph_from_spec(small("tiny-sit-digits", sampler), "sampler_step", Setting(batch=4))).forward_flops
    assert step == (1 + more) * once
