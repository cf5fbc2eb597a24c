"""Data types of tensors: their names as PyTorch prints them, and their sizes."""

from __future__ import annotations

from enum import Enum


class DType(Enum):
    """A data type; `size` is the bytes of one element, `rank` its place in type promotion."""

    BOOL = ("bool", 1, 0)
    UINT64 = ("uint64", 8, 1)
    INT32 = ("int32", 4, 1)
    INT64 = ("int64", 8, 1)
    BF16 = ("bfloat16", 2, 2)
    F16 = ("float16", 2, 2)
    F32 = ("float32", 4, 3)
    F64 = ("float64", 8, 4)

    def __init__(self, label: str, size: int, rank: int) -> None:
        self.label = label
        self.size = size
        self.rank = rank


def promote(a: DType, b: DType) -> DType:
    """Type of the result of a pointwise op over both, neither of them a number."""
    return a if a.rank >= b.rank else b
