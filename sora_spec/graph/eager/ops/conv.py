"""Convolutions over two or three dimensions, and zero padding."""

from __future__ import annotations

from math import prod

from sora_spec.graph.eager.layout import contiguous_strides, is_contiguous
from sora_spec.graph.eager.ops.conv_workspace import backward_workspace, forward_workspace
from sora_spec.graph.eager.tape import Layout
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run, run_one


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """`F.conv2d` or `F.conv3d` of (B, C, ...) with weight (O, C, ...); 2·C·kernel FLOPs per value of the result."""
    inputs = (x, weight) if bias is None else (x, weight, bias)
    node = node_for(_conv_rule, inputs, stride)
    if node is not None:
        node.save(x, weight)
    extents = zip(x.shape[2:], weight.shape[2:], stride, padding, strict=True)
    places = tuple([(n + 2 * pad - kernel) // step + 1 for n, kernel, step, pad in extents])
    shape = (x.shape[0], weight.shape[0], *places)
    flops = 2 * prod(shape) * prod(weight.shape[1:])
    strides = contiguous_strides(shape)
    if x.tape.on_cpu and _channels_last(x):  # oneDNN answers in the layout in which it was asked
        strides = _channels_last_strides(shape)
    workspace = forward_workspace(x.tape, x, weight, shape, stride)
    return attach(node, run("convolution", inputs, ((shape, strides, x.dtype),), flops, workspace)[0])


def _conv_rule(node: Node, g: Tensor) -> Grads:
    x, weight = node.unpack()
    made: list[Layout] = []
    if node.needs(0):
        made.append((x.shape, x.strides if _channels_last(x) else contiguous_strides(x.shape), x.dtype))
    if node.needs(1):
        made.append((weight.shape, contiguous_strides(weight.shape), weight.dtype))
    if len(node.edges) == 3 and node.needs(2):
        made.append(((weight.shape[0],), (1,), weight.dtype))
    product = 2 * g.numel * prod(weight.shape[1:])
    wanted = (node.needs(0), node.needs(1))
    workspace = backward_workspace(x.tape, g, x, weight, node.attributes, wanted)
    results = iter(run("convolution_backward", (g, x, weight), made, product * sum(wanted), workspace))
    return [next(results) if node.needs(number) else None for number in range(len(node.edges))]


def _channels_last(x: Tensor) -> bool:
    """Whether an image batch lies with its channels last, as its gradient then does."""
    if len(x.shape) != 4 or x.contiguous_layout:
        return False
    order = (0, 2, 3, 1)
    return is_contiguous(tuple([x.shape[d] for d in order]), tuple([x.strides[d] for d in order]))


def _channels_last_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of (B, C, Y, X) with the channels innermost."""
    _, channels, rows, columns = shape
    return (channels * rows * columns, 1, columns * channels, channels)


def pad(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    """`F.pad` with zeros; `sides` are (before, after) of the last dimension, then of the one before it, and so on."""
    shape = list(x.shape)
    for number in range(len(sides) // 2):
        shape[-1 - number] += sides[2 * number] + sides[2 * number + 1]
    node = node_for(_pad_rule, (x,), x.shape)
    return attach(node, run_one("constant_pad_nd", (x,), tuple(shape), contiguous_strides(tuple(shape)), x.dtype))


def _pad_rule(node: Node, g: Tensor) -> Grads:
    shape: tuple[int, ...] = node.attributes
    return [run_one("constant_pad_nd", (g,), shape, contiguous_strides(shape), g.dtype)]
