"""The DiT block with adaLN-Zero, over tokens (B, F, S, D): F frames of S places."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu

from sora_spec.builders.blocks.attention import Attention
from sora_spec.builders.blocks.position import Rotation

Axis = Literal["space", "time", "joint"]
"""Which tokens attend to each other: those of a frame, those of a place, or all of a clip."""


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


class AdaLnBlock(nn.Module):
    """x += gate·Attention(modulate(LN x)); x += gate·MLP(modulate(LN x)) (DiT, arXiv 2212.09748 §3.2).

    Shift, scale and gate, twice, in this order, come from one linear layer on the condition. It starts at zero, so that
    a fresh block is the identity.
    """

    def __init__(self, axis: Axis, width: int, heads: int, hidden: int, qk_norm: bool) -> None:
        super().__init__()
        self.axis: Axis = axis
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(width, heads, qk_norm)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, hidden)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor, rotation: Rotation | None = None) -> Tensor:
        """(B, F, S, D) → (B, F, S, D) under `c` (B, D), the condition after its SiLU."""
        modulation = rearrange(self.modulation(c), "b d -> b 1 1 d")
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)  # (B, 1, 1, D) each
        x = gated(x, gate1, self.attend(modulate(self.norm1(x), shift1, scale1), rotation))
        return gated(x, gate2, self.mlp(modulate(self.norm2(x), shift2, scale2)))

    def attend(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """Attention along this block's axis: the three kinds differ in one reshape."""
        frames, places = x.shape[1:3]
        match self.axis:
            case "space":
                y = self.attention(rearrange(x, "b f s d -> (b f) s d"), rotation)
                return rearrange(y, "(b f) s d -> b f s d", f=frames)
            case "time":
                y = self.attention(rearrange(x, "b f s d -> (b s) f d"), rotation)
                return rearrange(y, "(b s) f d -> b f s d", s=places)
            case "joint":
                y = self.attention(rearrange(x, "b f s d -> b (f s) d"), rotation)
                return rearrange(y, "b (f s) d -> b f s d", s=places)
