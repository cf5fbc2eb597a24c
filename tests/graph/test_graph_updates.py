"""AdamW and the moving average against PyTorch's optimiser and the trainer's average, traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.adamw import adamw

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.trace.memory_trace import MemoryTrace
from sora_spec.graph import Setting, count, graph_from_spec, memory, verify
from sora_spec.graph.ir import Graph
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.train.ema import MovingAverage

SPECS = ["tiny-dit", "tiny-latte", "tiny-sit-digits", "dit"]


def traced_adamw(spec: Spec, kind: str) -> tuple[MemoryTrace, int]:
    """The second step of the real optimiser; in the first it makes its states."""
    with torch.device("meta"):
        network = build_denoiser(spec)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, foreach=kind == "foreach", fused=kind == "fused")
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for parameter in parameters:  # as the first step leaves them; on `meta` it cannot count its steps
        state = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        device = "meta" if kind == "fused" else "cpu"
        optimizer.state[parameter] = {"step": torch.ones((), device=device), **state}
    trace = MemoryTrace()
    states = [tensor for state in optimizer.state.values() for tensor in state.values()]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    resident = trace.hold([*parameters, *network.buffers(), *gradients, *states])
    with torch.no_grad(), trace:
        _adamw(parameters, gradients, optimizer, kind)
    return trace, resident


def _adamw(parameters: list[Any], gradients: list[Any], optimizer: torch.optim.AdamW, kind: str) -> None:
    """The function that `AdamW.step` calls, without what it does around it."""
    states = [optimizer.state[parameter] for parameter in parameters]
    adamw(
        parameters,
        gradients,
        *([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")),
        [],
        [state["step"] for state in states],
        foreach=kind == "foreach",
        fused=kind == "fused",
        amsgrad=False,
        beta1=0.9,
        beta2=0.95,
        lr=1e-4,
        weight_decay=0.01,
        eps=1e-8,
        maximize=False,
    )


@pytest.mark.parametrize("kind", ["forloop", "foreach", "fused"])
@pytest.mark.parametrize("name", SPECS)
def test_the_optimizer_s_allocations_and_peak(name: str, kind: Any) -> None:
    spec = load_spec(name)
    trace, resident = traced_adamw(spec, kind)
    graph = graph_from_spec(spec, "optimizer_step", Setting(optimizer=kind))
    verify(graph)
    held = memory(graph)
    assert (held.resident_bytes, held.peak_bytes) == (resident, trace.peak_bytes)
    whole = graph_from_spec(spec, "optimizer_step", Setting(optimizer=kind, full=True))
    assert memory(whole).peak_bytes == trace.peak_bytes
    # `lift_fresh` makes the number one on the host, with which the counters of steps are raised.
    events = [event for event in trace.ops if event.name != "lift_fresh"]
    made = [(op.name, op.outputs[0][1]) for op in whole.ops if op.outputs]
    assert made == [(event.name, shape) for event in events for _, shape, *_ in event.outputs]


def moved(graph: Graph) -> int:
    return sum(work.moved_bytes for work in count(graph).forward.values())


def test_bytes_that_an_update_moves() -> None:
    """Fused AdamW reads four values a parameter and writes three, and reads a counter a tensor; the average reads two
    and writes one."""
    spec = load_spec("dit")
    parameters = count(graph_from_spec(spec, "denoiser")).parameters
    graph = graph_from_spec(spec, "optimizer_step", Setting(optimizer="fused"))
    tensors = sum(graph.times(r.region) for r in graph.residents if r.role == "parameter")
    assert moved(graph) == 4 * 7 * parameters + 4 * tensors
    average = graph_from_spec(spec, "ema_step")
    kept = sum(r.nbytes for r in average.residents if r.role == "buffer" and r.persistent)
    assert moved(average) == 3 * (4 * parameters + kept)


@pytest.mark.parametrize("name", SPECS)
def test_the_average_allocates_nothing(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        network = build_denoiser(spec)
    average = MovingAverage(network, 0.99, warmup=False)
    trace = MemoryTrace()
    resident = trace.hold([*network.parameters(), *network.buffers(), *average.average.values()])
    with trace:
        average.update(2)
    graph = graph_from_spec(spec, "ema_step")
    held = memory(graph)
    assert (held.resident_bytes, held.peak_bytes) == (resident, trace.peak_bytes)
    assert trace.ops == []
