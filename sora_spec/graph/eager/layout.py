"""Where the elements of a tensor lie: PyTorch's rules for strides, views and the layout of results. Pure functions.

The rules decide when a reshape copies, which is part of the memory of a model. Sources: ATen's `TensorUtils.cpp`
(`computeStride`), `TensorIterator.cpp` (`reorder_dimensions`) and `ExpandUtils.cpp` (`infer_dense_strides`).
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

Shape = tuple[int, ...]


@lru_cache(maxsize=16_384)
def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides; an empty dimension counts as one."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


@lru_cache(maxsize=16_384)
def is_contiguous(shape: Shape, strides: Shape) -> bool:
    """Whether the elements are in row-major order without gaps; strides of dimensions of size one do not matter."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 0:
            return True
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def same_places(shape: Shape, a: Shape, b: Shape) -> bool:
    """Whether two strides put the elements at the same places; dimensions of size one do not matter."""
    return a == b or all(size == 1 or x == y for size, x, y in zip(shape, a, b, strict=True))


@lru_cache(maxsize=16_384)
def is_dense(shape: Shape, strides: Shape) -> bool:
    """Whether the elements fill a block of memory, each once, in any order of dimensions."""
    step = 1
    for stride, size in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if stride != step:
            return False
        step *= size
    return True


@lru_cache(maxsize=16_384)
def view_strides(shape: Shape, strides: Shape, new_shape: Shape) -> Shape | None:
    """Strides of a view of another shape, or None where only a copy can have that shape."""
    if prod(shape) == 0 or not shape:
        return contiguous_strides(new_shape)
    new_strides = [0] * len(new_shape)
    view_dim = len(new_shape) - 1
    base = strides[-1]
    chunk = view = 1
    for dim in range(len(shape) - 1, -1, -1):
        chunk *= shape[dim]
        if dim and (shape[dim - 1] == 1 or strides[dim - 1] == chunk * base):
            continue
        while view_dim >= 0 and (view < chunk or new_shape[view_dim] == 1):
            new_strides[view_dim] = view * base
            view *= new_shape[view_dim]
            view_dim -= 1
        if view != chunk:
            return None
        if dim:
            base, chunk, view = strides[dim - 1], 1, 1
    return tuple(new_strides) if view_dim == -1 else None


@lru_cache(maxsize=16_384)
def result_strides(shape: Shape, operands: tuple[tuple[Shape, Shape], ...]) -> Shape:
    """Strides that a pointwise op gives its result of `shape`, from the (shape, strides) of its operands."""
    if all(operand_shape == shape for operand_shape, _ in operands):
        if all(is_contiguous(*operand) for operand in operands):
            return contiguous_strides(shape)
        first = operands[0][1]
        if all(strides == first for _, strides in operands) and is_dense(shape, first):
            return first
    return _ordered_strides(shape, [_broadcast_strides(shape, *operand) for operand in operands])


def dense_strides(shape: Shape, strides: Shape) -> Shape:
    """Strides of a copy that keeps the order of dimensions (`torch.preserve_format`)."""
    return strides if is_dense(shape, strides) else result_strides(shape, ((shape, strides),))


def _broadcast_strides(shape: Shape, operand_shape: Shape, strides: Shape) -> list[int]:
    missing = len(shape) - len(operand_shape)
    steps = [0] * missing
    for size, own, stride in zip(shape[missing:], operand_shape, strides, strict=True):
        steps.append(0 if own == 1 and size != 1 else stride)
    return steps


def _ordered_strides(shape: Shape, operands: list[list[int]]) -> Shape:
    """TensorIterator's insertion sort of the dimensions, from the fastest to the slowest, with its ambiguous ties."""
    order = list(range(len(shape) - 1, -1, -1))
    for start in range(1, len(order)):
        moving = start
        for other in range(start - 1, -1, -1):
            verdict = _compare(shape, operands, order[other], order[moving])
            if verdict > 0:
                order[other], order[moving] = order[moving], order[other]
                moving = other
            elif verdict < 0:
                break
    strides = [0] * len(shape)
    step = 1
    for dim in order:
        strides[dim] = step
        step *= max(shape[dim], 1)
    return tuple(strides)


def _compare(shape: Shape, operands: list[list[int]], first: int, second: int) -> int:
    for strides in operands:
        a, b = strides[first], strides[second]
        if a == 0 or b == 0:
            continue
        if a != b:
            return -1 if a < b else 1
        if shape[first] > shape[second]:
            return 1
    return 0


@lru_cache(maxsize=16_384)
def broadcast_shape(a: Shape, b: Shape) -> Shape:
    """Shape of a pointwise op over two operands."""
    if a == b:
        return a
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    lead = len(long) - len(short)
    tail: list[int] = []
    for x, y in zip(long[lead:], short, strict=True):
        assert x == y or x == 1 or y == 1, f"shapes {a} and {b} do not broadcast"
        tail.append(max(x, y) if 0 not in (x, y) else 0)
    return long[:lead] + tuple(tail)


@lru_cache(maxsize=16_384)
def is_channels_last(shape: Shape, strides: Shape) -> bool:
    """Whether images (B, C, H, W) or clips (B, C, F, H, W) lie with their channels innermost, gaps allowed.

    ATen's `is_channels_last_strides_2d` and `…_3d`.
    """
    if len(shape) not in (4, 5) or strides[1] == 0:
        return False
    least = 0
    for dim in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[dim] == 0 or strides[dim] < least or (dim == 0 and least == strides[1]):
            return False
        least = strides[dim] * max(shape[dim], 1)
    return True


def channels_last_strides(shape: Shape) -> Shape:
    """Strides of a dense tensor (B, C, ...) whose channels are innermost."""
    inner = contiguous_strides((shape[0], *shape[2:], shape[1]))
    return (inner[0], inner[-1], *inner[1:-1])
