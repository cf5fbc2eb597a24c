"""What a phase holds: named bytes with their certainty, the YAML value they come from, and who counts them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sora_spec.plan.interval import Interval, exactly, total

Tag = Literal["exact", "documented", "estimated"]
"""Proven against PyTorch's own trace; published by PyTorch or NVIDIA; a guess from measurements of others."""
Level = Literal["allocated", "reserved", "device"]
"""`torch.cuda.max_memory_allocated` counts the first, `…_reserved` the first two, `nvidia-smi` all three."""

MIB = 2**20


class Term(NamedTuple):
    """One contribution to a phase."""

    name: str
    bytes: Interval
    tag: Tag
    path: str
    """Dotted path of the YAML value that it comes from; empty for what no spec decides."""
    level: Level = "allocated"


@dataclass(frozen=True)
class Phase:
    """A stretch of a job in which the same things are in memory."""

    name: str
    terms: tuple[Term, ...]
    host_terms: tuple[Term, ...] = ()
    """What lies in host memory while the device is another one; in no sum of the device's."""

    def bytes(self, *levels: Level) -> Interval:
        """Sum over the terms that are counted at these levels."""
        return total(term.bytes for term in self.terms if term.level in levels)

    @property
    def allocated(self) -> Interval:
        """Bytes of tensors and of workspaces that come from PyTorch's allocator."""
        return self.bytes("allocated")

    @property
    def reserved(self) -> Interval:
        """Bytes that PyTorch's allocator holds."""
        return self.bytes("allocated", "reserved")

    @property
    def device(self) -> Interval:
        """Bytes that are gone from the device."""
        return self.bytes("allocated", "reserved", "device")

    @property
    def host(self) -> Interval:
        """Bytes of host memory that weights, optimiser states and the average take there."""
        return total(term.bytes for term in self.host_terms)


def exact(name: str, nbytes: float, path: str) -> Term:
    """A term that is known to the byte."""
    return Term(name, exactly(nbytes), "exact", path)


def documented(name: str, nbytes: Interval | float, path: str = "") -> Term:
    """A term that someone has published."""
    return Term(name, nbytes if isinstance(nbytes, Interval) else exactly(nbytes), "documented", path)


def estimated(name: str, low: float, likely: float, high: float, path: str = "", level: Level = "allocated") -> Term:
    """A term that is a guess."""
    return Term(name, Interval(low, likely, high), "estimated", path, level)


def some(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Without the terms that are nothing."""
    return tuple(term for term in terms if term.bytes.high > 0)
