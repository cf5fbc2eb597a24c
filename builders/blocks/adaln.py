"""The DiT block with adaLN-Zero or adaLN-single, over tokens (B, F, S, D): F frames of S places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu

from sora_spec.builders.blocks.attention import Attention, CrossAttention, QkNorm
from sora_spec.builders.blocks.position import Rotation
from sora_spec.builders.blocks.sequences import Sequences


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift.

    The sum is made in place, here and in `gated`: autograd needs no product, and one large allocation is saved.
    """
    return (x * (1 + scale)).add_(shift)


def gated(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate·update."""
    return (gate * update).add_(x)


class Mlp(nn.Module):
    """Linear, tanh-GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        return self.fc2(gelu(self.fc1(x), approximate="tanh"))


Modulation = Literal["zero", "single"]
"""adaLN-Zero: a linear layer for each block. adaLN-single: one for all blocks, and a table for each."""


class ModulationTable(nn.Module):
    """What a block adds to the modulation that all blocks share (PixArt-α, arXiv 2310.00426 §2.3): (parts, D).

    Starts as N(0, 1/D), as published.
    """

    def __init__(self, parts: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(parts, width) / width**0.5)

    def forward(self, shared: Tensor) -> Tensor:
        """Shared (B, D) for every part, or (B, parts·D) for one each → (B, parts·D)."""
        width = self.weight.shape[1]
        return rearrange(self.weight + shared.view(-1, shared.shape[-1] // width, width), "b p d -> b (p d)")


@dataclass(frozen=True)
class TextAttention:
    """How a block attends to a text."""

    norm: bool
    """A layer norm with gain and bias stands before it."""
    qk_norm: QkNorm | None


class AdaLnBlock(nn.Module):
    """x += gate·Attention(modulate(LN x)); x += gate·MLP(modulate(LN x)) (DiT, arXiv 2212.09748 §3.2).

    Shift, scale and gate, twice, in this order. With `zero` they come from one linear layer on the condition that
    starts at zero, so that a fresh block is the identity; with `single` from the modulation of all blocks and this
    block's table. Between the two stand, where asked for, x += gate·TemporalAttention(x) (where there are two
    `sequences`) and x += CrossAttention(x, text) (`text`), neither with a norm of its own (PixArt-α; Open-Sora's
    STDiT) unless `text` asks for one (Wan).
    """

    def __init__(
        self,
        sequences: tuple[Sequences, ...],
        width: int,
        heads: int,
        hidden: int,
        qk_norm: QkNorm | None,
        modulation: Modulation = "zero",
        text: TextAttention | None = None,
    ) -> None:
        super().__init__()
        self.sequences = sequences
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(width, heads, qk_norm)
        self.temporal = Attention(width, heads, qk_norm) if len(sequences) > 1 else None
        self.cross_norm = nn.LayerNorm(width, eps=1e-6) if text is not None and text.norm else nn.Identity()
        self.cross = None if text is None else CrossAttention(width, heads, text.qk_norm)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, hidden)
        self.modulation = nn.Linear(width, 6 * width) if modulation == "zero" else ModulationTable(6, width)

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        rotation: Rotation | None = None,
        context: Tensor | None = None,
        time_rotation: Rotation | None = None,
        context_bias: Tensor | None = None,
        frame_table: Tensor | None = None,
    ) -> Tensor:
        """(B, F, S, D) → (B, F, S, D).

        `c`: with `zero` the condition after its SiLU (B, D), with `single` the shared modulation (B, 6·D). `context`:
        the text (B, M, D) of a block that attends to it, `context_bias` (B, 1, 1, M) what hides its padding. `rotation`
        belongs to the block's attention, `time_rotation` to its second one, which also reads `frame_table`
        (1, F, 1, D).
        """
        own, again = self.sequences[0], self.sequences[-1]
        modulation = rearrange(self.modulation(c), "b d -> b 1 1 d")
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)  # (B, 1, 1, D) each
        x = gated(x, gate1, attend(own, self.attention, modulate(self.norm1(x), shift1, scale1), rotation))
        if self.temporal is not None:
            read = x if frame_table is None else x + frame_table
            x = gated(x, gate1, attend(again, self.temporal, read, time_rotation))
            del read
        if self.cross is not None:
            assert context is not None, "this block attends to a text"
            x = x + self.attend_text(x, context, context_bias)
        return gated(x, gate2, self.mlp(modulate(self.norm2(x), shift2, scale2)))

    def attend_text(self, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """All tokens of a clip to all of its text, whatever else they attend to."""
        assert self.cross is not None
        y = self.cross(rearrange(self.cross_norm(x), "b f s d -> b (f s) d"), context, bias)
        return rearrange(y, "b (f s) d -> b f s d", f=x.shape[1])


def attend(sequences: Sequences, attention: Attention, x: Tensor, rotation: Rotation | None) -> Tensor:
    """Attention of (B, F, S, D) within sequences."""
    return sequences.join(attention(sequences.part(x), rotation), *x.shape[1:3])
