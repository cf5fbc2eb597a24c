"""What PyTorch and the driver take beside the tensors of a model: workspaces, fragmentation, context."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sora_spec.language.facts import attended
from sora_spec.language.shapes import derive_shapes
from sora_spec.plan.devices.hardware import Device
from sora_spec.plan.interval import Interval
from sora_spec.plan.memory.meaning import Owner
from sora_spec.plan.memory.terms import MIB, Phase, Term, hold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sora_spec.language.schema.spec import Spec
    from sora_spec.plan.memory.schedule import Schedule
    from sora_spec.plan.memory.workload import Workload

# Share of the tensors that the caching allocator holds and cannot use. Published: 8.5 % (Latte-XL on H200, 69,840 MiB
# allocated, 75,756 reserved).
_FRAGMENTATION = Interval(0.005, 0.06, 0.15)
_CPU_FRAGMENTATION = Interval(0.0, 0.03, 0.15)
# Of the tiles of Winograd kernels. Not fitted: three programs agree with it (docs/planner.md, "Convolutions on a GPU").
_CUDA_SCRATCH = Interval(0.0, 1.0, 1.3)
# Of what PyTorch's and oneDNN's kernels take under AVX-512, where 34 measured encodings and decodings were met to
# 0.01 %. Without these instructions oneDNN can do with less: a decoding of SD's VAE once took +5.4 % of its tensors.
_CPU_SCRATCH = Interval(0.0, 1.0, 1.1)


def matrix_workspace(device: Device) -> list[Term]:
    """cuBLAS's workspace, which PyTorch allocates once per stream (`aten/src/ATen/cuda/CublasHandlePool.cpp`)."""
    if device.kind == "cpu":
        return []
    hopper = device.capability >= 9
    return [hold("machine", "cuBLAS workspace", 32 * MIB if hopper else 8_519_680)]


def conv_workspace(device: Device, work: Workload, owner: Owner = "VAE") -> list[Term]:
    """Scratch of the convolutions: known by kernel on the CPU; on CUDA what cuDNN takes where there is room for it."""
    share = _CPU_SCRATCH if device.kind == "cpu" else _CUDA_SCRATCH
    return [hold(owner, "convolution workspace", share.times(workspace_above_peak(work.schedule, work.batch)))]


def within_room(device: Device, phase: Phase, extra: Iterable[Term]) -> Phase:
    """The phase with no more scratch of convolutions than the device has room for; `extra`: what the driver takes.

    PyTorch runs cuDNN's next plan where memory for the faster one is lacking (`try_plans` in
    `aten/src/ATen/native/cudnn/Conv_v8.cpp`), so that scratch alone lets nothing fail.
    """
    scratch = [term for term in phase.terms if term.use == "convolution workspace"]
    if device.kind == "cpu" or not scratch:
        return phase
    others = phase.allocated.high - sum(term.bytes.high for term in scratch)
    free = device.memory_bytes - sum(term.bytes.high for term in extra)
    # Whole bytes, so that what others and scratch take together does not fall by a rounding when others grow.
    room = max(0, int(free / (1 + _FRAGMENTATION.high)) - 1 - others)
    less = [
        term._replace(bytes=Interval(*(min(end, room) for end in term.bytes))) if term in scratch else term
        for term in phase.terms
    ]
    return replace(phase, terms=tuple(less))


def workspace_above_peak(schedule: Schedule, batch: int) -> int:
    """By how much the highest moment rises once the kernels' own bytes count; VAEs repeat nothing that grows."""
    levels = schedule.levels(schedule.sizes_at(batch))
    workspaces = schedule.workspaces_at(batch)
    return max(level + more for level, more in zip(levels, workspaces, strict=True)) - max(levels)


def attention_workspace(
    spec: Spec, samples: int, device: Device, kernel: str, across_frames: str | None = None
) -> list[Term]:
    """FlashAttention-2's backward pass accumulates dQ and row sums in fp32, tokens rounded to 128, heads to 32.

    `across_frames`: the kernel of attention across frames, where it is not `kernel`.
    """
    kernels = (kernel, across_frames or kernel)
    if device.kind == "cpu" or "flash" not in kernels or spec.backbone.kind != "transformer":
        return []
    heads, width = spec.backbone.heads, spec.backbone.width // spec.backbone.heads
    shapes = derive_shapes(spec)
    lengths = [length for block in attended(spec.temporal, shapes.grid) for length in block]
    sequences = zip(lengths, kernels, strict=False)  # attention across frames alone, where there is one, is second
    rows = [samples * shapes.tokens // n * (-(-n // 128) * 128) for n, used in sequences if used == "flash"]
    nbytes = 4 * max(rows, default=0) * heads * (-(-width // 32) * 32 + 1)
    return [hold("machine", "attention workspace", Interval(0, nbytes, nbytes))]


def fragmentation(device: Device, allocated: Interval) -> Term:
    """What the caching allocator reserves and cannot use."""
    share = _FRAGMENTATION if device.kind == "cuda" else _CPU_FRAGMENTATION
    nbytes = Interval(*(share[i] * allocated[i] for i in range(3)))
    return hold("machine", "fragmentation", nbytes)


def context(device: Device, ranks: int) -> list[Term]:
    """Driver, kernels and communication buffers, outside PyTorch's allocator."""
    if device.kind == "cpu":
        return [hold("machine", "Python and PyTorch", Interval(300 * MIB, 450 * MIB, 700 * MIB))]
    found = [hold("machine", "CUDA context", Interval(350 * MIB, 520 * MIB, 900 * MIB))]
    if ranks > 1:
        found.append(hold("ranks", "NCCL buffers", Interval(150 * MIB, 500 * MIB, 1500 * MIB)))
    return found
