"""The few array functions that operators do not cover, so that one sampler and one tiling serve numpy and torch alike.

Everything else in them works through `+ - * /`, `abs` and slicing, with plain Python floats as coefficients:
a numpy scalar would turn float32 latents into float64 (NEP 50), a Python float never does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any
"""A numpy array or a torch tensor; one run uses one kind throughout."""

Network: TypeAlias = Callable[..., Array]
"""`network(latents (b, C, F, H, W), time (b,) float32, *condition.inputs()) -> (b, C or 2·C, F, H, W)`."""

Draw: TypeAlias = Callable[[], Array]
"""Fresh standard normal noise in the shape of the latents."""


@dataclass
class Step:
    """Where a sampler is: one object for all of its steps, so that no earlier latents are kept alive.

    Between two steps other latents may be put: the sampler goes on from these.
    """

    latents: Array
    """(B, C, F, H, W), as far as they have come."""
    time: float
    """The time reached: 1 is data for interpolants; of discrete diffusions the training step, −1 is data."""
    index: int = -1
    """Number of the step taken last, from 0."""

    def reached(self, time: float) -> Step:
        """The same, one step further."""
        self.time, self.index = time, self.index + 1
        return self


class Arrays(Protocol):
    """What samplers and tiles ask of an array library, whose arrays lie on one device."""

    def from_host(self, value: NDArray[Any]) -> Array:
        """`value` on the device; the one way there. It need not be there yet when this returns."""
        ...

    def to_host(self, x: Array) -> NDArray[Any]:
        """`x` in the host's memory; the one way back."""
        ...

    def contiguous(self, x: Array, dtype: str | None = None) -> Array:
        """`x` in row-major order; as `float32` or `int64` where a graph takes it."""
        ...

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        """An array without values, in the type of `like` and on its device."""
        ...

    def ramp(self, count: int, like: Array) -> Array:
        """1/(count + 1), 2/(count + 1), …, count/(count + 1): (count,), in the type of `like` and on its device."""
        ...

    def full(self, value: float, like: Array) -> Array:
        """A float32 vector (B,) of `value`, one entry per sample of `like`, on its device."""
        ...

    def labels(self, value: int, like: Array) -> Array:
        """An int64 vector (B,) of `value`, one entry per sample of `like`, on its device."""
        ...

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        """`parts` joined along `axis`."""
        ...

    def cast(self, x: Array, like: Array) -> Array:
        """`x` in the dtype of `like`: a half-precision network must not lower the precision of the integration."""
        ...

    def exp(self, x: Array) -> Array:
        """Elementwise exponential."""
        ...

    def maximum(self, a: Array, b: Array) -> Array:
        """Elementwise maximum."""
        ...

    def rms(self, x: Array) -> float:
        """Root of the mean square over all entries."""
        ...


class NumpyArrays:
    """`Arrays` over numpy: the host is the device, and nothing is copied."""

    def from_host(self, value: NDArray[Any]) -> Array:
        return value

    def to_host(self, x: Array) -> NDArray[Any]:
        return x

    def contiguous(self, x: Array, dtype: str | None = None) -> Array:
        return np.ascontiguousarray(x, dtype)

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return np.empty(shape, like.dtype)

    def ramp(self, count: int, like: Array) -> Array:
        return np.arange(1, count + 1, dtype=like.dtype) / (count + 1)

    def full(self, value: float, like: Array) -> Array:
        return np.full(like.shape[0], value, np.float32)

    def labels(self, value: int, like: Array) -> Array:
        return np.full(like.shape[0], value, np.int64)

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        return np.concatenate(parts, axis)

    def cast(self, x: Array, like: Array) -> Array:
        return x.astype(like.dtype, copy=False)

    def exp(self, x: Array) -> Array:
        return np.exp(x)

    def maximum(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)

    def rms(self, x: Array) -> float:
        return float(np.sqrt(np.mean(np.square(x))))


NUMPY: Arrays = NumpyArrays()
