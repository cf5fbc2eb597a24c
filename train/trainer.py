"""One optimiser step: forward and backward over the micro-batches, clipping, AdamW, the moving average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sora_spec.errors import UserError
from sora_spec.train.batch import Batch, to_device
from sora_spec.train.checkpoint import Trained
from sora_spec.train.data.order import BatchOrder
from sora_spec.train.ema import MovingAverage
from sora_spec.train.launched import Launched, Moment, moment
from sora_spec.train.optimizer import build_adamw, clip_gradients
from sora_spec.train.ranks import Ranks
from sora_spec.train.schedule import learning_rate
from sora_spec.train.task import Task, Terms


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

    def step(self, step: int, batches: Iterator[Batch], order: BatchOrder) -> Launched:
        """Give the device update number `step`, counted from 0. Nothing here waits for it."""
        device, own, optimizer = self.ranks.device, self.settings.own, self.trained.optimizer
        begin, waits, shares = moment(device), list[Moment](), list[Terms]()
        lr = learning_rate(own, step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        for micro in range(self.settings.accumulation):
            waits.append(moment(device))
            batch = next(batches)
            waits.append(moment(device))
            shares.append(self._backward(batch, step, order.positions(micro)))
        norm = clip_gradients(self.trained.module, own.clip_grad if step >= self.settings.clip_grad_from else None)
        optimizer.step()
        if self.trained.average is not None:
            self.trained.average.update(step + 1)
        names, means = self._means(shares)
        values = torch.cat([means, to_device(norm, device).double().view(1)])
        return Launched(names, values, lr, (begin, moment(device), *waits))

    def _backward(self, batch: Batch, step: int, positions: Sequence[int]) -> Terms:
        """Add a micro-batch's share to the gradients: micro-batches are of one size, so their mean is the batch's."""
        terms = self.task.terms(batch, step, positions)
        (terms["loss"] / self.settings.accumulation).backward()
        return {name: value.detach() for name, value in terms.items()}

    def _means(self, shares: Sequence[Terms]) -> tuple[tuple[str, ...], Tensor]:
        """Names of the terms, and their means over the global batch, float64."""
        stacked = [torch.stack([value.float() for value in share.values()]).double() for share in shares]
        total = torch.zeros_like(stacked[0])
        for values in stacked:
            total = total + values / self.settings.accumulation
        return tuple(shares[0]), self.ranks.mean(total)
