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

    def allocate(self, shape: Sequence[int], dtype: str) -> Array:
        """An array without values on the device, for the output of a graph."""
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=self.device)

    def from_host(self, value: NDArray[Any]) -> Array:
        """See `Arrays.from_host`. To a GPU it goes from pinned memory, behind what the stream has to do."""
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def to_host(self, x: Array) -> NDArray[Any]:
        return x.cpu().numpy()

    def contiguous(self, x: Array, dtype: str | None = None) -> Array:
        return (x if dtype is None else x.to(getattr(torch, dtype))).contiguous()

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return like.new_empty(shape)

    def ramp(self, count: int, like: Array) -> Array:
        return torch.arange(1, count + 1, dtype=like.dtype, device=like.device) / (count + 1)

    def full(self, value: float, like: Array) -> Array:
        return torch.full((like.shape[0],), value, dtype=torch.float32, device=like.device)

    def labels(self, value: int, like: Array) -> Array:
        return torch.full((like.shape[0],), value, dtype=torch.int64, device=like.device)

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        return torch.cat(list(parts), axis)

    def cast(self, x: Array, like: Array) -> Array:
        return x.to(like.dtype)

    def exp(self, x: Array) -> Array:
        return torch.exp(x)

    def maximum(self, a: Array, b: Array) -> Array:
        return torch.maximum(a, b)

    def rms(self, x: Array) -> float:
        return float(x.square().mean().sqrt())


TORCH: Arrays = TorchArrays(torch.device("cpu"))
