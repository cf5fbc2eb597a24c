"""safetensors whose header lies, and files of other kinds under its name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from safetensors.torch import save

from tests.hostile.case import Case
from tests.hostile.weight_case import (
    FLAT,
    bytes_file,
    case,
    saved,
)


def header(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(values: Any, body: bytes) -> bytes:
    raw = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    values, body = header(save(FLAT))
    change(values)
    return with_header(values, body)


def overlap(values: dict[str, Any]) -> None:
    one, two = list(values)[:2]
    values[one]["data_offsets"] = values[two]["data_offsets"]


def safetensors() -> Iterator[Case]:
    whole = save(FLAT)
    values_, body = header(whole)

    def bad(name: str, content: bytes, *words: str) -> Case:
        return case(f"safetensors {name}", bytes_file("w.safetensors", content), words or ("safetensors",))

    yield case("safetensors", bytes_file("w.safetensors", whole))
    yield case("safetensors with metadata", bytes_file("w.safetensors", save(FLAT, {"format": "pt"})))
    yield case("safetensors .SAFETENSORS", bytes_file("w.SAFETENSORS", whole))
    for share in (0.0, 0.0001, 0.01, 0.5, 0.999):
        yield bad(f"cut at {share}", whole[: int(len(whole) * share)])
    yield bad("with a tail", whole + b"more")
    yield bad("header too long", struct.pack("<Q", 1 << 62) + whole[8:])
    yield bad("header of 200 MB", struct.pack("<Q", 200_000_000) + whole[8:])
    yield bad("header of nothing", struct.pack("<Q", 0) + whole[8:])
    yield bad("header of junk", with_header(b"\xff" * 40, body))
    yield bad("header a list", with_header([], body))
    yield bad("header nested deep", with_header(b"[" * 100_000, body))
    yield bad("overlapping", changed(overlap))
    first = next(iter(values_))
    yield bad("offsets reversed", changed(lambda v: v[first]["data_offsets"].reverse()))
    yield bad("offsets outside", changed(lambda v: v[first].update(data_offsets=[0, 1 << 40])))
    yield bad("offsets negative", changed(lambda v: v[first].update(data_offsets=[-4, 4])))
    yield bad("offsets missing", changed(lambda v: v[first].pop("data_offsets")))
    yield bad("dtype unknown", changed(lambda v: v[first].update(dtype="F33")))
    yield bad("dtype twice as wide", changed(lambda v: v[first].update(dtype="F64")))
    yield bad("dtype half as wide", changed(lambda v: v[first].update(dtype="F16")))
    yield bad("shape negative", changed(lambda v: v[first].update(shape=[-1, 2])))
    yield bad("shape vast", changed(lambda v: v[first].update(shape=[1 << 40, 1 << 40])))
    yield bad("a hole", changed(lambda v: v.pop(first)))
    yield bad("same width, whole numbers", changed(lambda v: v[first].update(dtype="I32")), first, "int32")
    yield bad("same width, unsigned", changed(lambda v: v[first].update(dtype="U32")), "w.safetensors")
    double = json.dumps(values_)[:-1] + f', "{first}": ' + json.dumps(values_[first]) + "}"
    yield bad("a name twice", with_header(double.encode(), body), "twice")
    yield bad("of another name", saved(), "PyTorch file")
    yield case("safetensors as .pt", bytes_file("w.pt", whole), ("safetensors file by another name",))
    yield bad("a pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS")
    yield bad("a web page", b"<!DOCTYPE html><html><body>Not found</body></html>", "web page")
    yield bad("packed", b"\x1f\x8b" + bytes(60), "gzip")
    yield case("a pointer as .pt", bytes_file("w.pt", b"version https://git-lfs.github.com/spec/v1\n"), ("Git LFS",))
    yield case("GGUF", bytes_file("w.bin", b"GGUF" + bytes(60)), ("GGUF",))
    for suffix in (".txt", "", ".npz", ".h5", ".onnx"):
        yield case(f"suffix {suffix!r}", bytes_file(f"w{suffix}", whole), ("not a known kind",))
