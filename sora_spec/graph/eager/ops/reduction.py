"""Sums and means."""

from __future__ import annotations

from math import prod

from sora_spec.graph.eager.layout import Shape, broadcast_shape, contiguous_strides, result_strides, view_strides
from sora_spec.graph.eager.ops.pointwise import unary
from sora_spec.graph.eager.ops.views import expand_to
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run_one


def reduced_shape(shape: Shape, dims: tuple[int, ...], keepdim: bool) -> Shape:
    """Shape after a reduction over `dims`."""
    gone = {d % len(shape) for d in dims}
    return tuple(1 if d in gone else n for d, n in enumerate(shape) if keepdim or d not in gone)


def reduce(name: str, x: Tensor, shape: Shape) -> Tensor:
    """A reducing kernel, whose result is row-major."""
    return run_one(name, (x,), shape, contiguous_strides(shape), x.dtype)


def sum_to(x: Tensor, shape: Shape) -> Tensor:
    """Undo a broadcast: sum over what was expanded (ATen's `sum_to`). Not differentiable."""
    lead = len(x.shape) - len(shape)
    kept = tuple(1 if d < lead or (shape[d - lead] == 1 and n != 1) else n for d, n in enumerate(x.shape))
    if not shape:
        kept = ()
    if lead or kept != x.shape:
        x = reduce("sum", x, kept)
    if not lead:
        return x
    strides = view_strides(x.shape, x.strides, shape)
    assert strides is not None
    return x.alias(shape, strides)


def mean(x: Tensor, dims: tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Mean over `dims`, or over everything."""
    shape = () if dims is None else reduced_shape(x.shape, dims, keepdim)
    wide = reduced_shape(x.shape, tuple(range(len(x.shape))) if dims is None else dims, True)
    node = node_for(_mean_rule, (x,), (x.shape, wide))
    return attach(node, reduce("mean", x, shape))


def _mean_rule(node: Node, g: Tensor) -> Grads:
    shape: Shape
    wide: Shape
    shape, wide = node.attributes
    strides = view_strides(g.shape, g.strides, wide) if wide and g.numel == prod(wide) else ()
    g = g.alias(wide, strides if strides is not None else contiguous_strides(wide))
    return [unary("div", expand_to(g, shape))]


def mse_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error as one kernel. Keeps both.

    Its result is a number in a storage of all squares: the kernel sums them where they lie (ATen's `Loss.cpp`). The
    kernel of `meta`, and so a trace, knows nothing of it.
    """
    node = node_for(_mse_rule, (output, target))
    if node is not None:
        node.save(output, target)
    result = run_one("mse_loss", (output, target), (), (), output.dtype)
    if output.tape.on_cpu or not output.tape.observed:
        result.storage.grow(prod(broadcast_shape(output.shape, target.shape)) * output.dtype.size)
    return attach(node, result)


def _mse_rule(node: Node, g: Tensor) -> Grads:
    output, target = node.unpack()
    if output.tape.on_cpu or not output.tape.observed:
        strides = contiguous_strides(output.shape)
    else:  # `meta` has a kernel of its own
        strides = result_strides(output.shape, ((output.shape, output.strides), (target.shape, target.strides)))
    return [run_one("mse_loss_backward", (g, output, target), output.shape, strides, output.dtype), None]
