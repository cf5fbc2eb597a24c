"""What outlives a step: optimiser states and the moving average, and the peaks of updating them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sora_spec.graph.ir import Graph

AdamWKind = Literal["forloop", "foreach", "fused"]
"""PyTorch's three implementations: one parameter at a time (CPU), all at once (CUDA's default), one kernel."""


@dataclass(frozen=True)
class OptimizerMemory:
    """AdamW's bytes for the parameters of a graph. Moments and temporaries have the type of the parameters."""

    state_bytes: int
    """Both moments, and one float32 step counter for each parameter."""
    temporary_bytes: int
    """The most that a step allocates and frees again, above parameters, gradients and state."""


def optimizer_memory(graph: Graph, kind: AdamWKind) -> OptimizerMemory:
    """States and temporaries of `torch.optim.AdamW`.

    foreach: one list as large as all parameters, twice while the denominator is made of the square roots. For-loop: the
    same for one parameter at a time, two copies of the largest. Fused: nothing.
    """
    sizes = [(r.nbytes, graph.times(r.region)) for r in graph.residents if r.trained]
    total, count = sum(size * n for size, n in sizes), sum(n for _, n in sizes)
    state = 2 * total + 4 * count
    match kind:
        case "fused":
            return OptimizerMemory(state, 0)
        case "foreach":
            return OptimizerMemory(state, total)
        case "forloop":
            return OptimizerMemory(state, 2 * max((size for size, _ in sizes), default=0))


def average_memory(graph: Graph) -> int:
    """Bytes of the moving average of the parameters. Persistent buffers, which it copies too, are not counted."""
    return sum(r.nbytes * graph.times(r.region) for r in graph.residents if r.role == "parameter")
