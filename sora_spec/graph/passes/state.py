"""What an update of the weights allocates beside what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

AdamWKind = Literal["forloop", "foreach", "fused"]
"""PyTorch's three implementations: one parameter at a time (CPU), all at once (CUDA's default), one kernel."""


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
