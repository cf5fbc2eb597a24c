"""Hostile videos: the right frames come out, or the file is refused by name."""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile import containers
from tests.hostile.case import Case


def cases() -> Iterator[Case]:
    """See the module."""
    yield from containers.cases()
