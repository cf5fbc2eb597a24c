"""A prompt as one vector (OpenDiT's `y_embedder.output_projection`), or as tokens (PixArt-α's `CaptionEmbedder`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from sora_spec.language.schema.condition import TextCondition


class PooledText(nn.Module):
    """(B, width) pooled features of the frozen encoder → (B, D). Guidance uses the features of the empty prompt."""

    def __init__(self, condition: TextCondition, width: int) -> None:
        super().__init__()
        self.norm = _norm(condition)
        self.proj = nn.Linear(condition.width, width)

    def forward(self, pooled: Tensor) -> Tensor:
        """Project, in the dtype of the weights."""
        return self.proj(self.norm(pooled.to(self.proj.weight.dtype)))


class TextTokens(nn.Module):
    """(B, M, width) features of the frozen encoder → (B, M, D): linear, tanh-GELU, linear, after a LayerNorm where the
    condition says so.

    `null`: what stands for no prompt, (M, width), where the network keeps it (`condition.no_prompt: table`); else
    guidance uses the features of the empty prompt. Like PixArt-α's it is drawn once and never trained.
    """

    null: Tensor | None

    def __init__(self, condition: TextCondition, width: int) -> None:
        super().__init__()
        self.norm = _norm(condition)
        self.fc1 = nn.Linear(condition.width, width)
        self.fc2 = nn.Linear(width, width)
        keeps = condition.no_prompt == "table"
        table = torch.randn(condition.tokens, condition.width) / condition.width**0.5 if keeps else None
        self.register_buffer("null", table)

    def forward(self, features: Tensor) -> Tensor:
        """Project, in the dtype of the weights."""
        return self.fc2(gelu(self.fc1(self.norm(features.to(self.fc1.weight.dtype))), approximate="tanh"))


def _norm(condition: TextCondition) -> nn.Module:
    """A LayerNorm without weights: the projection behind it has them."""
    normed = condition.feature_norm == "layer_norm"
    return nn.LayerNorm(condition.width, elementwise_affine=False) if normed else nn.Identity()
