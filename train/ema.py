"""The moving average of the weights, in fp32, on the same shards as the weights."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sora_spec.train.shards import local


class MovingAverage:
    """average ← decay·average + (1 − decay)·weights after every step; buffers are copied.

    Starts as a copy of the weights. With `warmup` the decay is min(decay, (1 + step)/(10 + step)), as in TensorFlow's
    ExponentialMovingAverage: otherwise a short run's average stays at its random start.
    """

    def __init__(self, module: nn.Module, decay: float, warmup: bool) -> None:
        self.module = module
        self.decay = decay
        self.warmup = warmup
        self._parameters = dict(module.named_parameters())
        self.average = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def decay_at(self, step: int) -> float:
        """Decay after update number `step`, counted from 1."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update number `step`, counted from 1."""
        weight = 1 - self.decay_at(step)
        for name, parameter in self._parameters.items():
            local(self.average[name]).lerp_(local(parameter.detach()), weight)
        self.copy_buffers()

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Take over what is not trained, such as measured statistics."""
        for name, live in self.module.state_dict().items():
            if name not in self._parameters:
                self.average[name].copy_(live)

    @contextmanager
    def in_place(self) -> Generator[None]:
        """Let the module have the averaged weights while the body runs, then its own again, bit for bit."""
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._overwrite(self.average)
        try:
            yield
        finally:
            self._overwrite(own)

    @torch.no_grad()
    def _overwrite(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            local(parameter.detach()).copy_(local(values[name]))
