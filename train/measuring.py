"""What a run really takes, beside what its plan said: `measured.json` of a stage folder.

On a GPU the allocator keeps count. On a CPU nothing does, so one early step runs under the profiler, whose allocator
events say how far that step rises above what was alive before it; the resident set of the process would count
libraries and what the C library holds back. Watching changes no bit of the training.
"""

from __future__ import annotations

import json
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sora_spec.builders.trace.allocator import watched
from sora_spec.disk.run_folder import StageFolder, write_atomically
from sora_spec.plan.amounts import whole
from sora_spec.plan.interval import Interval
from sora_spec.train.launched import Launched, StepResult
from sora_spec.train.preflight import Preflight
from sora_spec.train.trainer import Trainer

CONTRACT = 1
"""Version of the form, which `sora_spec.disk.run_folder` describes."""
_NEWEST = 512  # steps whose times are kept
_WARM = 2  # steps at the beginning whose times say little: the first, and the one under the profiler


class Measurement:
    """Watches the steps of one process.

    `remaining`: steps that this process will make. The second is measured, as the first one of a run finds the
    optimiser without a state; where there is no second, the first.
    """

    def __init__(self, trainer: Trainer, found: Preflight, remaining: int) -> None:
        self.trainer, self.found = trainer, found
        self.cuda = trainer.ranks.device.type == "cuda"
        self.chosen = min(2, remaining)
        self.begun = self.made = 0
        self.of_step: int | None = None
        self.peak_bytes: int | None = None
        self.seconds: deque[float] = deque(maxlen=_NEWEST)
        self.waits: deque[float] = deque(maxlen=_NEWEST)

    @property
    def settled(self) -> bool:
        """Whether there is something to tell for the first time: memory, and the time of a warm step."""
        return self.made == _WARM + 1

    def step(self, number: int, make: Callable[[], Launched]) -> Launched:
        """Make step `number`, counted from 1, and look at its memory."""
        self.begun += 1
        if self.begun == self.chosen and not self.cuda and self.trainer.ranks.is_main:
            # The step begins so itself; done before, the profiler need not complain of memory that it never saw.
            self.trainer.trained.optimizer.zero_grad(set_to_none=True)
            held = resident_bytes(self.trainer)
            found = watched(make)
            self.of_step, self.peak_bytes = number, held + found.most
            return found.result
        return make()

    def note(self, result: StepResult) -> None:
        """Take in the time of a step that has ended."""
        if self.made >= _WARM or not self.seconds:
            if self.made <= _WARM:
                self.seconds.clear()
                self.waits.clear()
            self.seconds.append(result.seconds - result.data_seconds)
            self.waits.append(result.data_seconds)
        self.made += 1

    def values(self, status: str, step: int) -> dict[str, Any]:
        """What `measured.json` holds after `step` optimiser steps."""
        plan = self.found.plan
        allocated, reserved = (plan.allocated, plan.reserved) if plan else (None, None)
        if not self.cuda:
            allocated, reserved = self.found.step_allocated, None
        return {
            "contract": CONTRACT,
            "status": status,
            "step": step,
            "device": self.found.device.title,
            "memory": {
                "scope": "run" if self.cuda else "step",
                "of_step": self.of_step,
                "allocated_bytes": self._cuda_bytes(torch.cuda.max_memory_allocated) if self.cuda else self.peak_bytes,
                "reserved_bytes": self._cuda_bytes(torch.cuda.max_memory_reserved) if self.cuda else None,
                "predicted_allocated_bytes": None if allocated is None else whole(allocated),
                "predicted_reserved_bytes": None if reserved is None else whole(reserved),
            },
            "time": {
                "step_seconds": statistics.median(self.seconds) if self.seconds else None,
                "data_seconds": statistics.median(self.waits) if self.waits else None,
                "steps": len(self.seconds),
                "predicted_step_seconds": None if plan is None else _spread(plan.times.step.seconds),
            },
        }

    def _cuda_bytes(self, read: Callable[[torch.device], int]) -> int:
        return read(self.trainer.ranks.device)

    def write(self, folder: StageFolder, status: str, step: int) -> None:
        """Renew `measured.json`."""
        write_atomically(folder.measured_path, json.dumps(self.values(status, step), indent=2) + "\n")


def _spread(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "likely": interval.likely, "high": interval.high}


def resident_bytes(trainer: Trainer) -> int:
    """Bytes that are alive throughout a step: what is trained, its optimiser's state and average, the frozen parts."""
    module, trained = trainer.task.module, trainer.trained
    state = [value for values in trained.optimizer.state.values() for value in values.values()]
    average = [] if trained.average is None else trained.average.average.values()
    tensors = [*module.parameters(), *module.buffers(), *state, *average, *trainer.task.held()]
    return storage_bytes(tensor for tensor in tensors if isinstance(tensor, Tensor))


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind tensors, each counted once; of a sharded tensor this rank's part."""
    storages: dict[int, int] = {}
    for tensor in tensors:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
