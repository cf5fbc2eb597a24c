"""Pointwise ops. The rules keep what PyTorch's derivatives keep, and make the temporaries that its C++ makes."""

from __future__ import annotations

from typing import Any

from sora_spec.graph.eager.dtypes import DType, promote
from sora_spec.graph.eager.layout import Shape, broadcast_shape, contiguous_strides, dense_strides, result_strides
from sora_spec.graph.eager.tensor import Grads, Node, Rule, Tensor, attach, node_for, run_one


def unary(name: str, x: Tensor, dtype: DType | None = None) -> Tensor:
    """A pointwise kernel over one tensor, not differentiable by itself."""
    return run_one(name, (x,), x.shape, result_strides(x.shape, ((x.shape, x.strides),)), dtype or x.dtype)


def copy(name: str, x: Tensor, dtype: DType | None = None) -> Tensor:
    """A kernel that copies and keeps the layout, up to gaps; not differentiable by itself."""
    return run_one(name, (x,), x.shape, dense_strides(x.shape, x.strides), dtype or x.dtype)


def binary(name: str, a: Tensor, b: Tensor) -> Tensor:
    """A pointwise kernel over two tensors, not differentiable by itself."""
    shape = broadcast_shape(a.shape, b.shape)
    strides = result_strides(shape, ((a.shape, a.strides), (b.shape, b.strides)))
    return run_one(name, (a, b), shape, strides, promote(a.dtype, b.dtype))


def keeps_input(name: str, rule: Rule, x: Tensor, attributes: Any = None) -> Tensor:
    """A pointwise function whose derivative needs its argument."""
    node = node_for(rule, (x,), attributes)
    if node is not None:
        node.save(x)
    return attach(node, unary(name, x))


def keeps_result(name: str, rule: Rule, x: Tensor, attributes: Any = None) -> Tensor:
    """A pointwise function whose derivative needs its value."""
    node = node_for(rule, (x,), attributes)
    result = unary(name, x)
    if node is not None:
        node.save(result)
    return attach(node, result)


def accumulate(held: Tensor, gradient: Tensor, in_place: bool) -> Tensor:
    """held + gradient; the engine's sum of two gradients. In place nothing is allocated."""
    return held if in_place and not held.tape.observed else binary("add", held, gradient)


def made_from_nothing(name: str, like: Tensor, shape: Shape, dtype: DType) -> Tensor:
    """A kernel that reads no tensor; `like` only says where the result belongs."""
    made = run_one(name, (like,), shape, contiguous_strides(shape), dtype)
    op = like.tape.ops[-1]
    op.inputs.clear()
    op.read_bytes = 0
    return made


# Casts and copies.


def cast_to(x: Tensor, dtype: DType) -> Tensor:
    """`x.to(dtype)`, which keeps the order of dimensions."""
    if x.dtype is dtype:
        return x
    node = node_for(pass_on, (x,))
    return attach(node, copy("_to_copy", x, dtype))


def clone(x: Tensor) -> Tensor:
    """`x.clone()`: row-major when `x` is not dense."""
    node = node_for(pass_on, (x,))
    return attach(node, copy("clone", x))


def contiguous(x: Tensor) -> Tensor:
    """`x.contiguous()`."""
    if x.contiguous_layout:
        return x
    node = node_for(pass_on, (x,))
    return attach(node, run_one("clone", (x,), x.shape, contiguous_strides(x.shape), x.dtype))


def pass_on(node: Node, g: Tensor) -> Grads:
    """The gradient as it is, to every input."""
    return [g] * len(node.edges)


# Sums.


def add(a: Tensor, b: Tensor) -> Tensor:
    """a + b."""
    node = node_for(pass_on, (a, b))
    return attach(node, binary("add", a, b))


def add_in_place(a: Tensor, b: Tensor) -> Tensor:
    """`a.add_(b)`: no allocation, and the layout stays that of `a`."""
    node = node_for(pass_on, (a, b))
    return attach(node, a.detach()) if node is not None else a


def sub(a: Tensor, b: Tensor) -> Tensor:
    """a − b."""
    node = node_for(_sub_rule, (a, b))
    return attach(node, binary("sub", a, b))


def _sub_rule(node: Node, g: Tensor) -> Grads:
    return [g, unary("neg", g) if node.needs(1) else None]


def add_scalar(x: Tensor, name: str = "add") -> Tensor:
    """x + number, or with `sub` x − number."""
    node = node_for(pass_on, (x,))
    return attach(node, unary(name, x))


def add_scalar_in_place(x: Tensor) -> Tensor:
    """`x.add_(number)`: nothing is allocated, nothing is kept."""
    return x


def minus_from(x: Tensor) -> Tensor:
    """number − x."""
    node = node_for(_scaled, (x,), "neg")
    return attach(node, unary("rsub", x))


def neg(x: Tensor) -> Tensor:
    """−x."""
    node = node_for(_scaled, (x,), "neg")
    return attach(node, unary("neg", x))


# Products.


def mul(a: Tensor, b: Tensor) -> Tensor:
    """a · b."""
    node = node_for(_mul_rule, (a, b))
    if node is not None:
        node.save(a if node.needs(1) else None, b if node.needs(0) else None)
    return attach(node, binary("mul", a, b))


def _mul_rule(node: Node, g: Tensor) -> Grads:
    a, b = node.unpack()
    other = binary("mul", g, a) if node.needs(1) else None
    return [binary("mul", g, b) if node.needs(0) else None, other]


def div(a: Tensor, b: Tensor) -> Tensor:
    """a / b, where `b` needs no gradient."""
    assert not b.requires_grad, "only the numerator may need a gradient"
    node = node_for(_div_rule, (a, b))
    if node is not None:
        node.save(b)
    return attach(node, binary("div", a, b))


def _div_rule(node: Node, g: Tensor) -> Grads:
    (b,) = node.unpack()
    return [binary("div", g, b), None]


def mul_scalar(x: Tensor) -> Tensor:
    """x · number."""
    node = node_for(_scaled, (x,), "mul")
    return attach(node, unary("mul", x))


def div_scalar(x: Tensor) -> Tensor:
    """x / number."""
    node = node_for(_scaled, (x,), "div")
    return attach(node, unary("div", x))


def _scaled(node: Node, g: Tensor) -> Grads:
    return [unary(node.attributes, g)]


# Functions.


def power(x: Tensor) -> Tensor:
    """x to a constant power of two or more."""
    return keeps_input("pow", _power_rule, x)


def _power_rule(node: Node, g: Tensor) -> Grads:
    (x,) = node.unpack()
    lower = unary("pow", x)
    derivative = unary("mul", lower)
    return [binary("mul", g, derivative)]


def rsqrt(x: Tensor) -> Tensor:
    """1 / √x."""
    return keeps_result("rsqrt", _rsqrt_rule, x)


def _rsqrt_rule(node: Node, g: Tensor) -> Grads:
    (result,) = node.unpack()
    cube = unary("pow", result)
    half = unary("mul", g)
    return [binary("mul", half, cube)]


def exp(x: Tensor) -> Tensor:
    """e^x."""
    return keeps_result("exp", _exp_rule, x)


def _exp_rule(node: Node, g: Tensor) -> Grads:
    (result,) = node.unpack()
    return [binary("mul", g, result)]


def activation(name: str, x: Tensor) -> Tensor:
    """`gelu` or `silu`: keeps its input, and has a backward kernel of its own."""
    return keeps_input(name, _activation_rule, x, f"{name}_backward")


def _activation_rule(node: Node, g: Tensor) -> Grads:
    (x,) = node.unpack()
    return [binary(node.attributes, g, x)]


def gelu(x: Tensor) -> Tensor:
    """GELU."""
    return activation("gelu", x)


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x)."""
    return activation("silu", x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent. Keeps its result."""
    return keeps_result("tanh", _activation_rule, x, "tanh_backward")


def log(x: Tensor) -> Tensor:
    """Natural logarithm."""
    return keeps_input("log", _log_rule, x)


def _log_rule(node: Node, g: Tensor) -> Grads:
    (x,) = node.unpack()
    return [binary("div", g, x)]


def clamp(x: Tensor, bounds: int = 2, name: str = "clamp") -> Tensor:
    """x between two numbers, or with one bound not below or above one."""
    return keeps_input(name, _clamp_rule, x, bounds)


def _clamp_rule(node: Node, g: Tensor) -> Grads:
    (x,) = node.unpack()
    zero = scalar_like(g)
    above = unary("ge", x, DType.BOOL)
    below = unary("le", x, DType.BOOL) if node.attributes == 2 else None  # joined into `above` in place
    gradient = select(above, g, zero)
    del below
    return [gradient]


def absolute(x: Tensor) -> Tensor:
    """|x|."""
    return keeps_input("abs", _absolute_rule, x)


def _absolute_rule(node: Node, g: Tensor) -> Grads:
    (x,) = node.unpack()
    return [binary("mul", g, unary("sgn", x))]


def scalar_like(x: Tensor) -> Tensor:
    """A tensor without dimensions, of the type of `x`."""
    return made_from_nothing("scalar_tensor", x, (), x.dtype)


def select(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`torch.where` as a kernel, not differentiable by itself."""
    shape = broadcast_shape(condition.shape, broadcast_shape(a.shape, b.shape))
    operands = tuple((x.shape, x.strides) for x in (condition, a, b))
    return run_one("where", (condition, a, b), shape, result_strides(shape, operands), a.dtype)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`torch.where`."""
    node = node_for(_where_rule, (a, b))
    if node is not None:
        node.save(condition)
    return attach(node, select(condition, a, b))


def _where_rule(node: Node, g: Tensor) -> Grads:
    (condition,) = node.unpack()
    grad_b = select(condition, scalar_like(g), g) if node.needs(1) else None
    return [select(condition, g, scalar_like(g)) if node.needs(0) else None, grad_b]
