"""What the trial of checkpoints shares: a tiny denoiser and VAE, ways to write them, and the case itself."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sora_spec import output
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.builders.weights.dit import load_official, to_official
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.vae import Compression, ImageKlVae
from tests.hostile.case import Case

STEM = "diffusion_pytorch_model"

Make = Callable[[Path], Path]
"""Writes a file into an empty folder, and says what to read."""


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
SECTION = ImageKlVae(
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
VAE = _random(ImageKlModule(SECTION).state_dict(), 2)
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


def zipped(entries: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def folder_of(files: Mapping[str, bytes], inside: str = "m") -> Make:
    def make(folder: Path) -> Path:
        for name, content in files.items():
            target = folder / inside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (folder / inside).mkdir(exist_ok=True)
        return folder / inside

    return make
