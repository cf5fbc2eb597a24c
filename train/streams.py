"""Random streams without a state: every draw of a run follows from the seed, the stream's name and the sample's number.

Nothing has to be saved to resume, and a sample gets the same noise whatever the micro-batches and ranks are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def seed_of(seed: int, stream: str, number: int = 0) -> int:
    """63 bits for one stream of one seed at one place."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(seed: int, name: str, number: int = 0) -> torch.Generator:
    """The generator of stream `name` at `number`, a step or a sample. On the CPU: every device sees the same."""
    return torch.Generator().manual_seed(seed_of(seed, name, number))


def normal(seed: int, name: str, samples: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal draws (B, *shape), one stream per sample number."""
    return torch.stack([torch.randn(tuple(shape), generator=stream(seed, name, sample)) for sample in samples])


@contextmanager
def seeded(seed: int, name: str) -> Generator[None]:
    """Let torch's global stream follow from the seed while a module is initialised, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, name))
        yield
