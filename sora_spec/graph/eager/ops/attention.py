"""Scaled dot-product attention by kernel: what each keeps and how each lays out its result."""

from __future__ import annotations

from typing import Literal, assert_never

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import contiguous_strides, dense_strides
from sora_spec.graph.eager.ops.matrix import matmul
from sora_spec.graph.eager.ops.pointwise import add, cast_to, mul_scalar
from sora_spec.graph.eager.ops.views import expand_to, transpose
from sora_spec.graph.eager.tape import Layout
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run, run_one

Kernel = Literal["flash", "efficient", "math", "cpu"]
"""Flash and memory-efficient attention on a GPU, the composed fallback, and the CPU's flash attention."""


def attention(q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, bias: Tensor | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` of (B, heads, N, d), without dropout; `bias` (B, 1, 1, M) needs no gradient.

    Flash attention takes no bias: PyTorch then picks the memory-efficient kernel.
    """
    match kernel:
        case "math":
            return _math(q, k, v, bias)
        case "cpu" if any(x.strides[-1] != 1 for x in (q, k, v)):
            return _math(q, k, v, bias)  # PyTorch's choice where channels do not lie side by side
        case "flash" if bias is not None:
            return _fused(q, k, v, "efficient", bias)
        case "flash" | "efficient" | "cpu":
            return _fused(q, k, v, kernel, bias)
        case _:
            assert_never(kernel)


_ALIGNED = 8  # keys of a bias that the memory-efficient kernel reads at a time; rows are padded to a multiple


def attention_flops(q: Tensor, k: Tensor) -> int:
    """Forward FLOPs: the two products of (N, d) by (d, M) and (N, M) by (M, d)."""
    return 4 * q.numel * k.shape[2]


NAMES = {
    "flash": "_scaled_dot_product_flash_attention",
    "efficient": "_scaled_dot_product_efficient_attention",
    "cpu": "_scaled_dot_product_flash_attention_for_cpu",
}


def _fused(q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, bias: Tensor | None = None) -> Tensor:
    given = (q, k, v) if bias is None else (q, k, v, _rows(q, k, bias, kernel))
    node = node_for(_fused_rule, given, kernel)
    if node is not None:
        node.save(*given)
    # The CPU's kernel is unknown to PyTorch's FLOP counter, but not to this one.
    flops = attention_flops(q, k)
    made = run(
        NAMES[kernel], given, fused_outputs(q, kernel), flops, attention_workspace(q, k, kernel, False, q.tape.threads)
    )
    if node is not None:
        node.save(*made[: 2 if kernel == "cpu" else 4])
    return attach(node, made[0])


def _rows(q: Tensor, k: Tensor, bias: Tensor, kernel: Kernel) -> Tensor:
    """A bias as the kernel is handed it: the memory-efficient one gets a row for every query, all of one storage."""
    if kernel != "efficient":
        return bias
    return expand_to(aligned(bias), (*q.shape[:3], k.shape[2]))


def aligned(bias: Tensor) -> Tensor:
    """The bias with its rows padded to what the memory-efficient kernel reads at a time (ATen's `pad_bias`)."""
    keys = bias.shape[-1]
    if keys % _ALIGNED == 0:
        return bias
    shape = (*bias.shape[:-1], -(-keys // _ALIGNED) * _ALIGNED)
    wide = run_one("constant_pad_nd", (bias,), shape, contiguous_strides(shape), bias.dtype)
    return wide.alias(bias.shape, wide.strides)


def fused_outputs(q: Tensor, kernel: Kernel) -> tuple[Layout, ...]:
    """Layouts of what a fused kernel makes of queries (B, heads, N, d): the result, and what its backward needs."""
    batch, heads, tokens, _ = q.shape
    rows = (batch, heads, tokens)
    match kernel:
        case "flash":
            return (
                (q.shape, dense_strides(q.shape, q.strides), q.dtype),
                (rows, contiguous_strides(rows), DType.F32),
                ((2,), (1,), DType.UINT64),
                ((), (), DType.UINT64),
                ((0,), (1,), q.dtype),
            )
        case "efficient":
            # The log-sum-exp is padded to whole tiles of 32 rows, when it is wanted for a backward pass.
            padded = (batch, heads, -(-tokens // 32) * 32)
            state: Layout = ((), (), DType.INT64)
            return (_heads_inside(q), (padded, contiguous_strides(padded), DType.F32), state, state)
        case "cpu":
            return (
                (q.shape, dense_strides(q.shape, q.strides), q.dtype),
                (rows, (tokens * heads, 1, heads), DType.F32),
            )
        case _:
            raise AssertionError(kernel)


def _heads_inside(x: Tensor) -> Layout:
    """(B, heads, N, d) as a view of row-major (B, N, heads, d)."""
    _, heads, tokens, width = x.shape
    return (x.shape, (tokens * heads * width, width, heads * width, 1), x.dtype)


def _fused_rule(node: Node, g: Tensor) -> Grads:
    q, k, v, *rest = node.unpack()
    kernel: Kernel = node.attributes
    if kernel == "flash":
        outputs = [(x.shape, dense_strides(x.shape, x.strides), x.dtype) for x in (q, k, v)]
    else:
        outputs = [_heads_inside(x) for x in (q, k, v)]
    # Five products where the forward pass has two: the scores are computed again.
    flops = attention_flops(q, k) * 5 // 2
    space = attention_workspace(q, k, kernel, True, q.tape.threads)
    made = run(f"{NAMES[kernel]}_backward", (g, q, k, v, *rest), outputs, flops, space)
    return [*made, *([None] * (len(node.edges) - len(made)))]  # a bias needs no gradient


def attention_workspace(q: Tensor, k: Tensor, kernel: Kernel, backward: bool, threads: int) -> int:
    """Buffers of the CPU's kernel, a tile of scores for each thread (ATen's `FlashAttentionKernel.cpp`)."""
    if kernel != "cpu" or not threads:
        return 0
    tokens, width = q.shape[2:]
    rows = min(tokens, 256 if tokens >= 768 else 64 if tokens >= 192 else 32)
    tile = rows * min(k.shape[2], 512)
    narrow = tile * q.dtype.size if q.dtype.size < DType.F32.size else 0
    if backward:
        return threads * 2 * (tile * DType.F32.size + narrow) + rows * DType.F32.size
    return threads * ((tile + 2 * rows + rows * width) * DType.F32.size + narrow)


def _math(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """ATen's `_scaled_dot_product_attention_math`: in float32, both factors scaled by the root of the scale."""
    kind = q.dtype
    q_wide, k_wide, v_wide = (cast_to(x, DType.F32) for x in (q, k, v))
    q_scaled = mul_scalar(q_wide)
    scores = matmul(q_scaled, mul_scalar(transpose(k_wide, 2, 3)))
    if bias is not None:
        scores = add(scores, bias)
    weights = softmax(scores)
    del scores
    second_result = cast_to(weights, kind)
    result = cast_to(matmul(weights, v_wide), kind)
    del second_result
    return result


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension. Keeps its result."""
    node = node_for(_softmax_rule, (x,))
    result = run_one("_safe_softmax", (x,), x.shape, contiguous_strides(x.shape), x.dtype)
    if node is not None:
        node.save(result)
    return attach(node, result)


def _softmax_rule(node: Node, g: Tensor) -> Grads:
    (result,) = node.unpack()
    return [run_one("_softmax_backward_data", (g, result), g.shape, contiguous_strides(g.shape), g.dtype)]
