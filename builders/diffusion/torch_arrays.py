"""`Arrays` over torch: any device, no synchronisation except in `to_host` and `rms`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sora_spec.builders.diffusion.arrays import Array, Arrays


@dataclass(frozen=True)
class TorchArrays:
    """`Arrays` over torch, on `device`."""

    device: torch.device

    @property
    def stream(self) -> int:
        """Handle of the CUDA stream that the arrays are computed in; 0 on the CPU."""
        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0

    def synchronize(self) -> None:
        """Wait until everything that was asked for is computed."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def empty(self, shape: Sequence[int], dtype: str) -> Array:
        """An array without values."""
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=self.device)

    def from_host(self, value: NDArray[Any]) -> Array:
        """See `Arrays.from_host`."""
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.device)

    def to_host(self, x: Array) -> NDArray[Any]:
        """See `Arrays.to_host`."""
        return x.cpu().numpy()

    def contiguous(self, x: Array, dtype: str) -> Array:
        """See `Arrays.contiguous`."""
        return x.to(getattr(torch, dtype)).contiguous()

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


TORCH: Arrays = TorchArrays(torch.device("cpu"))
