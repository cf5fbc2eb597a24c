"""Matrix products: linear layers and batched products."""

from __future__ import annotations

from math import prod

from sora_spec.graph.eager.layout import Shape, contiguous_strides
from sora_spec.graph.eager.ops.pointwise import add, add_in_place
from sora_spec.graph.eager.ops.views import reshape, transpose
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run_one


def matrix(name: str, inputs: tuple[Tensor, ...], a: Tensor, b: Tensor) -> Tensor:
    """Kernel for a (..., M, K) times b (..., K, N); 2·M·K·N FLOPs for each of the batch."""
    shape = (*a.shape[:-1], b.shape[-1])
    return run_one(name, inputs, shape, contiguous_strides(shape), a.dtype, 2 * a.numel * b.shape[-1])


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear` with a bias on (..., K), weight (N, K): one `addmm` over the rows where they are row-major."""
    columns = transpose(weight, 0, 1)
    if len(x.shape) == 2:
        return addmm(bias, x, columns)
    shape = (*x.shape[:-1], weight.shape[0])
    rows = (prod(x.shape[:-1]), x.shape[-1])
    if x.contiguous_layout:
        return reshape(addmm(bias, reshape(x, rows), columns), shape)
    return _with_bias(reshape(mm(reshape(x, rows), columns), shape), bias)


def _with_bias(y: Tensor, bias: Tensor) -> Tensor:
    """The sum: in place, but anew under a trace."""
    return add(y, bias) if y.tape.observed else add_in_place(y, bias)


def linear_without_bias(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear` without a bias on (..., K), weight (N, K): one `mm` over the rows."""
    rows = reshape(x, (prod(x.shape[:-1]), x.shape[-1]))
    return reshape(mm(rows, transpose(weight, 0, 1)), (*x.shape[:-1], weight.shape[0]))


def mm(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of two matrices."""
    node = node_for(_mm_rule, (a, b), (_column_major(a), _column_major(b)))
    if node is not None:
        node.save(a if node.needs(1) else None, b if node.needs(0) else None)
    return attach(node, _mm(a, b))


def _mm_rule(node: Node, g: Tensor) -> Grads:
    a, b = node.unpack()
    a_columns: bool
    b_columns: bool
    a_columns, b_columns = node.attributes
    grad_b = _grad_b(g, a, b_columns) if node.needs(1) else None
    return [_grad_a(g, b, a_columns) if node.needs(0) else None, grad_b]


def addmm(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """bias + a @ b."""
    node = node_for(_addmm_rule, (bias, a, b), (_column_major(a), _column_major(b)))
    if node is not None:
        node.save(a if node.needs(2) else None, b if node.needs(1) else None)
    return attach(node, matrix("addmm", (bias, a, b), a, b))


def _addmm_rule(node: Node, g: Tensor) -> Grads:
    a, b = node.unpack()
    a_columns: bool
    b_columns: bool
    a_columns, b_columns = node.attributes
    grad_a = _grad_a(g, b, a_columns) if node.needs(1) else None
    grad_b = _grad_b(g, a, b_columns) if node.needs(2) else None
    return [g if node.needs(0) else None, grad_a, grad_b]


def _column_major(x: Tensor) -> bool:
    return x.strides[0] == 1 and x.strides[1] == x.shape[0]


def _grad_a(g: Tensor, b: Tensor, columns: bool) -> Tensor:
    if columns:
        return transpose(_mm(b, transpose(g, 0, 1)), 0, 1)
    return _mm(g, transpose(b, 0, 1))


def _grad_b(g: Tensor, a: Tensor, columns: bool) -> Tensor:
    if columns:
        return transpose(_mm(transpose(g, 0, 1), a), 0, 1)
    return _mm(transpose(a, 0, 1), g)


def _mm(a: Tensor, b: Tensor) -> Tensor:
    return matrix("mm", (a, b), a, b)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`torch.matmul` of two tensors of four dimensions: one `bmm` over the joined batch."""
    batch: Shape = a.shape[:2]
    folded_a = reshape(a, (batch[0] * batch[1], *a.shape[2:]))
    folded_b = reshape(b, (batch[0] * batch[1], *b.shape[2:]))
    return reshape(bmm(folded_a, folded_b), (*batch, a.shape[2], b.shape[3]))


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """Batched product of (P, M, K) and (P, K, N)."""
    node = node_for(_bmm_rule, (a, b))
    if node is not None:
        node.save(a if node.needs(1) else None, b if node.needs(0) else None)
    return attach(node, matrix("bmm", (a, b), a, b))


def _bmm_rule(node: Node, g: Tensor) -> Grads:
    a, b = node.unpack()
    grad_b = grad_a = None
    if node.needs(1):
        turned = transpose(a, 1, 2)
        grad_b = matrix("bmm", (turned, g), turned, g)
    if node.needs(0):
        turned = transpose(b, 1, 2)
        grad_a = matrix("bmm", (g, turned), g, turned)
    return [grad_a, grad_b]
