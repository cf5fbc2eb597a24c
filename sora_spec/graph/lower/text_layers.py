"""Layers that text encoders share, without gradients, as `transformers` composes them.

Legend: `B` prompts, `M` tokens, `D` width, `d` width of a head.
"""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops.matrix import linear_without_bias
from sora_spec.graph.eager.ops.norm import affine_layer_norm
from sora_spec.graph.eager.ops.pointwise import (
    add,
    add_scalar,
    contiguous,
    gelu,
    made_from_nothing,
    mul,
    mul_scalar,
    power,
    silu,
    tanh,
    unary,
)
from sora_spec.graph.eager.ops.views import permute, rearrange
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.weights import Weights

ENCODER, TOKENS = ("condition", "encoder"), ("condition", "tokens")
"""YAML values that make the encoder, and the extent of a prompt."""


def activate(name: str, x: Tensor) -> Tensor:
    """The activation of that name, composed as `transformers` composes it."""
    match name:
        case "gelu":
            return gelu(x)
        case "silu":
            return silu(x)
        case "quick_gelu":
            return mul(x, unary("sigmoid", mul_scalar(x)))
        case "gelu_new":
            half = mul_scalar(x)
            return mul(half, add_scalar(tanh(mul_scalar(add(x, mul_scalar(power(x)))))))
        case _:
            return unary(name, x)


class Unbiased:
    """`nn.Linear` without a bias."""

    def __init__(self, weights: Weights, name: str, width: int, out: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (out, width))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., width) → (..., out)."""
        return linear_without_bias(x, self.weight)


class LayerNorm:
    """`nn.LayerNorm` with gain and bias."""

    def __init__(self, weights: Weights, name: str, width: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (width,))
        self.bias = weights.parameter(f"{name}.bias", (width,))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) → the same shape."""
        return affine_layer_norm(x, self.weight, self.bias)


def heads_joined(y: Tensor) -> Tensor:
    """(B, heads, M, d) → (B, M, heads·d), copied."""
    return rearrange(contiguous(permute(y, (0, 2, 1, 3))), "b m h d -> b m (h d)")


def arange(like: Tensor, size: int) -> Tensor:
    """0, 1, … as int64."""
    return made_from_nothing("arange", like, (size,), DType.INT64)
