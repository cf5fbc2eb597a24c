"""Multi-head attention: of tokens among themselves (timm's `Attention`, which DiT uses), and of tokens to a text."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sora_spec.builders.blocks.position import Rotation, rotate

QkNorm = Literal["head", "width"]
"""Which channels of queries and keys are RMS-normalised together: those of each head, or those of all heads."""


class _Heads(nn.Module):
    """What both attentions do to queries, keys and values before they meet."""

    q_norm: nn.Module
    k_norm: nn.Module

    def __init__(self, heads: int, qk_norm: QkNorm | None) -> None:
        super().__init__()
        self.heads = heads
        self.qk_norm = qk_norm

    def rms_norm(self, width: int) -> nn.Module:
        """With one learned gain per channel, which the heads share where each is normalised by itself."""
        if self.qk_norm is None:
            return nn.Identity()
        return nn.RMSNorm(width // self.heads if self.qk_norm == "head" else width, eps=1e-6)

    def split(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, L, D) each → (N, heads, L, D / heads), queries and keys normalised."""
        if self.qk_norm == "width":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (rearrange(part, "n l (h d) -> n h l d", h=self.heads) for part in (q, k, v))
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v


class Attention(_Heads):
    """Attention among the L tokens of each of N sequences: (N, L, D) → (N, L, D)."""

    def __init__(self, width: int, heads: int, qk_norm: QkNorm | None) -> None:
        super().__init__(heads, qk_norm)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = self.rms_norm(width)
        self.k_norm = self.rms_norm(width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Attend; `rotation` holds one row per token."""
        # Split first, then reshape: heads stay views, and the gradient of the split is one concatenation.
        q, k, v = self.split(*self.qkv(x).chunk(3, dim=-1))  # (N, heads, L, d)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        x = scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(x, "n h l d -> n l (h d)"))


class CrossAttention(_Heads):
    """Attention of the L tokens of a clip to the M tokens of its text (PixArt-α's `MultiHeadCrossAttention`).

    A prompt that is shorter is padded by the encoder, and its padding is attended to unless a bias hides it.
    """

    def __init__(self, width: int, heads: int, qk_norm: QkNorm | None = None) -> None:
        super().__init__(heads, qk_norm)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.q_norm = self.rms_norm(width)
        self.k_norm = self.rms_norm(width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, L, D) tokens and (B, M, D) context → (B, L, D). `bias` (B, 1, 1, M) is added to the scores."""
        q, k, v = self.split(self.q(x), *self.kv(context).chunk(2, dim=-1))
        y = scaled_dot_product_attention(q, k, v, bias)
        return self.out(rearrange(y, "n h l d -> n l (h d)"))
