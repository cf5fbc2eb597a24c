"""AdamW's peak by implementation, against a trace of `torch.optim.AdamW` itself on tensors without values."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.trace.memory_trace import MemoryTrace
from sora_spec.graph import graph_from_spec, memory
from sora_spec.graph.passes.state import AdamWKind
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.train.ema import MovingAverage
from tests.support.adamw import optimizer_memory

KINDS: tuple[AdamWKind, ...] = ("forloop", "foreach", "fused")
SPECS = ("tiny-dit", "tiny-latte", "tiny-sit-digits")


def module_with_gradients(spec: Spec) -> tuple[nn.Module, list[nn.Parameter], MemoryTrace]:
    """To be called under `FakeTensorMode`; the trace holds module and gradients."""
    module = build_denoiser(spec)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    trace = MemoryTrace()
    trace.hold([*module.parameters(), *module.buffers(), *(p.grad for p in trained if p.grad is not None)])
    return module, trained, trace


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*SPECS, "dit"])
def test_what_a_step_allocates(name: str, kind: AdamWKind) -> None:
    spec = load_spec(name)
    expected = optimizer_memory(graph_from_spec(spec, "denoiser_step"), kind)
    with FakeTensorMode():
        module, trained, trace = module_with_gradients(spec)
        optimizer = torch.optim.AdamW(trained, foreach=kind == "foreach", fused=kind == "fused")
        before = trace.live_bytes
        for _ in range(2):
            trace.peak_bytes = trace.live_bytes
            with trace:
                optimizer.step()
            assert trace.live_bytes - before == expected.state_bytes
            assert trace.peak_bytes - trace.live_bytes == expected.temporary_bytes
        del module  # its buffers are counted until here


@pytest.mark.parametrize("name", SPECS)
def test_clipping_and_averaging_stay_below_a_step(name: str) -> None:
    """A norm for every gradient; the average is a copy of the weights and is updated in place."""
    spec = load_spec(name)
    with FakeTensorMode():
        module, trained, trace = module_with_gradients(spec)
        gradients = [p.grad for p in trained if p.grad is not None]
        before = trace.live_bytes
        with trace:
            norm = torch.nn.utils.get_total_norm(gradients)
            torch.nn.utils.clip_grads_with_norm_(trained, 1.0, norm)
        assert trace.peak_bytes - before < 16 * len(trained) + 64
        del norm
        before = trace.live_bytes
        with trace:
            average = MovingAverage(module, 0.99, warmup=False)
        kept = trace.live_bytes - before
        buffers = sum(buffer.nbytes for name, buffer in module.state_dict().items() if name not in average._parameters)
        assert kept == memory(graph_from_spec(spec, "denoiser_step")).parameter_bytes + buffers
        trace.peak_bytes = trace.live_bytes
        with trace:
            average.update(1)
        assert trace.peak_bytes == trace.live_bytes


def test_a_loop_keeps_the_denominator_of_the_parameter_before() -> None:
    parameters = [nn.Parameter(torch.zeros(size)) for size in (100, 400, 300)]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(parameters, foreach=False)
    optimizer.step()
    trace = MemoryTrace()
    trace.hold([*parameters, *(moment for state in optimizer.state.values() for moment in state.values())])
    before = trace.live_bytes
    with trace:
        optimizer.step()
    assert trace.peak_bytes - before == 4 * (2 * 300 + 400)
