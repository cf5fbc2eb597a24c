"""Tiling over torch."""

from __future__ import annotations

import torch

from sora_spec.builders.vae.tiling import Array, Canvases


class TorchCanvases:
    """`Canvases` over torch."""

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        """See `Canvases.empty`."""
        return like.new_empty(shape)

    def ramp(self, count: int, like: Array) -> Array:
        """See `Canvases.ramp`."""
        return torch.arange(1, count + 1, dtype=like.dtype, device=like.device) / (count + 1)

    def contiguous(self, x: Array) -> Array:
        """See `Canvases.contiguous`."""
        return x.contiguous()


TORCH: Canvases = TorchCanvases()
