"""The learning rate of every step."""

from __future__ import annotations

import math

from sora_spec.train.settings import Optimisation


def learning_rate(optimisation: Optimisation, step: int) -> float:
    """Rate of update number `step`, counted from 0.

    Warm-up: (step + 1)/warmup of the peak, so that the first update is not lost at zero. Then constant, or a half
    cosine that would reach zero at `steps`.
    """
    peak = optimisation.optimizer.lr
    if step < optimisation.warmup:
        return peak * (step + 1) / optimisation.warmup
    if optimisation.schedule == "constant":
        return peak
    progress = (step - optimisation.warmup) / max(1, optimisation.steps - optimisation.warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
