"""What PyTorch allocates, seen at its dispatcher: every kernel's new storages, and the bytes alive after it.

On the `meta` device a trace of a model of any size takes seconds and no memory, and equals that of a GPU but for what
kernels allocate inside themselves.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.tape import Op, Tape, Use

# PyTorch's counter does not know the CPU's attention (2.13); its arguments come in the same order.
_COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        torch.ops.aten._scaled_dot_product_flash_attention_backward
    ),
}
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
