"""Max-pooling, rectification, and the arithmetic of unit vectors: what perceptual losses run beside convolutions."""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape, contiguous_strides
from sora_spec.graph.eager.ops.pointwise import binary, keeps_result, unary
from sora_spec.graph.eager.ops.reduction import reduce, reduced_shape
from sora_spec.graph.eager.ops.views import expand_to
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run, run_one


def relu(x: Tensor) -> Tensor:
    """max(x, 0). Keeps its result."""
    return keeps_result("relu", _relu_rule, x)


def _relu_rule(node: Node, g: Tensor) -> Grads:
    (result,) = node.unpack()
    return [binary("threshold_backward", g, result)]


def max_pool2d(x: Tensor) -> Tensor:
    """`F.max_pool2d(x, 2)` of (B, C, Y, X). Keeps its input and where the maxima were."""
    node = node_for(_max_pool_rule, (x,))
    shape = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    strides = contiguous_strides(shape)
    layouts = ((shape, strides, x.dtype), (shape, strides, DType.INT64))
    result, places = run("max_pool2d_with_indices", (x,), layouts)
    if node is not None:
        node.save(x, places)
    return attach(node, result)


def _max_pool_rule(node: Node, g: Tensor) -> Grads:
    x, places = node.unpack()
    strides = contiguous_strides(x.shape)
    return [run_one("max_pool2d_with_indices_backward", (g, x, places), x.shape, strides, x.dtype)]


def sum_over(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sum over `dims`, which stay with extent 1."""
    node = node_for(_sum_rule, (x,), x.shape)
    return attach(node, reduce("sum", x, reduced_shape(x.shape, dims, keepdim=True)))


def _sum_rule(node: Node, g: Tensor) -> Grads:
    shape: Shape = node.attributes
    return [expand_to(g, shape)]


def sqrt(x: Tensor) -> Tensor:
    """√x. Keeps its result."""
    return keeps_result("sqrt", _sqrt_rule, x)


def _sqrt_rule(node: Node, g: Tensor) -> Grads:
    (result,) = node.unpack()
    return [binary("div", g, unary("mul", result))]


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, either of which may need a gradient."""
    node = node_for(_divide_rule, (a, b))
    if node is not None:
        node.save(a if node.needs(1) else None, b)
    return attach(node, binary("div", a, b))


def _divide_rule(node: Node, g: Tensor) -> Grads:
    a, b = node.unpack()
    of_b = _of_divisor(g, a, b) if node.needs(1) else None
    return [binary("div", g, b) if node.needs(0) else None, of_b]


def _of_divisor(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """−g · ((a / b) / b), whose right side C++ makes first; its temporaries live to the end of the expression."""
    quotient = binary("div", a, b)
    again = binary("div", quotient, b)
    return binary("mul", unary("neg", g), again)
