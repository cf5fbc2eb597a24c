"""Files of torch.save, rewritten, cut and damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from tests.hostile.case import Case
from tests.hostile.weight_case import (
    FLAT,
    bytes_file,
    case,
    rezipped,
    saved,
    torch_file,
    zipped,
)


def big_endian(name: str, data: bytes) -> bytes:
    if name.endswith("byteorder"):
        return b"big"
    return np.frombuffer(data, "<f4").astype(">f4").tobytes() if "/data/" in name else data


def flipped(content: bytes, position: float) -> bytes:
    changed = bytearray(content)
    changed[int(len(changed) * position)] ^= 0x40
    return bytes(changed)


def without_sums() -> bytes:
    torch.serialization.set_crc32_options(False)
    try:
        return saved()
    finally:
        torch.serialization.set_crc32_options(True)


def archives() -> Iterator[Case]:
    kinds = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
    yield case("zip deflated", bytes_file("w.pt", rezipped(compression=kinds["deflate"])))
    yield case("zip, tensors deflated", bytes_file("w.pt", rezipped(compression=kinds["deflate"], only="/data/")))
    yield case("zip, one tensor deflated", bytes_file("w.pt", rezipped(compression=kinds["deflate"], only="/data/3")))
    yield case("zip, pickle deflated", bytes_file("w.pt", rezipped(compression=kinds["deflate"], only="data.pkl")))
    for kind in ("bzip2", "lzma"):
        packed = rezipped(compression=kinds[kind])
        yield case(f"zip {kind}", bytes_file("w.pt", packed), ("cannot be read",))
    yield case("zip rewritten without alignment", bytes_file("w.pt", rezipped()))
    yield case("zip big endian", bytes_file("w.pt", rezipped(big_endian)))
    yield case("zip big endian deflated", bytes_file("w.pt", rezipped(big_endian, kinds["deflate"])))
    odd = rezipped(lambda name, data: b"middle" if name.endswith("byteorder") else data)
    yield case("zip of unknown byte order", bytes_file("w.pt", odd), ("cannot be read",))
    plain = rezipped(lambda name, data: None if name.endswith("byteorder") else data)
    yield case("zip without byte order", bytes_file("w.pt", plain))
    yield case("zip without sums", bytes_file("w.pt", without_sums()))
    for position in (0.2, 0.4, 0.6, 0.8):
        yield case(f"zip, bit flipped at {position}", bytes_file("w.pt", flipped(saved(), position)), ("damaged",))
    deflated = flipped(rezipped(compression=kinds["deflate"]), 0.5)
    yield case("zip deflated, bit flipped", bytes_file("w.pt", deflated), ("damaged",))
    for share in (0.1, 0.5, 0.9, 0.999):
        content = saved()
        yield case(f"zip cut at {share}", bytes_file("w.pt", content[: int(len(content) * share)]), ("cut short",))
    lost = rezipped(lambda name, data: None if name.endswith("/data/2") else data)
    yield case("zip without one tensor", bytes_file("w.pt", lost), ("cannot be read",))
    yield case("zip with a short tensor", bytes_file("w.pt", _short(zipfile.ZIP_STORED)), ("too short",))
    yield case("zip deflated with a short tensor", bytes_file("w.pt", _short(kinds["deflate"])), ("expected size",))
    long = rezipped(lambda name, data: data + b"12345678" if name.endswith("/data/2") else data)
    yield case("zip with a long tensor", bytes_file("w.pt", long))
    yield case("zip with a second data", bytes_file("w.pt", rezipped(more={"archive/data/0": b"0" * 64})), ("twice",))
    yield case("zip with a second pickle", bytes_file("w.pt", rezipped(more={"archive/data.pkl": b"."})), ("twice",))
    yield case("zip without pickle", bytes_file("w.pt", zipped({"notes.txt": b"hello"})), ("data.pkl", "notes.txt"))
    yield case("zip of a folder", bytes_file("w.pt", zipped({"w/weights.safetensors": save(FLAT)})), ("data.pkl",))
    yield case("empty zip", bytes_file("w.pt", b"PK\x05\x06" + bytes(18)), ("data.pkl",))
    yield case("zip after junk", bytes_file("w.pt", b"#!/bin/sh\n" + saved()), ("w.pt",))
    yield case("TorchScript", _script, ("TorchScript",))
    yield case("legacy file", torch_file(FLAT, _use_new_zipfile_serialization=False))
    yield case("legacy protocol 3", torch_file(FLAT, _use_new_zipfile_serialization=False, pickle_protocol=3))
    legacy = saved(_use_new_zipfile_serialization=False)
    for share in (0.05, 0.5, 0.99):
        cut = legacy[: int(len(legacy) * share)]
        yield case(f"legacy cut at {share}", bytes_file("w.pt", cut), ("cannot be read",))
    yield case("nothing", bytes_file("w.pt", b""), ("empty",))
    yield case("text", bytes_file("w.pt", b"weights to come"), ("does not begin",))
    yield case("zeros", bytes_file("w.pt", bytes(4096)), ("does not begin",))
    for suffix in ("bin", "pth", "ckpt", "PT"):
        yield case(f"suffix .{suffix}", torch_file(FLAT, f"w.{suffix}"))


def _short(compression: int) -> bytes:
    return rezipped(lambda name, data: data[:-8] if name.endswith("/data/2") else data, compression)


def _script(folder: Path) -> Path:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / "w.pt"))
    return folder / "w.pt"
