"""AdamW's bytes for the parameters of a graph, in closed form."""

from __future__ import annotations

from typing import NamedTuple

from sora_spec.graph import Graph
from sora_spec.graph.passes.state import AdamWKind, adamw_temporary_bytes


class OptimizerMemory(NamedTuple):
    """Moments and temporaries have the type of the parameters."""

    state_bytes: int
    """Both moments, and one float32 step counter for each parameter."""
    temporary_bytes: int
    """The most that a step allocates and frees again, above parameters, gradients and state."""


def optimizer_memory(graph: Graph, kind: AdamWKind) -> OptimizerMemory:
    """States and temporaries of `torch.optim.AdamW`."""
    sizes = [(r.nbytes, graph.times(r.region)) for r in graph.residents if r.trained]
    total, count = sum(size * n for size, n in sizes), sum(n for _, n in sizes)
    return OptimizerMemory(2 * total + 4 * count, adamw_temporary_bytes(sizes, kind))
