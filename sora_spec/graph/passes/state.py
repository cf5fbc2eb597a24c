"""What outlives a step: optimiser states and the moving average, and the peaks of updating them."""

from __future__ import annotations

from collections.abc import Sequence
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
    """States and temporaries of `torch.optim.AdamW`."""
    sizes = [(r.nbytes, graph.times(r.region)) for r in graph.residents if r.trained]
    total, count = sum(size * n for size, n in sizes), sum(n for _, n in sizes)
    return OptimizerMemory(2 * total + 4 * count, adamw_temporary_bytes(sizes, kind))


def adamw_temporary_bytes(sizes: Sequence[tuple[int, int]], kind: AdamWKind) -> int:
    """What a step allocates and frees again, for parameters of these bytes, each so many times, in their order.

    foreach: the square roots of all second moments, from which the denominators are made in place. For-loop: root and
    denominator of one parameter, while the denominator of the one before is still there. Fused: nothing. Clipping
    allocates a norm for every tensor and none of their size; the moving average is updated in place.
    """
    match kind:
        case "fused":
            return 0
        case "foreach":
            return sum(size * times for size, times in sizes)
        case "forloop":
            before = [0, *(size for size, _ in sizes)]
            return max((2 * size + last for (size, _), last in zip(sizes, before, strict=False)), default=0)


def average_memory(graph: Graph) -> int:
    """Bytes of the moving average of the parameters. Persistent buffers, which it copies too, are not counted."""
    return sum(r.nbytes * graph.times(r.region) for r in graph.residents if r.role == "parameter")
