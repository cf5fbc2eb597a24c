"""What PyTorch allocates, seen at its dispatcher: every kernel's new storages, and the bytes alive after it.

On the `meta` device a trace of a model of any size takes seconds and no memory, and equals that of a GPU but for what
kernels allocate inside themselves.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, slots=True)
class Event:
    """One kernel that allocated."""

    name: str
    outputs: tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...]
    """Shape, strides and type of each new tensor."""
    live_bytes: int
    flops: int
    """By the formulas of `torch.utils.flop_counter`."""


# PyTorch's counter does not know the CPU's attention (2.13); its arguments come in the same order.
_COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        torch.ops.aten._scaled_dot_product_flash_attention_backward
    ),
}


class MemoryTrace(TorchDispatchMode):
    """Context that records kernels. What exists before must be given to `hold`.

    `rounding`: every storage counts as a multiple of so many bytes (512 in CUDA's caching allocator).
    """

    def __init__(self, rounding: int = 1) -> None:
        super().__init__()
        self.rounding = rounding
        self.live_bytes = self.peak_bytes = 0
        self.events: list[Event] = []
        self._sizes: dict[int, int] = {}

    def hold(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that exist already. Returns their bytes."""
        before = self.live_bytes
        for tensor in tensors:
            self._count(tensor)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return self.live_bytes - before

    def _count(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return False
        size = -(-storage.nbytes() // self.rounding) * self.rounding
        self._sizes[key] = size
        self.live_bytes += size
        weakref.finalize(storage, self._free, key)
        return True

    def _free(self, key: int) -> None:
        self.live_bytes -= self._sizes.pop(key)

    def _flops(self, func: Any, args: Any, kwargs: Any, result: Any) -> int:
        formula = flop_registry.get(_COUNTED_AS.get(func.overloadpacket, func.overloadpacket))
        return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        new = tuple(
            (tuple(x.shape), x.stride(), str(x.dtype).removeprefix("torch."))
            for x in tree_leaves(result)
            if isinstance(x, Tensor) and self._count(x)
        )
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if new:
            flops = self._flops(func, args, kwargs or {}, result)
            self.events.append(Event(func.name().removeprefix("aten::").split(".")[0], new, self.live_bytes, flops))
        return result


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Flash attention by its own op."""
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


def efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Memory-efficient attention by its own op."""
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[0]


FORCED = {"flash": flash, "efficient": efficient}
"""Kernels that are called by name; PyTorch's own choice off a GPU is the composed one."""


@contextmanager
def forced_attention(kernel: str) -> Generator[None]:
    """Let the builders' modules call one attention kernel while the body runs.

    Their global names are replaced: a `TorchFunctionMode` would not be active while checkpoints recompute.
    """
    if kernel not in FORCED:
        yield
        return
    name = "scaled_dot_product_attention"
    modules = [m for key, m in sys.modules.items() if key.startswith("sora_spec.builders") and hasattr(m, name)]
    original = torch.nn.functional.scaled_dot_product_attention
    for module in modules:
        setattr(module, name, FORCED[kernel])
    try:
        yield
    finally:
        for module in modules:
            setattr(module, name, original)
