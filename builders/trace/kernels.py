"""Kernels that a GPU would run, called by name where PyTorch would pick others."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sora_spec.builders.blocks import adaln
from sora_spec.builders.blocks.sequences import Sequences
from sora_spec.errors import UserError


def flash(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Flash attention by its own op. It takes no bias: PyTorch then picks the memory-efficient kernel."""
    if bias is not None:
        return efficient(q, k, v, bias)
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


def efficient(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Memory-efficient attention by its own op, handed a bias as ATen hands it (`pad_bias`, `preprocess_mask`)."""
    if bias is not None:
        keys = k.shape[2]
        wide = bias if keys % 8 == 0 else torch.nn.functional.pad(bias, (0, -keys % 8))
        bias = wide[..., :keys].expand(*q.shape[:3], keys)
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, True)[0]


_ANY_KERNEL = torch.nn.functional.scaled_dot_product_attention


def on_cpu(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """The CPU's attention, on `meta` too, where its op is called unless channels lie apart."""
    if q.device.type != "meta" or any(x.stride(-1) != 1 for x in (q, k, v)):
        return _ANY_KERNEL(q, k, v, bias)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias)[0]


FORCED = {"flash": flash, "efficient": efficient, "cpu": on_cpu}
"""Kernels that are called by name; PyTorch's own choice off a GPU is the composed one."""


@contextmanager
def forced_attention(kernel: str, temporal: str | None = None) -> Generator[None]:
    """Let all modules call one attention kernel while the body runs, and across frames `temporal`.

    Their global names are replaced: a `TorchFunctionMode` would not be active while checkpoints recompute.
    """
    name, attend = "scaled_dot_product_attention", adaln.attend
    original = torch.nn.functional.scaled_dot_product_attention
    everywhere = FORCED.get(kernel, original)
    across_frames = everywhere if temporal is None else FORCED.get(temporal, original)
    chosen = [everywhere]

    def called(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **others: Any) -> Tensor:
        if others.get("is_causal") or others.get("enable_gqa") or others.get("dropout_p"):
            raise UserError("attention with is_causal, enable_gqa or dropout_p cannot be recorded", "give it a mask")
        return chosen[-1](q, k, v) if attn_mask is None else chosen[-1](q, k, v, attn_mask)

    def within(sequences: Sequences, *rest: Any) -> Tensor:
        chosen.append(across_frames if sequences.across_frames else everywhere)
        try:
            return attend(sequences, *rest)
        finally:
            chosen.pop()

    modules = [m for m in list(sys.modules.values()) if getattr(m, "__dict__", {}).get(name) is original]
    for module in modules:
        setattr(module, name, called)
    adaln.attend = within
    try:
        yield
    finally:
        adaln.attend = attend
        for module in modules:
            setattr(module, name, original)


@contextmanager
def fused_rms_norm(active: bool) -> Generator[None]:
    """Let `meta` run RMS norm as one kernel, as CUDA does, while the body runs.

    Elsewhere PyTorch composes it, as the op has a kernel for CUDA and MPS only. With one for `meta`, autograd takes the
    derivative that PyTorch has for the op, and with it what that keeps. The kernels lay out their results as CUDA's do
    (`layer_norm_kernel.cu`): row-major, and a float32 reciprocal for each row.
    """
    if not active:
        yield
        return
    library = torch.library.Library("aten", "IMPL")
    # Library.impl refuses kernels for `meta` where an op can be composed; the object below it does not.
    implement: Any = library.m.impl  # pyright: ignore[reportOptionalMemberAccess]
    implement("aten::_fused_rms_norm", "Meta", _fused_rms_norm, False)
    implement("aten::_fused_rms_norm_backward", "Meta", _fused_rms_norm_backward, False)
    try:
        yield
    finally:
        library._destroy()


def _fused_rms_norm(x: Tensor, shape: list[int], weight: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor]:
    rows = (*x.shape[: x.dim() - len(shape)], *(1 for _ in shape))
    row_major = torch.empty_like(x, memory_format=torch.contiguous_format)
    return row_major, torch.empty(rows, device=x.device, dtype=torch.float32)


def _fused_rms_norm_backward(
    gradient: Tensor, x: Tensor, shape: list[int], rstd: Tensor, weight: Tensor, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    row_major = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else None
    return row_major, torch.empty_like(weight) if wanted[1] else None
