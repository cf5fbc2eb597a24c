"""Time and condition as vectors and tokens: mirrors `builders/conditions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sora_spec.graph.eager.ops.embedding import embedding
from sora_spec.graph.eager.ops.norm import layer_norm
from sora_spec.graph.eager.ops.pointwise import cast_to, gelu, minus_from, mul, mul_scalar, silu, unary
from sora_spec.graph.eager.ops.views import cat, unsqueeze
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.weights import Linear, Weights

if TYPE_CHECKING:
    from sora_spec.language.schema.condition import ClassCondition, TextCondition

WAVE = 256
"""Channels of the sinusoid of time."""


class TimeEmbedding:
    """Sinusoid and two linear layers."""

    def __init__(self, weights: Weights, width: int, told: Literal["time", "noise_level"] = "time") -> None:
        self.told = told
        self.rates = weights.buffer("time_embed.rates", (WAVE // 2,))
        self.fc1 = Linear(weights, "time_embed.fc1", WAVE, width)
        self.fc2 = Linear(weights, "time_embed.fc2", width, width)

    def __call__(self, time: Tensor) -> Tensor:
        """(B,) → (B, D)."""
        if self.told == "noise_level":
            time = mul_scalar(minus_from(time))
        angles = mul(unsqueeze(time, 1), unsqueeze(self.rates, 0))
        wave = cat([unary("cos", angles), unary("sin", angles)], -1)
        return self.fc2(silu(self.fc1(cast_to(wave, self.fc1.weight.dtype))))


class LabelEmbedding:
    """Rows of a table by class."""

    def __init__(self, weights: Weights, condition: ClassCondition, width: int) -> None:
        self.table = weights.parameter("condition.table.weight", (condition.classes + (condition.dropout > 0), width))

    def __call__(self, label: Tensor) -> Tensor:
        """(B,) → (B, D)."""
        return embedding(self.table, label)


class PooledText:
    """One vector of a prompt, projected."""

    def __init__(self, weights: Weights, condition: TextCondition, width: int) -> None:
        self.normed = condition.feature_norm == "layer_norm"
        self.proj = Linear(weights, "condition.proj", condition.width, width)

    def __call__(self, pooled: Tensor) -> Tensor:
        """(B, width) → (B, D)."""
        return self.proj(_features(self.normed, cast_to(pooled, self.proj.weight.dtype)))


class TextTokens:
    """The tokens of a prompt: linear, GELU, linear."""

    def __init__(self, weights: Weights, condition: TextCondition, width: int) -> None:
        self.normed = condition.feature_norm == "layer_norm"
        self.fc1 = Linear(weights, "condition.fc1", condition.width, width)
        self.fc2 = Linear(weights, "condition.fc2", width, width)
        if condition.no_prompt == "table":
            weights.buffer("condition.null", (condition.tokens, condition.width), weights.policy.weights, True)

    def __call__(self, features: Tensor) -> Tensor:
        """(B, M, width) → (B, M, D)."""
        return self.fc2(gelu(self.fc1(_features(self.normed, cast_to(features, self.fc1.weight.dtype)))))


def _features(normed: bool, features: Tensor) -> Tensor:
    return layer_norm(features) if normed else features
