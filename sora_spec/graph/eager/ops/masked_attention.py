"""Scaled dot-product attention with an additive bias or a causal mask, without gradients: that of text encoders."""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import contiguous_strides
from sora_spec.graph.eager.ops.attention import NAMES, Kernel, aligned, attention_flops, fused_outputs, softmax
from sora_spec.graph.eager.ops.matrix import matmul
from sora_spec.graph.eager.ops.pointwise import add, cast_to, made_from_nothing, mul_scalar, scalar_like, unary
from sora_spec.graph.eager.ops.views import expand_to, transpose
from sora_spec.graph.eager.tensor import Tensor, run, run_one


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, bias: Tensor | None = None, causal: bool = False
) -> Tensor:
    """`F.scaled_dot_product_attention` of (B, heads, N, d) with `bias` (1 or B, heads, N, N), or only looking back.

    Flash attention takes no bias; PyTorch then picks the memory-efficient kernel.
    """
    if kernel == "math":
        return _math(q, k, v, bias, causal)
    if bias is None:
        return run(NAMES[kernel], (q, k, v), fused_outputs(q, kernel), attention_flops(q, k))[0]
    kernel = "efficient" if kernel == "flash" else kernel
    if kernel == "efficient":
        bias = aligned(bias)
    rows = expand_to(bias, (q.shape[0], *bias.shape[1:]))
    return run(NAMES[kernel], (q, k, v, rows), fused_outputs(q, kernel), attention_flops(q, k))[0]


def _math(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    """ATen's `_scaled_dot_product_attention_math`, in float32; each name is one of its variables."""
    kind = q.dtype
    q, k, v = cast_to(q, DType.F32), cast_to(k, DType.F32), cast_to(v, DType.F32)
    q_scaled = mul_scalar(q)
    if causal:
        bias = _looking_back(q)
    scores = matmul(q_scaled, mul_scalar(transpose(k, 2, 3)))
    if bias is not None:
        scores = add(scores, bias)
    scores = softmax(scores)
    narrow = cast_to(scores, kind)
    result = cast_to(matmul(scores, v), kind)
    del narrow
    return result


def _looking_back(q: Tensor) -> Tensor:
    """(N, N) with 0 on and below the diagonal and −∞ above."""
    shape = (q.shape[2], q.shape[2])
    strides = contiguous_strides(shape)
    lower = unary("tril", made_from_nothing("ones", q, shape, DType.BOOL))
    zero = scalar_like(q)
    least = scalar_like(q)
    return run_one("where", (lower, zero, least), shape, strides, q.dtype)
