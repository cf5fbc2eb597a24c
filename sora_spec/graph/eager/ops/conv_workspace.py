"""What a convolution takes beside its tensors: PyTorch's choice of kernel, and what each kernel copies.

PyTorch runs fp32 convolutions by oneDNN, or, where they are small, by its own kernel, which unfolds its input into a
matrix (`ConvParams::use_mkldnn` in `aten/src/ATen/native/Convolution.cpp`). oneDNN copies input, weight and result into
blocks of channels; blocks are of 16 on machines with AVX-512, on which these rules follow every allocation but small
ones, and of 8 with AVX2. The unfolded matrix is the same on every machine.
"""

from __future__ import annotations

from math import prod

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape
from sora_spec.graph.eager.tape import Tape
from sora_spec.graph.eager.tensor import Tensor

BLOCK = 16
"""Channels of one of oneDNN's blocks under AVX-512."""
_NATIVE_VALUES = 20_480
"""A single sample of at most so many values, counted over its first three dimensions, is left to PyTorch's kernel."""


def uses_onednn(x: Tensor, weight: Tensor, strided: bool, threads: int) -> bool:
    """PyTorch's choice for a convolution without groups and dilation; half precision always goes to oneDNN."""
    if x.dtype is not DType.F32:
        return True
    batch, (rows, columns) = x.shape[0], weight.shape[-2:]
    if not (strided or batch >= 16 or columns != 1 or rows != 1 or threads > 1):
        return False
    return batch > 1 or (columns > 3 and rows > 3) or prod(x.shape[:4]) > _NATIVE_VALUES


def forward_workspace(tape: Tape, x: Tensor, weight: Tensor, shape: Shape, stride: tuple[int, ...]) -> int:
    """Bytes beside the result of `shape`, at the highest moment of the kernel that the tape's run takes."""
    if not (tape.on_cpu and tape.threads):
        return _winograd(tape, x.numel + prod(shape), weight, stride)
    if not uses_onednn(x, weight, any(step != 1 for step in stride), tape.threads):
        return _unfolded(x, weight, shape)
    result, size = _blocked(shape, x.dtype), prod(shape) * x.dtype.size
    # First everything in blocks, then the result in blocks beside the result.
    return max(_block_input(x) + _block_weight(weight) + result - size, result)


def backward_workspace(
    tape: Tape, g: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], wanted: tuple[bool, bool]
) -> int:
    """Bytes beside the gradients of input and weight, of those that are wanted."""
    if not (tape.on_cpu and tape.threads):
        return _winograd(tape, x.numel + g.numel, weight, stride)
    if not uses_onednn(x, weight, any(step != 1 for step in stride), tape.threads):
        return _unfolded(x, weight, g.shape)
    of_input, of_weight = (
        nbytes if want else 0 for nbytes, want in zip((x.nbytes, weight.nbytes), wanted, strict=True)
    )
    blocks = _blocked(g.shape, g.dtype)
    highest = [0]
    if wanted[0]:
        copied = _blocked(x.shape, x.dtype)
        highest += [blocks + _block_weight(weight) + copied, copied + of_input]
    if wanted[1]:
        highest.append(of_input + blocks + _block_input(x) + _block_weight(weight))
    return max(0, max(highest) - of_input - of_weight)


def _unfolded(x: Tensor, weight: Tensor, shape: Shape) -> int:
    """The matrix that the input is unfolded into; a 1x1 kernel needs none."""
    kernel = weight.shape[2:]
    if prod(kernel) == 1:
        return 0
    return x.shape[0] * weight.shape[1] * prod(kernel) * prod(shape[2:]) * x.dtype.size


def _whole_blocks(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def _blocked(shape: Shape, dtype: DType) -> int:
    return shape[0] * _whole_blocks(shape[1]) * prod(shape[2:]) * dtype.size


def _block_input(x: Tensor) -> int:
    """Fewer channels than a block are read as they lie."""
    return _blocked(x.shape, x.dtype) if x.shape[1] >= BLOCK else 0


def _block_weight(weight: Tensor) -> int:
    out, channels = weight.shape[:2]
    channels = _whole_blocks(channels) if channels >= BLOCK else channels
    return _whole_blocks(out) * channels * prod(weight.shape[2:]) * weight.dtype.size


def _winograd(tape: Tape, values: int, weight: Tensor, stride: tuple[int, ...]) -> int:
    """Bytes of the transformed tiles of cuDNN's Winograd kernels: of input and result, in fp32; 0 where there are none.

    They take 3 × 3 convolutions of images in steps of one, by tiles of 4 × 4 results from 6 × 6 values (Lavin and Gray,
    arXiv 1509.09308), so that 36 numbers stand for every 16. Which kernel cuDNN takes is not documented: see
    docs/planner.md for the published runs that this agrees with.
    """
    if not tape.winograd or tuple(weight.shape[2:]) != (3, 3) or any(step != 1 for step in stride):
        return 0
    return values * 36 // 16 * DType.F32.size
