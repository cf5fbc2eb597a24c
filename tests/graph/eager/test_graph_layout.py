"""Strides against PyTorch's own."""

from __future__ import annotations

import subprocess
import sys

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_spec.graph.eager.layout import (
    contiguous_strides,
    dense_strides,
    is_contiguous,
    is_dense,
    result_strides,
    view_strides,
)


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    """A permuted, perhaps expanded or sliced tensor."""
    shape = shape or tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    order = draw(st.permutations(range(len(shape))))
    stored = [shape[dim] * draw(st.sampled_from((1, 1, 2))) for dim in order]
    back = sorted(range(len(shape)), key=lambda place: order[place])
    x = torch.empty(stored, device="meta").permute(back)
    return x[tuple(slice(0, size) for size in shape)]


def normal(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True))


@settings(deadline=None)
@given(tensors())
def test_predicates_are_pytorchs(x: torch.Tensor) -> None:
    shape, strides = tuple(x.shape), x.stride()
    assert contiguous_strides(shape) == torch.empty(shape, device="meta").stride()
    assert is_contiguous(shape, strides) == x.is_contiguous()
    assert is_dense(shape, strides) == torch.ops.aten.is_non_overlapping_and_dense(x)


@settings(deadline=None)
@given(tensors(), st.data())
def test_views_are_pytorchs(x: torch.Tensor, data: st.DataObject) -> None:
    rest, target = x.numel(), list[int]()
    while rest > 1 and len(target) < 5:
        size = data.draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0]))
        target.append(size)
        rest //= size
    shape = (*target, rest)
    found = view_strides(tuple(x.shape), x.stride(), shape)
    try:
        expected = x.view(shape).stride()
    except RuntimeError:
        expected = None
    assert found == expected


@settings(deadline=None)
@given(tensors(), st.data())
def test_results_of_pointwise_ops_lie_as_pytorchs(x: torch.Tensor, data: st.DataObject) -> None:
    shape = tuple(x.shape)
    other = tuple(data.draw(st.sampled_from((size, 1))) for size in shape)
    y = data.draw(tensors(other))
    result = x + y
    found = result_strides(tuple(result.shape), ((shape, x.stride()), (other, y.stride())))
    assert normal(shape, found) == normal(shape, result.stride())
    assert normal(shape, dense_strides(shape, x.stride())) == normal(shape, torch.empty_like(x).stride())


def test_the_graph_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; from sora_spec.graph import *; from sora_spec.language.loading import load_spec;"
        "s = load_spec('dit'); memory(graph_from_spec(s, 'denoiser_step')); graph_from_spec(s, 'vae_decode');"
        "print([m for m in ('torch', 'numpy', 'onnx', 'textual') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
