"""`Arrays` over torch: any device, no synchronisation except in `rms`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sora_spec.builders.diffusion.arrays import Array, Arrays


class TorchArrays:
    """`Arrays` over torch."""

    def full(self, value: float, like: Array) -> Array:
        """See `Arrays.full`."""
        return torch.full((like.shape[0],), value, dtype=torch.float32, device=like.device)

    def labels(self, value: int, like: Array) -> Array:
        """See `Arrays.labels`."""
        return torch.full((like.shape[0],), value, dtype=torch.int64, device=like.device)

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        """See `Arrays.concat`."""
        return torch.cat(list(parts), axis)

    def cast(self, x: Array, like: Array) -> Array:
        """See `Arrays.cast`."""
        return x.to(like.dtype)

    def exp(self, x: Array) -> Array:
        """See `Arrays.exp`."""
        return torch.exp(x)

    def maximum(self, a: Array, b: Array) -> Array:
        """See `Arrays.maximum`."""
        return torch.maximum(a, b)

    def rms(self, x: Array) -> float:
        """See `Arrays.rms`."""
        return float(x.square().mean().sqrt())


TORCH: Arrays = TorchArrays()
