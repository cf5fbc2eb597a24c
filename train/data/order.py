"""Which clip is sample number n, and with which offset, crop and mirror: a function of the seed and n alone.

Sample n of a run is position `n mod batch` of step `n // batch`. Nothing here has a state, so that a resumed run, any
number of workers and any number of ranks see the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ORDER, _DRAW = 1, 2  # keeps the two streams of one seed apart


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, files: int) -> NDArray[np.int64]:
    return _generator(seed, _ORDER, epoch).permutation(files)


def file_of(seed: int, sample: int, files: int) -> int:
    """Index of the file that sample number `sample` comes from: each epoch is a permutation of all files."""
    epoch, position = divmod(sample, files)
    return int(_permutation(seed, epoch, files)[position])


def draws(seed: int, sample: int, attempt: int = 0) -> tuple[float, ...]:
    """Five numbers in [0, 1) for the sample: temporal offset, zoom, row, column, mirror."""
    return tuple(float(value) for value in _generator(seed, _DRAW, sample, attempt).random(5))


@dataclass(frozen=True)
class BatchOrder:
    """The micro-batches of one rank: lists of sample numbers, from step `first` up to `steps`.

    Rank r of W takes positions r·batch/W … (r+1)·batch/W of every global batch, in `accumulation` equal pieces.
    """

    batch: int
    steps: int
    first: int = 0
    rank: int = 0
    ranks: int = 1
    accumulation: int = 1

    @property
    def micro_batch(self) -> int:
        """Samples of one forward pass."""
        return self.batch // (self.ranks * self.accumulation)

    def positions(self, micro: int) -> range:
        """Positions in the global batch of this rank's micro-batch number `micro`."""
        begin = self.rank * (self.batch // self.ranks) + micro * self.micro_batch
        return range(begin, begin + self.micro_batch)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.steps):
            for micro in range(self.accumulation):
                yield [step * self.batch + position for position in self.positions(micro)]

    def __len__(self) -> int:
        return max(0, self.steps - self.first) * self.accumulation
