"""Weights of the image VAE."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sora_spec.builders.weights import sd_vae
from tests.hostile.case import Case
from tests.hostile.weight_case import (
    FLAT,
    SECTION,
    STEM,
    VAE,
    Make,
    case,
    folder_of,
    prefixed,
    saved,
    torch_file,
)


def read_vae(path: Path) -> dict[str, Tensor]:
    return sd_vae.load_sd_vae(path, SECTION)


def vaes() -> Iterator[Case]:
    def vae(name: str, make: Make, refused: tuple[str, ...] | None = None, **settings: Any) -> Case:
        return case(f"VAE {name}", make, refused, VAE, reader=read_vae, **settings)

    theirs = {name: tensor.contiguous() for name, tensor in sd_vae.to_diffusers(VAE).items()}
    yield vae("of diffusers", torch_file(theirs))
    for prefix in ("module.", "_orig_mod.", "first_stage_model.", "vae.", "module.vae."):
        yield vae(f"prefix {prefix}", torch_file(prefixed(prefix, VAE)))
        yield vae(f"of diffusers, prefix {prefix}", torch_file(prefixed(prefix, theirs)))
    yield vae("in half", torch_file({n: t.half() for n, t in VAE.items()}), tolerance=2e-3)
    full = {**prefixed("module.first_stage_model.", VAE), "module.model.diffusion_model.out.2.bias": torch.zeros(4)}
    yield vae("in a wrapped pipeline", torch_file({"state_dict": full}))
    for scale, words in ((0.18215, None), (0.13025, ("scaling_factor", "0.13025", "vae.scale"))):
        config = json.dumps({"_class_name": "AutoencoderKL", "scaling_factor": scale}).encode()
        files = {f"{STEM}.fp16.safetensors": save(theirs), f"{STEM}.safetensors": save(theirs), "config.json": config}
        yield vae(f"of scale {scale}", folder_of(files), words)
        variant = lambda folder, files=files: folder_of(files)(folder) / f"{STEM}.fp16.safetensors"  # noqa: E731
        yield vae(f"variant of scale {scale}", variant, words, named=False)
    for content in (b"[]", b"null", b"{", b"[" * 100_000):
        yield vae(f"config {content[:12]!r}", folder_of({f"{STEM}.bin": b"", "config.json": content}), ("config.json",))
    name = "decoder.conv_out.bias"
    yield vae("with NaN", torch_file({**VAE, name: VAE[name] * float("nan")}), (name, "not a number"))
    yield vae("of int", torch_file({**VAE, name: VAE[name].int()}), (name, "int32"))
    yield vae("deflated", lambda folder: _deflated(folder, VAE))
    yield vae("of a transformer", torch_file(FLAT), ("does not fit",))


def _deflated(folder: Path, state: Mapping[str, Tensor]) -> Path:
    with zipfile.ZipFile(io.BytesIO(saved(state))) as old, zipfile.ZipFile(folder / "w.pt", "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return folder / "w.pt"
