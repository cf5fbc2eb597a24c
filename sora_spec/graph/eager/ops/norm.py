"""Normalisation over the last dimension: fused layer norm, fused and composite RMS norm; and group norm."""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import contiguous_strides
from sora_spec.graph.eager.ops.pointwise import add_scalar_in_place, cast_to, contiguous, mul, power, rsqrt
from sora_spec.graph.eager.ops.reduction import mean
from sora_spec.graph.eager.tape import Layout
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run, run_one


def layer_norm(x: Tensor) -> Tensor:
    """`F.layer_norm` over the last dimension without gain or bias. Keeps its input and the statistics."""
    node = node_for(_layer_norm_rule, (x,))
    if node is not None:
        node.save(x)
    stats = (*x.shape[:-1], 1)
    # On the CPU the statistics have the type of the input where there is no gain.
    wide = x.dtype if x.tape.on_cpu else DType.F32
    y, mu, rstd = run(
        "native_layer_norm",
        (x,),
        (
            (x.shape, contiguous_strides(x.shape), x.dtype),
            (stats, contiguous_strides(stats), wide),
            (stats, contiguous_strides(stats), wide),
        ),
    )
    if node is not None:
        node.save(mu, rstd)
    return attach(node, y)


def affine_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.layer_norm` over the last dimension with gain and bias. Keeps its input, both and the statistics."""
    node = node_for(_affine_layer_norm_rule, (x, weight, bias))
    if node is not None:
        node.save(x, weight, bias)
    stats = (*x.shape[:-1], 1)
    row: Layout = (stats, contiguous_strides(stats), DType.F32)
    y, mu, rstd = run(
        "native_layer_norm", (x, weight, bias), ((x.shape, contiguous_strides(x.shape), x.dtype), row, row)
    )
    if node is not None:
        node.save(mu, rstd)
    return attach(node, y)


def _affine_layer_norm_rule(node: Node, g: Tensor) -> Grads:
    x, weight, bias, mu, rstd = node.unpack()
    outputs = [(each.shape, contiguous_strides(each.shape), each.dtype) for each in (x, weight, bias)]
    return list(run("native_layer_norm_backward", (g, x, mu, rstd, weight, bias), outputs))


def _layer_norm_rule(node: Node, g: Tensor) -> Grads:
    x, mu, rstd = node.unpack()
    inputs = (g, x, mu, rstd)
    return [run_one("native_layer_norm_backward", inputs, x.shape, contiguous_strides(x.shape), x.dtype)]


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """`F.rms_norm` over the last dimension as it is composed on the CPU and on `meta`: in float32, step by step."""
    wide = cast_to(x, DType.F32)
    squares = power(wide)
    average = add_scalar_in_place(mean(squares, (-1,), keepdim=True))
    scale = rsqrt(average)
    # The temporaries of the C++ expression live until it ends.
    del squares, average
    wide = contiguous(mul(mul(wide, scale), weight))
    return cast_to(wide, x.dtype)


def fused_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """`F.rms_norm` as one kernel (CUDA since PyTorch 2.9): keeps its input and a float32 reciprocal per row."""
    node = node_for(_fused_rms_norm_rule, (x, weight))
    if node is not None:
        node.save(x, weight)
    stats = (*x.shape[:-1], 1)
    y, rstd = run(
        "_fused_rms_norm",
        (x, weight),
        ((x.shape, contiguous_strides(x.shape), x.dtype), (stats, contiguous_strides(stats), DType.F32)),
    )
    if node is not None:
        node.save(rstd)
    return attach(node, y)


def _fused_rms_norm_rule(node: Node, g: Tensor) -> Grads:
    x, weight, rstd = node.unpack()
    return list(
        run(
            "_fused_rms_norm_backward",
            (g, x, weight, rstd),
            (
                (x.shape, contiguous_strides(x.shape), x.dtype),
                (weight.shape, contiguous_strides(weight.shape), weight.dtype),
            ),
        )
    )


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """`F.group_norm`. Keeps its input and two statistics per sample and group."""
    x = contiguous(x)
    node = node_for(_group_norm_rule, (x, weight, bias))
    if node is not None:
        node.save(x, weight)
    stats = (x.shape[0], groups)
    y, mu, rstd = run(
        "native_group_norm",
        (x, weight, bias),
        (
            (x.shape, contiguous_strides(x.shape), x.dtype),
            (stats, contiguous_strides(stats), x.dtype),
            (stats, contiguous_strides(stats), x.dtype),
        ),
    )
    if node is not None:
        node.save(mu, rstd)
    return attach(node, y)


def _group_norm_rule(node: Node, g: Tensor) -> Grads:
    x, weight, mu, rstd = node.unpack()
    outputs = [(x.shape, contiguous_strides(x.shape), x.dtype)] if node.needs(0) else []
    outputs += [(weight.shape, (1,), weight.dtype)] * 2
    made: Grads = list(run("native_group_norm_backward", (g, x, weight, mu, rstd), outputs))
    return made if node.needs(0) else [None, *made]
