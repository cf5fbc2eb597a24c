"""Which files an ONNX graph takes its weights from, without the onnx package: a bundle generates without it.

ONNX is protobuf: fields of a number and a wire type, one after the other (protobuf.dev/programming-guides/encoding).
Tensors may lie anywhere in a model (initialisers, attributes, branches, functions), so the walk descends into every
field that can lead to one; the numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from sora_spec.errors import UserError

# Message → its fields that are messages and can lead to a tensor.
_INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEEPEST = 100


def external_files(path: Path) -> set[str]:
    """What the tensors of the ONNX file at `path` call the files that their values lie in, as written there.

    Raises UserError when the file is no ONNX model.
    """
    if path.stat().st_size == 0:
        raise UserError(f"{path} is not an ONNX model: it is empty", "export the bundle again with --force")
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
        ):
            return set(_locations(whole, 0, len(whole), "model", 0))
    except (IndexError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not an ONNX model: {error}", "export the bundle again with --force") from error


def _locations(data: memoryview, start: int, stop: int, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    inner = _INNER[kind]
    for number, begin, end in _fields(data, start, stop):
        what = inner.get(number)
        if what == "entry":
            key, value = _entry(data, begin, end)
            if key == "location":
                yield value
        elif what is not None:
            yield from _locations(data, begin, end, what, depth + 1)


def _entry(data: memoryview, start: int, stop: int) -> tuple[str, str]:
    texts = {number: bytes(data[begin:end]).decode() for number, begin, end in _fields(data, start, stop)}
    return texts.get(1, ""), texts.get(2, "")


def _fields(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of the fields with a length; the others hold no message."""
    at = start
    while at < stop:
        tag, at = _varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(data, at, stop)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, at = _varint(data, at, stop)
            if at + length > stop:
                raise ValueError("a field reaches beyond its end")
            yield number, at, at + length
            at += length
        else:
            raise ValueError(f"wire type {wire} is none of ONNX's")
    if at != stop:
        raise ValueError("its last field is cut short")


def _varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= stop:
            raise ValueError("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise ValueError("a number has no end")
