"""Multi-head attention: of tokens among themselves (timm's `Attention`, which DiT uses), and of tokens to a text."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sora_spec.builders.blocks.position import Rotation, rotate


class Attention(nn.Module):
    """Attention among the L tokens of each of N sequences: (N, L, D) → (N, L, D).

    `qk_norm`: RMS-normalise every head's queries and keys, with one learned gain per channel, shared by the heads.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Attend; `rotation` holds one row per token."""
        # Split first, then reshape: heads stay views, and the gradient of the split is one concatenation.
        q, k, v = (rearrange(part, "n l (h d) -> n h l d", h=self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = self.q_norm(q), self.k_norm(k)  # (N, heads, L, d)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        x = scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(x, "n h l d -> n l (h d)"))


class CrossAttention(nn.Module):
    """Attention of the L tokens of a clip to the M tokens of its text (PixArt-α's `MultiHeadCrossAttention`).

    A prompt that is shorter is padded by the encoder, and its padding is attended to unless a bias hides it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, L, D) tokens and (B, M, D) context → (B, L, D). `bias` (B, 1, 1, M) is added to the scores."""
        q = rearrange(self.q(x), "n l (h d) -> n h l d", h=self.heads)
        k, v = (rearrange(part, "n m (h d) -> n h m d", h=self.heads) for part in self.kv(context).chunk(2, dim=-1))
        y = scaled_dot_product_attention(q, k, v, bias)
        return self.out(rearrange(y, "n h l d -> n l (h d)"))
