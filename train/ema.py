"""The moving average of the weights, in fp32, on the same shards as the weights, beside them or in host memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sora_spec.train.shards import local, on_host, reshard


class MovingAverage:
    """average ← decay·average + (1 − decay)·weights after every step; buffers are copied.

    Starts as a copy of the weights. With `warmup` the decay is min(decay, (1 + step)/(10 + step)), as in TensorFlow's
    ExponentialMovingAverage: otherwise a short run's average stays at its random start.

    `on_host`: keep it in host memory, where it is updated too; a copy of the weights goes there, one at a time.
    """

    def __init__(self, module: nn.Module, decay: float, warmup: bool, on_host: bool = False) -> None:
        self.module = module
        self.decay = decay
        self.warmup = warmup
        self.on_host = on_host
        self._parameters = dict(module.named_parameters())
        self.average = {name: self._copied(tensor) for name, tensor in module.state_dict().items()}

    def _copied(self, tensor: Tensor) -> Tensor:
        """A copy where the average is kept."""
        return on_host(tensor) if self.on_host else tensor.detach().clone()

    def decay_at(self, step: int) -> float:
        """Decay after update number `step`, counted from 1."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update number `step`, counted from 1."""
        weight = 1 - self.decay_at(step)
        for name, parameter in self._parameters.items():
            average = local(self.average[name])
            average.lerp_(local(parameter.detach()).to(average.device), weight)
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
        own = {name: self._copied(parameter) for name, parameter in self._parameters.items()}
        self._overwrite(self.average)
        try:
            yield
        finally:
            self._overwrite(own)

    @torch.no_grad()
    def _overwrite(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            local(parameter.detach()).copy_(local(values[name]))
        # FSDP2 keeps the root gathered after a forward pass, and would go on with the weights of before.
        reshard(self.module)
