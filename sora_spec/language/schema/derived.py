"""What follows from the fields of a section, for the models and for the records that stand in for them.

Imports no pydantic: `sora_spec.language.record` mixes these into its classes by the section's name.
"""

from __future__ import annotations

from typing import Protocol


class _Clip(Protocol):
    @property
    def frames(self) -> int: ...
    @property
    def fps(self) -> float: ...


class _Parallel(Protocol):
    @property
    def shard(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def replicate(self) -> int: ...


class ClipLength:
    """Of `clip`."""

    __slots__ = ()

    @property
    def seconds(self: _Clip) -> float:
        """Length of the clip in seconds."""
        return self.frames / self.fps


class RankCount:
    """Of `parallel`."""

    __slots__ = ()

    @property
    def ranks(self: _Parallel) -> int:
        """Number of processes."""
        return self.shard * self.sequence * self.replicate


DERIVED: dict[str, type] = {"Clip": ClipLength, "Parallel": RankCount}
"""By name of the section."""
