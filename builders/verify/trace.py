"""What PyTorch allocates, seen at its dispatcher: every kernel's new storages, and the bytes alive after it.

On the `meta` device a trace of a model of any size takes seconds and no memory, and equals that of a GPU but for what
kernels allocate inside themselves.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode, flop_registry

from sora_spec.builders.blocks import adaln
from sora_spec.errors import UserError
from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.tape import Op, Tape, Use

# PyTorch's counter does not know the CPU's attention (2.13); its arguments come in the same order.
_COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        torch.ops.aten._scaled_dot_product_flash_attention_backward
    ),
}


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of FLOPs, with the kernels that it does not know."""
    return FlopCounterMode(display=False, custom_mapping={op: _formula_of(like) for op, like in _COUNTED_AS.items()})


def _formula_of(op: Any) -> Any:
    """The formula of an op that the counter knows, marked as one that takes tensors and not their shapes."""
    formula = partial(flop_registry[op])
    formula._get_raw = True  # pyright: ignore[reportAttributeAccessIssue]
    return formula


def counting(counter: FlopCounterMode) -> TorchDispatchMode:
    """Context in which a counter counts. Its own context also hooks every module, and its hooks keep tensors alive."""
    return _FlopCounterMode(counter)


_TYPES = {kind.label: kind for kind in DType}


class MemoryTrace(TorchDispatchMode):
    """Context that records kernels on a tape. What exists before must be given to `hold`.

    `rounding`: every storage counts as a multiple of so many bytes (512 in CUDA's caching allocator).
    """

    def __init__(self, rounding: int = 1) -> None:
        super().__init__()
        self.tape = Tape(rounding)
        self.peak_bytes = 0
        self.storages: dict[int, int] = {}
        """Numbers of the storages that are alive, by address."""

    @property
    def live_bytes(self) -> int:
        """Bytes alive now."""
        return self.tape.live_bytes

    @property
    def ops(self) -> list[Op]:
        """Kernels that allocated, in the order in which they ran."""
        return self.tape.ops

    def hold(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that exist already. Returns their bytes."""
        before = self.live_bytes
        for tensor in tensors:
            self.count(tensor)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return self.live_bytes - before

    def count(self, tensor: Tensor) -> bool:
        """Count the storage of a tensor; False where it was counted before."""
        storage, tape = tensor.untyped_storage(), self.tape
        key = storage._cdata
        if key in self.storages:
            return False
        number = self.storages[key] = len(tape.sizes)
        tape.sizes.append(tape.rounded(storage.nbytes()))
        tape.born.append(len(tape.ops))
        tape.died.append(None)
        tape.live_bytes += tape.sizes[number]
        weakref.finalize(storage, self._free, key, number)
        return True

    def _free(self, key: int, number: int) -> None:
        del self.storages[key]
        self.tape.live_bytes -= self.tape.sizes[number]
        self.tape.died[number] = len(self.tape.ops)

    def _flops(self, func: Any, args: Any, kwargs: Any, result: Any) -> int:
        formula = flop_registry.get(_COUNTED_AS.get(func.overloadpacket, func.overloadpacket))
        return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0

    def uses(self, tensors: Iterable[Tensor]) -> Generator[Use]:
        """Storages and layouts of those tensors that are counted."""
        for x in tensors:
            number = self.storages.get(x.untyped_storage()._cdata)
            if number is not None:
                yield number, tuple(x.shape), x.stride(), _TYPES[str(x.dtype).removeprefix("torch.")]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, tape = func(*args, **(kwargs or {})), self.tape
        new = [x for x in tree_leaves(result) if isinstance(x, Tensor) and self.count(x)]
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if new:
            name = func.name().removeprefix("aten::").split(".")[0]
            op = Op(name, self.region(), tape.backward, self._flops(func, args, kwargs or {}, result), 0)
            given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            op.inputs, op.outputs = list(self.uses(given)), list(self.uses(new))
            op.read_bytes = sum(x.numel() * x.element_size() for x in given)
            op.written_bytes = sum(x.numel() * x.element_size() for x in new)
            op.live_bytes = tape.live_bytes
            tape.ops.append(op)
            self.recorded(op, func, args)
        return result

    def region(self) -> int:
        """Part of the model that the running kernel belongs to."""
        return self.tape.region

    def recorded(self, op: Op, func: Any, args: Any) -> None:
        """Look at an op that was recorded."""


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

    def along(axis: adaln.Axis, *rest: Any) -> Tensor:
        chosen.append(across_frames if axis == "time" else everywhere)
        try:
            return attend(axis, *rest)
        finally:
            chosen.pop()

    modules = [m for m in list(sys.modules.values()) if getattr(m, "__dict__", {}).get(name) is original]
    for module in modules:
        setattr(module, name, called)
    adaln.attend = along
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
