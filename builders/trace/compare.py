"""Predicted and traced side by side, and the first op at which they part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

import torch

from sora_spec.builders.trace.allocator import real_peak_bytes
from sora_spec.builders.trace.recorder import record
from sora_spec.graph import Component, Graph, Setting, count, graph_from_spec, memory
from sora_spec.graph.eager.tape import Op, YamlPath
from sora_spec.language.schema.spec import Spec

_REAL = 1e-4
"""How far the allocator's peak may be off: scalars of the framework, and buffers that depend on the threads at work."""
Shown = tuple[str, tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...], int, int, int]
"""Name, layouts of the results, bytes alive, FLOPs, and bytes of the operands."""


@dataclass(frozen=True)
class Row:
    """One quantity."""

    quantity: str
    predicted: int
    traced: int
    tolerance: float = 0.0
    """Share of the truth by which a prediction may be off: 0, but where kernels allocate what no trace sees."""

    @property
    def equal(self) -> bool:
        """Whether both are the same to the last digit, or within the tolerance."""
        return abs(self.predicted - self.traced) <= self.tolerance * self.traced


@dataclass(frozen=True)
class Divergence:
    """The first op at which prediction and trace differ."""

    index: int
    region: str
    yaml: YamlPath
    """Path of the YAML value that the op comes from."""
    predicted: str
    traced: str


@dataclass(frozen=True)
class Comparison:
    """The outcome for one component."""

    component: Component
    rows: tuple[Row, ...]
    divergence: Divergence | None

    @property
    def equal(self) -> bool:
        """Whether every quantity and every op agree."""
        return self.divergence is None and all(row.equal for row in self.rows)


def compare(spec: Spec, component: Component, setting: Setting) -> Comparison:
    """Predict with repeats, trace the real module, and compare; op by op against the prediction without repeats.

    The trace stands under a dispatch mode, which keeps PyTorch from making some sums in place; so does the prediction.
    """
    setting = replace(setting, observed=True)
    graph = graph_from_spec(spec, component, setting)
    traced = record(spec, component, setting).graph()
    full = graph if not graph.abridged else graph_from_spec(spec, component, replace(setting, full=True))
    return Comparison(component, tuple(_rows(graph, traced)), first_divergence(full, traced.ops))


def compare_on_cpu(spec: Spec, setting: Setting) -> Comparison:
    """A training step that really runs on this CPU, against what is predicted for its kernels and threads."""
    threads = torch.get_num_threads()
    setting = replace(setting, attention="cpu", threads=threads, fused_rms_norm=False, owned_inputs=False)
    held = memory(graph_from_spec(spec, "denoiser_step", setting))
    real = real_peak_bytes(spec, "denoiser_step", setting)
    row = Row("peak bytes of the allocator", held.peak_bytes - held.resident_bytes, real, _REAL)
    return Comparison("denoiser_step", (row,), None)


def _rows(predicted: Graph, traced: Graph) -> list[Row]:
    quantities = zip(_quantities(predicted).items(), _quantities(traced).values(), strict=True)
    return [Row(name, one, other) for (name, one), other in quantities]


def _quantities(graph: Graph) -> dict[str, int]:
    counts, held = count(graph), memory(graph, itemise=False)
    return {
        "parameters": counts.parameters,
        "forward FLOPs": counts.forward_flops,
        "backward FLOPs": counts.backward_flops,
        "bytes of parameters, buffers, inputs": held.resident_bytes,
        "bytes alive after forward": held.forward_live_bytes,
        "peak bytes of forward": held.forward_peak_bytes,
        "peak bytes": held.peak_bytes,
    }


def first_divergence(graph: Graph, ops: list[Op]) -> Divergence | None:
    """Walk both schedules. Strides of dimensions of size one say nothing and are not compared."""
    for index, (op, other) in enumerate(zip_longest(graph.ops, ops)):
        predicted, traced = _shown(op), _shown(other)
        if predicted != traced:
            region = op.region if op is not None else 0
            return Divergence(index, graph.label(region), graph.yaml(region), _show(predicted), _show(traced))
    return None


def _shown(op: Op | None) -> Shown | None:
    if op is None:
        return None
    layouts = tuple((shape, _places(shape, strides), kind.label) for _, shape, strides, kind in op.outputs)
    return (op.name, layouts, op.live_bytes, op.flops, op.read_bytes)


def _places(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True))


def _show(found: Shown | None) -> str:
    if found is None:
        return "nothing"
    name, layouts, live, flops, read = found
    results = ", ".join(f"{kind}{list(shape)} strides {list(strides)}" for shape, strides, kind in layouts)
    work = f", {flops:,} FLOPs" if flops else ""
    return f"{name} -> {results}; {live:,} bytes alive, {read:,} read{work}"
