"""Noise that belongs to a sample and not to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sora_spec.errors import UserError

_WORD = 2**64
SAMPLING, DECODING = 0, 1
"""Lanes: the sampler's noise, and that of a decoder which samples too. What one draws does not move the other's."""


class NoiseStream:
    """Standard normal draws for the samples `indices` of one seed, one counter-based Philox stream per sample.

    The stream of a sample is keyed by (seed, index) alone, and its lane is where its 256-bit counter starts. So its
    k-th draw is the same in whatever batch it is made, and the same for every executor. It is the same on every machine
    as far as numpy keeps its normal sampler, which it does within a release and has done since 1.17.

    Args:
        seed: any 64-bit unsigned number.
        indices: number of each sample within the run; the batch size is their count.
        shape: shape of one sample, (C, F, H, W).
        lane: whose noise it is; 2^192 draws lie between two lanes.

    Raises UserError: the seed or an index does not fit an unsigned 64-bit word.
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: Sequence[int], lane: int = SAMPLING) -> None:
        for name, value in (("seed", seed), *(("sample index", index) for index in indices)):
            if not 0 <= value < _WORD:
                raise UserError(f"{name} {value} is outside 0..2^64-1", "choose a non-negative 64-bit integer")
        keys = (np.array([seed, index], np.uint64) for index in indices)
        start = np.array([0, 0, 0, lane], np.uint64)
        self._generators = [np.random.Generator(np.random.Philox(key=key, counter=start)) for key in keys]
        self._shape = tuple(shape)
        self._initial: NDArray[np.float32] | None = None

    def draw(self) -> NDArray[np.float32]:
        """The next draw of every sample: (B, *shape)."""
        noise = np.empty((len(self._generators), *self._shape), np.float32)
        for generator, out in zip(self._generators, noise, strict=True):
            generator.standard_normal(dtype=np.float32, out=out)
        if self._initial is None:
            self._initial = noise
        return noise

    @property
    def initial(self) -> NDArray[np.float32]:
        """The first draw, where a sampler starts. Taking it counts as a draw: the next `draw()` is the second."""
        return self.draw() if self._initial is None else self._initial
