"""Pickles that would run something, and pickles that hold no weights."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.hostile.case import Case
from tests.hostile.weight_case import (
    FLAT,
    Make,
    bytes_file,
    case,
    torch_file,
    zipped,
)


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, how: str, folder: Path) -> None:
        self.how, self.mark = how, str(folder / "ran")

    def __reduce__(self) -> Any:
        import builtins
        import os

        touch = f"open({self.mark!r}, 'w').close()"
        ways: dict[str, Any] = {
            "os.system": (os.system, (f"touch {self.mark}",)),
            "exec": (builtins.exec, (touch,)),
            "eval": (builtins.eval, (touch,)),
            "open": (open, (self.mark, "w")),
            "getattr": (builtins.getattr, ("text", "upper")),
            "mkdir": (os.mkdir, (self.mark,)),
        }
        return ways[self.how]


def hostile(how: str, place: str, plain: bool = False, legacy: bool = False) -> Make:
    def make(folder: Path) -> Path:
        bad: Any = Runs(how, folder)
        content: Any = {"value": {**FLAT, "x": bad}, "key": {**FLAT, "meta": {"args": bad}}, "top": bad}[place]
        if plain:
            (folder / "w.pt").write_bytes(pickle.dumps(content))
        else:
            torch.save(content, folder / "w.pt", _use_new_zipfile_serialization=not legacy)
        return folder / "w.pt"

    return make


def pickles() -> Iterator[Case]:
    for how in ("os.system", "exec", "eval", "open", "mkdir"):
        for place in ("value", "key", "top"):
            yield case(f"{how} as {place}", hostile(how, place), ("more than weights",))
    yield case("getattr of os", hostile("getattr", "value"), ("w.pt",))
    for how in ("os.system", "eval"):
        yield case(f"legacy {how}", hostile(how, "top", legacy=True), ("w.pt",))
        yield case(f"plain {how}", hostile(how, "value", plain=True), ("plain pickle",))
    for protocol in range(2, 6):
        content = pickle.dumps({name: tensor.numpy() for name, tensor in FLAT.items()}, protocol)
        yield case(f"plain pickle of arrays, {protocol}", bytes_file("w.pt", content), ("plain pickle", "torch.save"))
    old = pickle.dumps({"a": 1}, 0)
    yield case("plain pickle, 0", bytes_file("w.pt", old), ("does not begin",))
    yield case("module", torch_file(torch.nn.Linear(2, 2)), ("more than weights",))
    yield case("array inside", torch_file({**FLAT, "extra": np.zeros(3)}), ("w.pt",))
    yield case("argparse beside", torch_file({"ema": FLAT, "args": Namespace(lr=1.0), "opt": {"state": {}}}))
    outside = b"\x80\x02}q\x00X\x01\x00\x00\x00acos\nsystem\n."  # a global without a call
    yield case("pickle of a global", bytes_file("w.pt", _as_archive(outside)), ("more than weights",))
    yield case("pickle cut", bytes_file("w.pt", _as_archive(b"\x80\x02}q\x00X")), ("cannot be read",))
    yield case("pickle of junk", bytes_file("w.pt", _as_archive(b"\xff" * 40)), ("cannot be read",))
    yield case("pickle underflow", bytes_file("w.pt", _as_archive(b"\x80\x020000.")), ("cannot be read",))
    yield case("pickle of nothing", bytes_file("w.pt", _as_archive(b"\x80\x02N.")), ("no tensors",))


def _as_archive(pickled: bytes) -> bytes:
    return zipped({"archive/data.pkl": pickled, "archive/byteorder": b"little", "archive/version": b"3\n"})
