"""What a phase holds: bytes by whose they are and what for, and the YAML value that they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sora_spec.plan.interval import Interval, exactly, total
from sora_spec.plan.memory.meaning import Level, Meaning, Owner, Tag, Use, label, meaning

MIB = 2**20


class Term(NamedTuple):
    """One contribution to a phase. `hold` makes one."""

    component: Owner
    use: Use
    bytes: Interval
    tag: Tag
    path: str
    """Dotted path of the YAML value that it comes from; empty for what no spec decides."""
    level: Level
    ranks: int = 1
    """Ranks that each hold as much."""
    precision: str = ""
    """The type of it, where a name says so."""

    @property
    def meaning(self) -> Meaning:
        """Where it is counted and how it is reckoned."""
        return meaning(self.component, self.use)

    @property
    def name(self) -> str:
        name, value = self.meaning.name, f": {label(self.path)}" if self.meaning.by_value else ""
        precision = f", {self.precision}" if self.precision else ""
        return name + value + precision + (f", 1/{self.ranks}" if self.ranks > 1 else "")

    @property
    def formula(self) -> str:
        """How it is reckoned, in a line."""
        cut = self.use == "weights" and self.ranks > 1
        return self.meaning.formula + (", cut along the first dimension of every tensor" if cut else "")


def hold(
    component: Owner, use: Use, nbytes: Interval | float, path: str | None = None, ranks: int = 1, precision: str = ""
) -> Term:
    """A term; without a path, from the YAML value that decides such a use."""
    known = meaning(component, use)
    held = nbytes if isinstance(nbytes, Interval) else exactly(nbytes)
    return Term(component, use, held, known.tag, known.path if path is None else path, known.level, ranks, precision)


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


def some(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Without the terms that are nothing."""
    return tuple(term for term in terms if term.bytes.high > 0)
