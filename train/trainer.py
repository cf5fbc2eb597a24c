"""One optimiser step: forward and backward over the micro-batches, clipping, AdamW, the moving average."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sora_spec.errors import UserError
from sora_spec.train.checkpoint import Trained
from sora_spec.train.data.loader import Batch
from sora_spec.train.data.order import BatchOrder
from sora_spec.train.ema import MovingAverage
from sora_spec.train.optimizer import build_adamw, clip_gradients
from sora_spec.train.ranks import Ranks
from sora_spec.train.schedule import learning_rate
from sora_spec.train.task import Task


class NotFiniteError(Exception):
    """Loss or gradient is infinite or not a number; the weights have not been touched."""


@dataclass(frozen=True)
class StepResult:
    """What one step gave: terms are means over the global batch."""

    terms: dict[str, float]
    grad_norm: float
    lr: float
    data_seconds: float
    seconds: float
    """Of the whole step, waiting for data included."""


class Trainer:
    """Module, optimiser and average of a task."""

    def __init__(self, task: Task, ranks: Ranks) -> None:
        settings = task.settings
        self.task, self.ranks, self.settings = task, ranks, settings
        task.module.train()
        average = None
        if settings.own.ema > 0:
            on_host = settings.train.ema_device == "cpu"
            average = MovingAverage(task.module, settings.own.ema, settings.train.ema_warmup, on_host)
        # Under offload the weights are not where the module runs.
        place = next(task.module.parameters()).device
        self.trained = Trained(task.module, build_adamw(task.module, settings.own.optimizer, place), average)

    def order(self, first: int) -> BatchOrder:
        """This rank's micro-batches from update `first` on. Raises UserError when the batch cannot be split evenly."""
        batch, world, accumulation = self.settings.own.batch, self.ranks.world, self.settings.accumulation
        if batch % (world * accumulation):
            raise UserError(
                f"a batch of {batch} clips cannot be split over {world} ranks × {accumulation} passes",
                "make the batch a multiple of ranks × accumulation",
            )
        return BatchOrder(batch, self.settings.own.steps, first, self.ranks.rank, world, accumulation)

    def step(self, step: int, batches: Iterator[Batch], order: BatchOrder) -> StepResult:
        """Update number `step`, counted from 0. Raises NotFiniteError before the weights change."""
        begin = time.perf_counter()
        optimizer = self.trained.optimizer
        lr = learning_rate(self.settings.own, step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        data_seconds, terms = 0.0, dict[str, float]()
        for micro in range(self.settings.accumulation):
            waiting = time.perf_counter()
            batch = next(batches)
            data_seconds += time.perf_counter() - waiting
            for name, value in self._backward(batch, step, order.positions(micro)).items():
                terms[name] = terms.get(name, 0.0) + value / self.settings.accumulation
        terms = dict(zip(terms, self.ranks.mean(list(terms.values())), strict=True))
        limit = self.settings.own.clip_grad if step >= self.settings.clip_grad_from else None
        norm = clip_gradients(self.trained.module, limit)
        if not (math.isfinite(terms["loss"]) and math.isfinite(norm)):
            raise NotFiniteError(f"the loss is {terms['loss']:g} and the gradient's norm {norm:g}")
        optimizer.step()
        if self.trained.average is not None:
            self.trained.average.update(step + 1)
        return StepResult(terms, norm, lr, data_seconds, time.perf_counter() - begin)

    def _backward(self, batch: Batch, step: int, positions: Sequence[int]) -> dict[str, float]:
        """Add a micro-batch's share to the gradients: micro-batches are of one size, so their mean is the batch's."""
        terms = self.task.terms(batch, step, positions)
        (terms["loss"] / self.settings.accumulation).backward()
        names, values = list(terms), torch.stack([value.detach().float() for value in terms.values()])
        return dict(zip(names, values.tolist(), strict=True))
