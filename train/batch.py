"""One micro-batch as it leaves the data: clips in pixels, or latents that a VAE made of them before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """`frames` (B, T, Y, X, 3) uint8, `labels` (B,) int64, and what was damaged on the way."""

    frames: Tensor
    labels: Tensor
    damaged: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    """One for each clip where the condition is text; none elsewhere."""

    def video(self, device: torch.device) -> Tensor:
        """The clips as (B, 3, T, Y, X) float32 in [-1, 1] on `device`."""
        return to_device(self.frames, device).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1.0).contiguous()


@dataclass(frozen=True)
class Latents:
    """The posterior of each clip, unscaled, `mean` and `logvar` (B, C, F, H, W) float32, and `labels` (B,) int64.

    Not a draw of it: a clip is drawn anew each time that it is seen.
    """

    mean: Tensor
    logvar: Tensor
    labels: Tensor
    captions: tuple[str, ...] = ()
    """As of `Pixels`."""


Batch: TypeAlias = Pixels | Latents


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of host memory on `device`, not waited for: a GPU copies by itself from pinned memory alone."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
