"""Views, and the copies that a reshape makes where no view exists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod

from sora_spec.graph.eager.layout import (
    Shape,
    channels_last_strides,
    contiguous_strides,
    is_channels_last,
    view_strides,
)
from sora_spec.graph.eager.ops.pointwise import made_from_nothing, pass_on
from sora_spec.graph.eager.tensor import Grads, Node, Tensor, attach, node_for, run, run_one


def _view(x: Tensor, shape: Shape, strides: Shape, node: Node | None) -> Tensor:
    return attach(node, x.alias(shape, strides))


def reshape(x: Tensor, shape: Shape) -> Tensor:
    """`x.reshape(shape)`: a view where one exists, else a row-major copy."""
    if shape == x.shape:
        return x
    node = node_for(_reshape_rule, (x,), x.shape)
    strides = view_strides(x.shape, x.strides, shape)
    if strides is not None:
        return _view(x, shape, strides, node)
    copy = run_one("clone", (x,), x.shape, contiguous_strides(x.shape), x.dtype)
    return _view(copy, shape, contiguous_strides(shape), node)


def _reshape_rule(node: Node, g: Tensor) -> Grads:
    shape: Shape = node.attributes
    return [reshape(g, shape)]


def permute(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """`x.permute(order)`."""
    node = node_for(_permute_rule, (x,), order)
    return _view(x, tuple([x.shape[d] for d in order]), tuple([x.strides[d] for d in order]), node)


def _permute_rule(node: Node, g: Tensor) -> Grads:
    order: tuple[int, ...] = node.attributes
    back = [0] * len(order)
    for place, dim in enumerate(order):
        back[dim] = place
    return [permute(g, tuple(back))]


def transpose(x: Tensor, a: int, b: int) -> Tensor:
    """`x.transpose(a, b)`."""
    order = list(range(len(x.shape)))
    order[a], order[b] = order[b], order[a]
    return permute(x, tuple(order))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """A new dimension of size one before `dim`."""
    dim %= len(x.shape) + 1
    step = x.shape[dim] * x.strides[dim] if dim < len(x.shape) else 1
    node = node_for(_reshape_rule, (x,), x.shape)
    return _view(x, (*x.shape[:dim], 1, *x.shape[dim:]), (*x.strides[:dim], step, *x.strides[dim:]), node)


def expand_to(x: Tensor, shape: Shape) -> Tensor:
    """`x.expand(shape)`; the gradient's sum is the engine's."""
    lead = len(shape) - len(x.shape)
    own = (1,) * lead + x.shape
    strides = (0,) * lead + x.strides
    # `expand` sums its gradient by itself, but into the same shape and at the same moment as the engine would.
    node = node_for(pass_on, (x,))
    return _view(x, shape, tuple(0 if a != n else s for a, n, s in zip(own, shape, strides, strict=True)), node)


def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` entries of dimension `dim` from `start` on. Views do not record where in the storage they begin."""
    dim %= len(x.shape)
    if length == x.shape[dim]:
        return x
    node = node_for(_narrow_rule, (x,), x.shape)
    return _view(x, (*x.shape[:dim], length, *x.shape[dim + 1 :]), x.strides, node)


def _narrow_rule(node: Node, g: Tensor) -> Grads:
    shape: Shape = node.attributes
    return [run_one("slice_backward", (g,), shape, contiguous_strides(shape), g.dtype)]


def chunk(x: Tensor, pieces: int, dim: int) -> list[Tensor]:
    """Equal pieces of one dimension."""
    dim %= len(x.shape)
    size, left = divmod(x.shape[dim], pieces)
    assert not left, f"{x.shape} does not split into {pieces} along {dim}"
    node = node_for(_chunk_rule, (x,), dim)
    if node is not None:
        node.arity = pieces
    shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
    return [attach(node, x.alias(shape, x.strides), number) for number in range(pieces)]


def _chunk_rule(node: Node, *grads: Tensor | None) -> Grads:
    dim: int = node.attributes
    given = next(g for g in grads if g is not None)
    parts = [made_from_nothing("zeros", given, given.shape, given.dtype) if g is None else g for g in grads]
    return [cat(parts, dim)]


def unbind(x: Tensor, dim: int) -> list[Tensor]:
    """All entries of one dimension."""
    node = node_for(_unbind_rule, (x,), dim)
    size = x.shape[dim]
    if node is not None:
        node.arity = size
    shape, strides = x.shape[:dim] + x.shape[dim + 1 :], x.strides[:dim] + x.strides[dim + 1 :]
    return [attach(node, x.alias(shape, strides), number) for number in range(size)]


def _unbind_rule(node: Node, *grads: Tensor | None) -> Grads:
    parts = [g for g in grads if g is not None]
    assert len(parts) == len(grads), "every entry must be used"
    dim: int = node.attributes
    shape = (*parts[0].shape[:dim], len(parts), *parts[0].shape[dim:])
    return [run_one("stack", parts, shape, contiguous_strides(shape), parts[0].dtype)]


def cat(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Join along a dimension; the result is row-major, or has its channels innermost where all parts have."""
    first = parts[0]
    dim %= len(first.shape)
    sizes = tuple([p.shape[dim] for p in parts])
    shape = (*first.shape[:dim], sum(sizes), *first.shape[dim + 1 :])
    node = node_for(_cat_rule, parts, (dim, sizes))
    innermost = all(is_channels_last(part.shape, part.strides) for part in parts)
    strides = channels_last_strides(shape) if innermost else contiguous_strides(shape)
    return attach(node, run("cat", parts, ((shape, strides, first.dtype),))[0])


def _cat_rule(node: Node, g: Tensor) -> Grads:
    dim: int
    sizes: tuple[int, ...]
    dim, sizes = node.attributes
    shapes = [(*g.shape[:dim], size, *g.shape[dim + 1 :]) for size in sizes]
    return [g.alias(shape, g.strides) if node.needs(number) else None for number, shape in enumerate(shapes)]


# einops.


def rearrange(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """`einops.rearrange`: split, permute, join."""
    before, order, groups = _parse(pattern)
    split = _split(x.shape, before, sizes)
    y = permute(reshape(x, split), order) if order != tuple(range(len(order))) else reshape(x, split)
    sizes_now = iter([split[d] for d in order])
    shape = tuple([prod([next(sizes_now) for _ in range(group)]) for group in groups])
    return reshape(y, shape)


def _split(shape: Shape, groups: tuple[tuple[str, ...], ...], sizes: Mapping[str, int]) -> Shape:
    split: list[int] = []
    for size, names in zip(shape, groups, strict=True):
        if names == ("1",):
            assert size == 1
            continue
        known = prod([sizes.get(name, 1) for name in names])
        split.extend([sizes[name] if name in sizes else size // known for name in names])
    return tuple(split)


@lru_cache(maxsize=256)
def _parse(pattern: str) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...], tuple[int, ...]]:
    """Names of each input dimension, the order of the split dimensions in the result, and how many join into each."""
    left, right = (
        [tuple(token.strip("()").split()) for token in re.findall(r"\([^)]*\)|\S+", side)]
        for side in pattern.split("->")
    )
    names = [name for group in left for name in group if name != "1"]
    wanted = [name for group in right for name in group if name != "1"]
    counts = tuple(0 if group == ("1",) else len(group) for group in right)
    return tuple(left), tuple(names.index(name) for name in wanted), counts
