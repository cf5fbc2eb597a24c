"""How the tokens of a clip are parted into sequences, within which attention looks: the kinds differ in a reshape.

Legend: `B` batch, `F` token frames, `S` tokens of a frame, `D` width; `N` sequences of `L` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from sora_spec.builders.blocks.position import Rope3d, Rotation


class Sequences:
    """One way of parting. Equal ones are one: their rotation is computed once for all blocks."""

    across_frames = False
    """A sequence is one place in every frame."""

    def part(self, x: Tensor) -> Tensor:
        """(B, F, S, D) → (N, L, D)."""
        raise AssertionError("a way of parting defines its reshape")

    def join(self, y: Tensor, frames: int, places: int) -> Tensor:
        """(N, L, D) → (B, F, S, D) of so many frames and tokens of a frame."""
        raise AssertionError("a way of parting defines its reshape")

    def rotation(self, rope: Rope3d, frames: int, dtype: torch.dtype) -> Rotation:
        """Rotary positions of the L tokens of a sequence."""
        raise AssertionError("a way of parting defines its positions")


@dataclass(frozen=True)
class WithinFrames(Sequences):
    """The tokens of a frame."""

    def part(self, x: Tensor) -> Tensor:
        """See `Sequences`."""
        return rearrange(x, "b f s d -> (b f) s d")

    def join(self, y: Tensor, frames: int, places: int) -> Tensor:
        """See `Sequences`."""
        return rearrange(y, "(b f) s d -> b f s d", f=frames)

    def rotation(self, rope: Rope3d, frames: int, dtype: torch.dtype) -> Rotation:
        """See `Sequences`."""
        return rope.space(dtype)


@dataclass(frozen=True)
class AcrossFrames(Sequences):
    """The frames of a place."""

    across_frames = True

    def part(self, x: Tensor) -> Tensor:
        """See `Sequences`."""
        return rearrange(x, "b f s d -> (b s) f d")

    def join(self, y: Tensor, frames: int, places: int) -> Tensor:
        """See `Sequences`."""
        return rearrange(y, "(b s) f d -> b f s d", s=places)

    def rotation(self, rope: Rope3d, frames: int, dtype: torch.dtype) -> Rotation:
        """See `Sequences`."""
        return rope.time(frames, dtype)


@dataclass(frozen=True)
class WholeClip(Sequences):
    """All tokens of a clip."""

    def part(self, x: Tensor) -> Tensor:
        """See `Sequences`."""
        return rearrange(x, "b f s d -> b (f s) d")

    def join(self, y: Tensor, frames: int, places: int) -> Tensor:
        """See `Sequences`."""
        return rearrange(y, "b (f s) d -> b f s d", s=places)

    def rotation(self, rope: Rope3d, frames: int, dtype: torch.dtype) -> Rotation:
        """See `Sequences`."""
        return rope.joint(frames, dtype)
