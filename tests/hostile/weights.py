"""Checkpoints as they come, damaged, wrapped, mislabelled or hostile: the right tensors, or a refusal that says why.

All run in this process. A hostile pickle would leave a file behind; none may.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from sora_spec import output
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.vae.image_kl import ImageKlCodec
from sora_spec.builders.weights import sd_vae
from sora_spec.builders.weights.dit import load_official, to_official
from sora_spec.errors import UserError
from sora_spec.schema.spec import Spec
from sora_spec.schema.vae import Compression, ImageKlVae
from tests.hostile.case import Case

Make = Callable[[Path], Path]
"""Writes a file into an empty folder, and says what to read."""
ANSWER = "refused"


def _spec() -> Spec:
    return Spec.model_validate(
        {
            "version": 1,
            "name": "hostile",
            "clip": {"frames": 1, "height": 64, "width": 64},
            "vae": {"kind": "image_kl", "channels": 4},
            "patch": {"time": 1, "space": 2},
            "backbone": {"kind": "transformer", "depth": 2, "width": 32, "heads": 2},
            "condition": {"kind": "class", "classes": 10, "dropout": 0.1},
            "objective": {"kind": "ddpm"},
            "sampler": {"kind": "ddpm"},
        }
    )


SPEC = _spec()
VAE = ImageKlVae(
    kind="image_kl", compression=Compression(time=1, space=4), width=8, multipliers=(1, 2, 2), blocks=1, groups=4
)


def _random(shapes: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor if name == "pos_embed" else torch.randn(tensor.shape, generator=generator)
        for name, tensor in shapes.items()
    }


OWN = _random(build_denoiser(SPEC).state_dict(), 0)
OTHER = _random(build_denoiser(SPEC).state_dict(), 1)
FLAT, FLAT_OTHER = to_official(OWN, SPEC), to_official(OTHER, SPEC)
CODEC = _random(ImageKlCodec(VAE).state_dict(), 2)
FIRST = "x_embedder.proj.weight"


def prefixed(prefix: str, state: Mapping[str, Tensor] = FLAT) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def compare(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = 0.0) -> str | None:
    if found.keys() != wanted.keys():
        return f"other names: {sorted(found.keys() ^ wanted.keys())[:4]}"
    for name, tensor in wanted.items():
        got = found[name]
        if got.dtype != torch.float32:
            return f"{name} is {got.dtype}"
        if not torch.allclose(got, tensor, rtol=tolerance, atol=tolerance):
            return f"{name} has other values"
    return None


def read(path: Path) -> dict[str, Tensor]:
    return load_official(path, SPEC)


def case(
    name: str,
    make: Make,
    refused: tuple[str, ...] | None = None,
    wanted: Mapping[str, Tensor] = OWN,
    says: tuple[str, ...] = (),
    tolerance: float = 0.0,
    reader: Callable[[Path], Mapping[str, Tensor]] = read,
    named: bool = True,
) -> Case:
    """`refused`: words of the refusal, and if `named` the file's name; without it the tensors must be `wanted`."""

    def run(folder: Path) -> str | None:
        path = make(folder)
        said: list[str] = []
        before = output.note, output.warn
        output.note, output.warn = said.append, said.append  # type: ignore[assignment]
        try:
            found = reader(path)
        except UserError as error:
            if refused is None:
                return f"refused: {error.message[:300]} ({error.hint})"
            text = f"{error.message}\n{error.hint}"
            missing = [word for word in (path.name if named else "", *refused) if word not in text]
            return f"does not say {missing}: {text[:400]}" if missing else None
        finally:
            output.note, output.warn = before
            if (folder / "ran").exists():
                return "code in the file was run"  # noqa: B012
        if refused is not None:
            return "accepted"
        missing = [word for word in says if word not in "\n".join(said)]
        return compare(found, wanted, tolerance) or (f"does not say {missing}: {said}" if missing else None)

    return Case(name, run)


# Files of torch.save.


def torch_file(content: Any, name: str = "w.pt", **settings: Any) -> Make:
    def make(folder: Path) -> Path:
        torch.save(content, folder / name, **settings)
        return folder / name

    return make


def bytes_file(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def saved(content: Any = FLAT, **settings: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **settings)
    return stream.getvalue()


def rezipped(
    change: Callable[[str, bytes], bytes | None] = lambda _, data: data,
    compression: int = zipfile.ZIP_STORED,
    more: Mapping[str, bytes] | None = None,
    only: str = "",
) -> bytes:
    """The checkpoint's archive written anew: entries changed, left out (None), added, compressed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved())) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            data = change(entry.filename, old.read(entry))
            if data is not None:
                kind = compression if only in entry.filename else zipfile.ZIP_STORED
                new.writestr(entry.filename, data, compress_type=kind)
        for name, data in (more or {}).items():
            new.writestr(name, data)
    return stream.getvalue()


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
    yield case("zip without pickle", bytes_file("w.pt", _zip({"notes.txt": b"hello"})), ("data.pkl", "notes.txt"))
    yield case("zip of a folder", bytes_file("w.pt", _zip({"w/weights.safetensors": save(FLAT)})), ("data.pkl",))
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


def _zip(entries: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _script(folder: Path) -> Path:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / "w.pt"))
    return folder / "w.pt"


# Pickles that would run something.


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
    return _zip({"archive/data.pkl": pickled, "archive/byteorder": b"little", "archive/version": b"3\n"})


# What lies inside.


def nests() -> Iterator[Case]:
    both = {"model": FLAT_OTHER, "ema": FLAT}
    yield case("ema and model", torch_file(both), says=("ema and model", "ema is taken"))
    yield case("model and ema", torch_file(dict(reversed(both.items()))), says=("ema is taken",))
    for nest in ("model", "state_dict", "ema", "module", "model_state_dict", "ema_state_dict", "params"):
        yield case(f"under {nest}", torch_file({nest: FLAT, "step": 3}))
    yield case("twice nested", torch_file({"state_dict": {"model": FLAT}, "epoch": torch.tensor(3)}))
    yield case("state_dict and state_dict_ema", torch_file({"state_dict": FLAT_OTHER, "state_dict_ema": FLAT}))
    yield case("empty ema", torch_file({"ema": {}, "model": FLAT}))
    shadow = {"ema": {"shadow_params": list(FLAT_OTHER.values()), "decay": 0.9}, "model": FLAT}
    yield case("ema without names", torch_file(shadow), says=("ema holds no tensors by name", "no average"))
    yield case("ema is a number", torch_file({"ema": 0.999, "model": FLAT}))
    circle: dict[str, Any] = {"step": 1}
    circle["model"] = circle
    yield case("nest within itself", torch_file(circle), ("no tensors",))
    circle = {}
    for key in ("ema", "model", "state_dict", "module", "params"):
        circle[key] = circle
    yield case("nests within themselves", torch_file(circle), ("no tensors",))
    deep: dict[str, Any] = dict(FLAT)
    for _ in range(60):
        deep = {"model": deep}
    yield case("sixty nests", torch_file(deep), ("no tensors",))
    for content in ([1, 2], list(FLAT.values()), torch.zeros(3), "text", 5, None, {}, {"model": {}}, {1: 2}):
        shown = type(content).__name__ if not isinstance(content, dict) else repr(content)
        yield case(f"only {shown}", torch_file(content), ("no tensors",))
    yield case("numbers for names", torch_file(dict(enumerate(FLAT.values()))), ("not text",))
    yield case("ordered", torch_file(OrderedDict(FLAT)))


def names() -> Iterator[Case]:
    for prefix in ("module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.module.model."):
        yield case(f"prefix {prefix}", torch_file(prefixed(prefix)), says=(prefix.replace("_orig_mod.", "") or prefix,))
        yield case(f"own names, prefix {prefix}", torch_file(prefixed(prefix, OWN)))
    for prefix in ("model.diffusion_model.", "net.", "denoiser.dit.", "_fsdp_wrapped_module.module."):
        yield case(f"prefix {prefix}", torch_file(prefixed(prefix)))
    yield case("prefix in a nest", torch_file({"model": prefixed("module.", FLAT_OTHER), "ema": prefixed("module.")}))
    inner = {name.replace("blocks.0.", "blocks.0._orig_mod."): tensor for name, tensor in FLAT.items()}
    yield case("compiled block", torch_file(inner), says=("_orig_mod",))
    inner = {name.replace(".attn.", "._checkpoint_wrapped_module.attn."): tensor for name, tensor in FLAT.items()}
    yield case("wrapped blocks", torch_file(inner))
    yield case("averaged model", torch_file({"n_averaged": torch.tensor(9), **prefixed("module.")}))
    twice = {**FLAT, f"_orig_mod.{FIRST}": FLAT[FIRST] + 1}
    yield case("with and without wrapper", torch_file(twice), ("twice",))
    two = {**prefixed("model.", FLAT_OTHER), **prefixed("ema.")}
    yield case("two networks, one averaged", torch_file(two), says=("'ema.' is taken",))
    yield case("two networks", torch_file({**prefixed("a."), **prefixed("b.")}), ("several networks",))
    partly = {("module." if "blocks.0" in name else "") + name: tensor for name, tensor in FLAT.items()}
    yield case("prefix of some", torch_file(partly), ("module.blocks.0",))
    yield case("prefix and more", torch_file({**prefixed("module."), "head.weight": torch.zeros(2)}), ("head.weight",))
    strange = {f"unet.down.{i}": tensor for i, tensor in enumerate(FLAT.values())}
    yield case("another network's names", torch_file(strange), ("none of its names",))
    yield case("no table", torch_file({n: t for n, t in FLAT.items() if "y_emb" not in n}), ("kind to none",))


# Values.


def values() -> Iterator[Case]:
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 0.0)):
        cast = {name: tensor.to(dtype) for name, tensor in FLAT.items()}
        yield case(f"in {dtype}", torch_file(cast), tolerance=tolerance)
    for dtype in (torch.int8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn):
        word = str(dtype).removeprefix("torch.")
        yield case(f"one in {dtype}", torch_file({**FLAT, FIRST: FLAT[FIRST].to(dtype)}), (FIRST, word))
    whole = {name: (tensor * 100).to(torch.int8) for name, tensor in FLAT.items()}
    yield case("all int8", torch_file(whole), ("int8",))
    for text, value in (("NaN", float("nan")), ("inf", float("inf")), ("-inf", float("-inf"))):
        tensor = FLAT[FIRST].clone()
        tensor.view(-1)[7] = value
        yield case(f"{text} inside", torch_file({**FLAT, FIRST: tensor}), (FIRST, "infinite or not a number"))
    large = FLAT[FIRST].double() * 1e300
    yield case("beyond float32", torch_file({**FLAT, FIRST: large}), (FIRST, "beyond float32"))
    yield case(
        "sparse",
        torch_file({**FLAT, "t_embedder.mlp.0.weight": FLAT["t_embedder.mlp.0.weight"].to_sparse()}),
        ("sparse",),
    )
    square = torch.quantize_per_tensor(FLAT["t_embedder.mlp.2.weight"], 0.1, 0, torch.qint8)
    yield case("quantised", torch_file({**FLAT, "t_embedder.mlp.2.weight": square}), ("t_embedder.mlp.2.weight",))
    yield case("without values", torch_file({**FLAT, FIRST: FLAT[FIRST].to("meta")}), ("meta",))
    name = "t_embedder.mlp.2.weight"
    turned = FLAT[name].t().contiguous().t()
    yield case("transposed view", torch_file({**FLAT, name: turned}))
    every = torch.zeros(64, 32)
    every[::2] = FLAT[name]
    yield case("view with strides", torch_file({**FLAT, name: every[::2]}))
    yield case("parameters", torch_file({n: torch.nn.Parameter(t) for n, t in FLAT.items()}))
    vast = torch.zeros(1).expand(1 << 20, 1 << 20)
    yield case("a vast view", torch_file({**FLAT, name: vast}), ("1048576",))
    wrong = {"shape": FLAT[name][:, :-1], "scalar": torch.tensor(1.0), "no elements": torch.zeros(0, 32)}
    for word, tensor in wrong.items():
        yield case(f"wrong {word}", torch_file({**FLAT, name: tensor.clone()}), (name, "wrong shape"))
    yield case("surplus", torch_file({**FLAT, "more": torch.zeros(3)}), ("unexpected", "more (3)"))
    yield case("lacking", torch_file({n: t for n, t in FLAT.items() if n != FIRST}), ("missing", FIRST))


# safetensors.


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


# Folders.


def folder_of(files: Mapping[str, bytes], inside: str = "m") -> Make:
    def make(folder: Path) -> Path:
        for name, content in files.items():
            target = folder / inside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (folder / inside).mkdir(exist_ok=True)
        return folder / inside

    return make


STEM = "diffusion_pytorch_model"
ONE, TWO = f"{STEM}-00001-of-00002.safetensors", f"{STEM}-00002-of-00002.safetensors"


def sharded(change: Callable[[dict[str, str]], Any] = lambda _: None, **files: dict[str, Tensor]) -> dict[str, bytes]:
    parts = {ONE: dict(list(FLAT.items())[::2]), TWO: dict(list(FLAT.items())[1::2])}
    where = {name: shard for shard, part in parts.items() for name in part}
    change(where)
    parts |= {{"one": ONE, "two": TWO}[key]: value for key, value in files.items()}
    index = json.dumps({"metadata": {}, "weight_map": where}).encode()
    return {f"{STEM}.safetensors.index.json": index} | {shard: save(part) for shard, part in parts.items()}


STATE = json.dumps({"step": 5, "stage": "denoiser", "data": "x"}).encode()


def folders() -> Iterator[Case]:
    whole, other = save(FLAT), save(FLAT_OTHER)
    yield case("folder", folder_of({f"{STEM}.safetensors": whole}))
    yield case("pipeline", folder_of({f"transformer/{STEM}.safetensors": whole, "model_index.json": b"{}"}))
    two = {f"{STEM}.safetensors": whole, f"{STEM}.bin": saved(FLAT_OTHER), "model.safetensors": other}
    yield case("folder with several", folder_of(two), says=("is taken",))
    run = {"spec.yaml": b"", "denoiser/checkpoints/step-00000005/model.safetensors": save(OWN)}
    yield case("run folder", folder_of(run), ("is a run folder", "denoiser/checkpoints/step-00000005"))
    yield case("empty folder", folder_of({}), ("holds no weights",))
    yield case("folder of others", folder_of({"a.txt": b""}), ("a.txt",))
    yield case("shards", folder_of(sharded()))
    index = f"{STEM}.safetensors.index.json"
    yield case("shard missing", folder_of({n: c for n, c in sharded().items() if n != TWO}), (TWO, "lacks 1 of 2"))
    first, second = list(FLAT)[:2]
    yield case("index swaps", folder_of(sharded(lambda w: w.update({first: w[second], second: w[first]}))), ("belong",))
    yield case("index lacks a tensor", folder_of(sharded(lambda w: w.pop(first))), (first,))
    yield case("index has more", folder_of(sharded(lambda w: w.update(more=ONE))), ("more",))
    both = {name: tensor + 1 for name, tensor in FLAT.items()}
    yield case("shards with the same tensors", folder_of(sharded(two=both)), ("belong",))
    mixed = {**sharded(), TWO: b"junk"}
    yield case("shard of junk", folder_of(mixed), ("safetensors",))
    for name, content in {
        "no JSON": b"{",
        "a list": b"[]",
        "no map": b"{}",
        "an empty map": b'{"weight_map": {}}',
        "map of numbers": b'{"weight_map": {"a": 1}}',
        "outside": b'{"weight_map": {"a": "../w.safetensors"}}',
        "absolute": b'{"weight_map": {"a": "/etc/passwd"}}',
        "itself": json.dumps({"weight_map": {"a": index}}).encode(),
        "a name twice": b'{"weight_map": {"a": "x.bin", "a": "y.bin"}}',
        "not text": b"\xff\xfe",
        "deep": b"[" * 100_000,
    }.items():
        yield case(f"index: {name}", folder_of({index: content}), ("not an index",))
    average = {"model.safetensors": save(OTHER), "ema.safetensors": save(OWN), "state.json": STATE}
    yield case("checkpoint of a run", folder_of(average, "step-00000005"), says=("moving average",))
    for heads, words in ((2, None), (4, ("4 heads", "backbone.heads=4")), ("two", ("heads",))):
        config = json.dumps({"_class_name": "DiTTransformer2DModel", "num_attention_heads": heads}).encode()
        files = {f"{STEM}.safetensors": whole, "config.json": config}
        yield case(f"config of {heads} heads", folder_of(files), words and ("config.json", *words))
        beside = lambda folder, files=files: folder_of(files)(folder) / f"{STEM}.safetensors"  # noqa: E731
        yield case(f"file beside a config of {heads} heads", beside, words, named=False)
    for content in (b"{", b"[]", b"null", b"7", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}'):
        files = {f"{STEM}.safetensors": whole, "config.json": content}
        yield case(f"config {content[:12]!r}", folder_of(files), ("config.json",))
    told = json.dumps({"step": 5, "stage": "denoiser", "data": "x", "spec": {"backbone": {"heads": 4}}}).encode()
    yield case("checkpoint of other heads", folder_of({**average, "state.json": told}, "step-00000005"), ("4 heads",))
    for content in (b"{", b"[]", b"", b'{"step": "five"}', b'{"step": 5}'):
        files = {**average, "state.json": content}
        yield case(f"checkpoint with state {content!r}", folder_of(files, "step-00000005"), ("damaged",))
    yield case("absent", lambda folder: folder / "none.pt", ("does not exist",))


# The codec.


def read_codec(path: Path) -> dict[str, Tensor]:
    return sd_vae.load_sd_vae(path, VAE)


def codecs() -> Iterator[Case]:
    def codec(name: str, make: Make, refused: tuple[str, ...] | None = None, **settings: Any) -> Case:
        return case(f"codec {name}", make, refused, CODEC, reader=read_codec, **settings)

    theirs = {name: tensor.contiguous() for name, tensor in sd_vae.to_diffusers(CODEC).items()}
    yield codec("of diffusers", torch_file(theirs))
    for prefix in ("module.", "_orig_mod.", "first_stage_model.", "vae.", "module.vae."):
        yield codec(f"prefix {prefix}", torch_file(prefixed(prefix, CODEC)))
        yield codec(f"of diffusers, prefix {prefix}", torch_file(prefixed(prefix, theirs)))
    yield codec("in half", torch_file({n: t.half() for n, t in CODEC.items()}), tolerance=2e-3)
    full = {**prefixed("module.first_stage_model.", CODEC), "module.model.diffusion_model.out.2.bias": torch.zeros(4)}
    yield codec("in a wrapped pipeline", torch_file({"state_dict": full}))
    for scale, words in ((0.18215, None), (0.13025, ("scaling_factor", "0.13025", "vae.scale"))):
        config = json.dumps({"_class_name": "AutoencoderKL", "scaling_factor": scale}).encode()
        files = {f"{STEM}.fp16.safetensors": save(theirs), f"{STEM}.safetensors": save(theirs), "config.json": config}
        yield codec(f"of scale {scale}", folder_of(files), words)
        variant = lambda folder, files=files: folder_of(files)(folder) / f"{STEM}.fp16.safetensors"  # noqa: E731
        yield codec(f"variant of scale {scale}", variant, words, named=False)
    for content in (b"[]", b"null", b"{", b"[" * 100_000):
        yield codec(
            f"config {content[:12]!r}", folder_of({f"{STEM}.bin": b"", "config.json": content}), ("config.json",)
        )
    name = "decoder.conv_out.bias"
    yield codec("with NaN", torch_file({**CODEC, name: CODEC[name] * float("nan")}), (name, "not a number"))
    yield codec("of int", torch_file({**CODEC, name: CODEC[name].int()}), (name, "int32"))
    yield codec("deflated", lambda folder: _deflated(folder, CODEC))
    yield codec("of a transformer", torch_file(FLAT), ("does not fit",))


def _deflated(folder: Path, state: Mapping[str, Tensor]) -> Path:
    with zipfile.ZipFile(io.BytesIO(saved(state))) as old, zipfile.ZipFile(folder / "w.pt", "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return folder / "w.pt"


def cases() -> Iterator[Case]:
    """Every file."""
    for part in (archives, pickles, nests, names, values, safetensors, folders, codecs):
        yield from part()
