"""Hostile videos: the right frames come out, or the file is refused by name."""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile import colours, containers, mutated, odd_files, timing
from tests.hostile.case import Case


def cases() -> Iterator[Case]:
    """See the module."""
    for part in (containers, timing, odd_files, colours, mutated):
        yield from part.cases()
