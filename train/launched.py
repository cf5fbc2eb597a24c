"""A step that was given to the device, which may still be at work on it, and its numbers once they are here."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Moment: TypeAlias = float | torch.cuda.Event
"""A point in time: of this process's clock, or in the queue of a GPU, where it is known once the GPU has come by."""


class NotFiniteError(Exception):
    """Loss or gradient is infinite or not a number; no checkpoint may be made of the weights."""


@dataclass(frozen=True)
class StepResult:
    """What one step gave: terms are means over the global batch."""

    terms: dict[str, float]
    grad_norm: float
    lr: float
    data_seconds: float
    seconds: float
    """Of the whole step, waiting for data included."""


@dataclass(frozen=True)
class Launched:
    """One optimiser step, given to the device."""

    names: tuple[str, ...]
    values: Tensor
    """Float64, on the device: each of the terms `names`, then the norm of the gradients."""
    lr: float
    moments: tuple[Moment, ...]
    """Begin and end of the step, then of each wait for data."""

    def result(self, values: Sequence[float] | None = None) -> StepResult:
        """The numbers of `values`, or those of the device, which is waited for. Raises NotFiniteError."""
        *means, norm = self.values.tolist() if values is None else values
        terms = dict(zip(self.names, means, strict=True))
        if not (math.isfinite(terms["loss"]) and math.isfinite(norm)):
            raise NotFiniteError(f"the loss is {terms['loss']:g} and the gradient's norm {norm:g}")
        seconds, *waits = [_seconds(*pair) for pair in zip(self.moments[::2], self.moments[1::2], strict=True)]
        return StepResult(terms, norm, self.lr, sum(waits), seconds)


class HostCopy:
    """Numbers on their way to host memory; what the device is given later does not delay them."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrival = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def read(self) -> list[float]:
        """The numbers; waits until they are here."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._values.tolist()


def moment(device: torch.device) -> Moment:
    """Now: on a GPU, when it has done what it was given so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(begin: Moment, end: Moment) -> float:
    if isinstance(begin, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        end.synchronize()
        return begin.elapsed_time(end) / 1000
    assert isinstance(end, float)
    return end - begin
