"""Where a token lies: fixed sine-cosine tables (DiT, Latte) and rotary positions over time, rows and columns.

All tables are computed in float64 and stored in float32.
"""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from sora_spec.builders.blocks.table import FixedTable
from sora_spec.language.schema.backbone import Rope

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each (tokens, head width / 2)."""


def sincos_1d(width: int, positions: Tensor) -> Tensor:
    """(L,) positions → (L, width) float64: [sin | cos] of position / 10000^(i / (width/2)) (DiT `models.py`)."""
    assert width % 2 == 0, width
    rates = 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def spatial_table(width: int, rows: int, columns: int, scale: float = 1.0) -> Tensor:
    """(1, rows·columns, width): DiT's `pos_embed`. The first half of the channels tells the column ("w goes first").

    `scale`: what places are divided by (Open-Sora's `space_scale`).
    """
    assert width % 4 == 0, width
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = [sincos_1d(width // 2, axis.flatten().double() / scale) for axis in (column, row)]
    return torch.cat(halves, dim=1)[None].float()


def temporal_table(width: int, frames: int, scale: float = 1.0) -> Tensor:
    """(1, frames, width): Latte's `temp_embed`. `scale`: what frames are divided by (Open-Sora's `time_scale`)."""
    return sincos_1d(width, torch.arange(frames).double() / scale)[None].float()


def rope_axes(position: Rope, head_width: int) -> tuple[int, int, int]:
    """Channels of a head that turn with time, height and width; the default of `Rope.axes` filled in."""
    if position.axes is not None:
        return position.axes
    side = head_width * 3 // 8 // 2 * 2
    return (head_width - 2 * side, side, side)


def _angles(axes: tuple[int, int, int], theta: float, where: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """(L,) position on each axis → (L, head width / 2) angles, side by side: position · theta^(−2i / axis width)."""
    parts: list[Tensor] = []
    for channels, position in zip(axes, where, strict=True):
        rates = theta ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
        parts.append(position.double()[:, None] * rates[None, :])
    return torch.cat(parts, dim=1)


def _space_rotation(axes: tuple[int, int, int], theta: float, rows: int, columns: int) -> Tensor:
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    angles = _angles(axes, theta, (torch.zeros_like(row), row, column))
    return torch.stack([angles.cos(), angles.sin()], dim=1).float()


def _time_rotation(axes: tuple[int, int, int], theta: float, frames: int) -> Tensor:
    frame = torch.arange(frames)
    angles = _angles(axes, theta, (frame, torch.zeros_like(frame), torch.zeros_like(frame)))
    return torch.stack([angles.cos(), angles.sin()], dim=1).float()


class Rope3d(nn.Module):
    """Rotations of queries and keys by frame, row and column (RoFormer, arXiv 2104.09864, on three axes).

    Pairs are (i, i + head width/2), as in GPT-NeoX: `rotate` then needs no interleaving, for which ONNX has no
    cheap op. The pairs of one half are laid out time, height, width.
    """

    def __init__(self, axes: tuple[int, int, int], theta: float, grid: tuple[int, int, int]) -> None:
        super().__init__()
        frames, rows, columns = grid
        self.space_table = FixedTable(partial(_space_rotation, axes, theta, rows, columns))
        self.time_table = FixedTable(partial(_time_rotation, axes, theta, frames))

    def space(self, dtype: torch.dtype) -> Rotation:
        """For attention within a frame, whose tokens share their time."""
        cos, sin = self.space_table().to(dtype).unbind(1)
        return cos, sin

    def time(self, frames: int, dtype: torch.dtype) -> Rotation:
        """For attention across frames at one place."""
        cos, sin = self.time_table()[:frames].to(dtype).unbind(1)
        return cos, sin

    def joint(self, frames: int, dtype: torch.dtype) -> Rotation:
        """For attention over all tokens of a clip, frame by frame."""
        space_cos, space_sin = self.space(dtype)
        time_cos, time_sin = self.time(frames, dtype)
        # Each channel turns with one axis only: of the two factors one is 1, of the two summands one is 0.
        cos = time_cos[:, None] * space_cos[None]
        sin = time_sin[:, None] + space_sin[None]
        return rearrange(cos, "f s d -> (f s) d"), rearrange(sin, "f s d -> (f s) d")


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the channel pairs (i, i + d/2) of `x` (..., L, d) by their angles."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
