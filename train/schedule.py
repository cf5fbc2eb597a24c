"""The learning rate of every step."""

from __future__ import annotations

import math

from sora_spec.train.settings import Settings


def learning_rate(settings: Settings, step: int) -> float:
    """Rate of update number `step`, counted from 0.

    Warm-up: (step + 1)/warmup of the peak, so that the first update is not lost at zero. Then constant, or a half
    cosine that would reach zero at `steps`.
    """
    peak = settings.optimizer.lr
    if step < settings.warmup:
        return peak * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return peak
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
