"""Windows of a clip: boxes of frames, rows and columns side by side (W.A.L.T, arXiv 2312.06662 §3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor

from sora_spec.builders.blocks.position import Rope3d, Rotation
from sora_spec.builders.blocks.sequences import Sequences
from sora_spec.language.facts import Grid


@dataclass(frozen=True)
class Windows(Sequences):
    """The tokens of a window. `grid`: of the clip; it may have another number of frames, a multiple of the window's."""

    window: Grid
    grid: Grid

    @cached_property
    def _sizes(self) -> dict[str, int]:
        (f, h, w), (_, rows, columns) = self.window, self.grid
        return {"f": f, "h": h, "w": w, "H": rows // h, "W": columns // w}

    def part(self, x: Tensor) -> Tensor:
        """See `Sequences`."""
        return rearrange(x, "b (F f) (H h W w) d -> (b F H W) (f h w) d", **self._sizes)

    def join(self, y: Tensor, frames: int, places: int) -> Tensor:
        """See `Sequences`."""
        sizes = self._sizes | {"F": frames // self.window[0]}
        return rearrange(y, "(b F H W) (f h w) d -> b (F f) (H h W w) d", **sizes)

    def rotation(self, rope: Rope3d, frames: int, dtype: torch.dtype) -> Rotation:
        """Those of the first window: scores depend on how far apart two tokens are, not on where they are."""
        (f, h, w), (_, rows, columns) = self.window, self.grid
        whole = (rearrange(table, "(f r c) d -> f r c d", r=rows, c=columns) for table in rope.joint(f, dtype))
        cos, sin = (rearrange(table[:, :h, :w], "f h w d -> (f h w) d") for table in whole)
        return cos, sin
