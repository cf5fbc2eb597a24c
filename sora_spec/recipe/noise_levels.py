"""Which noise levels a discrete diffusion has, and which of them a sampler visits: arithmetic without numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sora_spec.language.schema.objective import Ddpm

FIRST_BETA, LAST_BETA, PUBLISHED_STEPS = 1e-4, 0.02, 1000
"""The linear schedule of arXiv 2006.11239, over so many steps."""


def beta_ends(objective: Ddpm) -> tuple[float, float]:
    """First and last beta of the linear schedule.

    Those that the spec leaves out are 1e-4 and 0.02 times 1000/steps, so that any number of steps adds about the same
    noise in all (ADM's, DiT's and Open-Sora's `get_named_beta_schedule`). Below 21 steps the last one reaches 1.
    """
    scale = PUBLISHED_STEPS / objective.steps
    first, last = objective.beta_start, objective.beta_end
    return scale * FIRST_BETA if first is None else first, scale * LAST_BETA if last is None else last


def fixed_stride(total: int, count: int) -> int | None:
    """The smallest stride by which `range(0, total, stride)` has `count` members (ADM's `ddimN`), if there is one."""
    if not 1 <= count <= total:
        return None
    stride = -(-total // count)  # the smallest that gives no more than `count`
    return stride if -(-total // stride) == count and stride < total else None


def counts_by_stride(total: int, near: int) -> list[int]:
    """Numbers of steps that a fixed stride gives, the closest to `near` first."""
    counts = {-(-total // stride) for stride in range(1, total)}
    return sorted(counts, key=lambda count: (abs(count - near), count))
