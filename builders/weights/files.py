"""Weights on disk → tensors by name: safetensors, PyTorch pickles (weights only), diffusers folders."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sora_spec.errors import UserError

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
FOLDER_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Stems of the weight files that diffusers and transformers write into a folder."""
NESTS = ("ema", "model", "state_dict")
"""Where training checkpoints keep their weights; the moving average first, it is what papers evaluate."""


def read_state(path: Path | str, subfolder: str | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, on the CPU, by its name in the file.

    `path`: a `.safetensors` file, a pickle (`.pt .pth .bin .ckpt`, read with `weights_only=True`: no code in it is
    run), or a folder as diffusers saves it, sharded or not. A pipeline's folder is entered through `subfolder`. Of a
    training checkpoint `{model, ema, opt, args}` the moving average is taken.

    Raises UserError when the file is missing, damaged, unsafe or holds no tensors.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _read_folder(path / subfolder if subfolder and (path / subfolder).is_dir() else path)
    if not path.is_file():
        raise UserError(f"{path} does not exist", "give the path of a checkpoint file or of a diffusers folder")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLES:
        return _read_pickle(path)
    raise UserError(
        f"{path} is not a known kind of checkpoint: {path.suffix or 'no suffix'}",
        f"known are .safetensors, {', '.join(PICKLES)} and diffusers folders",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}", "copy or download it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    # The published training loops save their argparse namespace beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # torch raises whatever the damaged byte leads to
            raise _bad_pickle(path, error) from error
    state = unnested(loaded)
    if not state:
        raise UserError(f"{path} holds no tensors by name", "give a checkpoint that holds a state dict")
    return state


def _bad_pickle(path: Path, error: Exception) -> UserError:
    text = str(error)
    forbidden = re.search(r"GLOBAL ([\w.]+)", text)
    if forbidden:
        return UserError(
            f"{path} holds more than weights: it wants to run {forbidden[1]}, which is refused",
            "where you trust it, load it once with torch and save its tensors as safetensors",
        )
    found = re.search(r"WeightsUnpickler error: (.*)", text)
    reason = found[1].strip() if found else text.strip().partition("\n")[0] or type(error).__name__
    return UserError(f"{path} cannot be read as a PyTorch checkpoint: {reason}", "copy or download it again")


def unnested(loaded: Any) -> dict[str, Tensor]:
    """The tensors by name inside a loaded checkpoint, nested or not; empty where there are none."""
    if not isinstance(loaded, Mapping):
        return {}
    for nest in NESTS:
        inner = loaded.get(nest)
        if isinstance(inner, Mapping) and (state := unnested(inner)):
            return state
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for stem in FOLDER_NAMES:
        for suffix in (".safetensors", ".bin"):
            index = folder / f"{stem}{suffix}.index.json"
            if index.is_file():
                return _read_shards(index)
            if (folder / f"{stem}{suffix}").is_file():
                return read_state(folder / f"{stem}{suffix}")
    inside = sorted(child.name for child in folder.iterdir())
    raise UserError(
        f"{folder} holds no weights; it holds: {', '.join(inside[:12]) or 'nothing'}",
        f"expected {FOLDER_NAMES[0]}.safetensors, .bin, or their .index.json with shards; or give one file by its name",
    )


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        where: dict[str, str] = json.loads(index.read_text())["weight_map"]
        shards = sorted(set(where.values()))
        assert all(Path(shard).name == shard for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError) as error:
        raise UserError(
            f"{index} is not an index of shards: it needs a `weight_map` from tensor names to file names",
            "copy or download it again",
        ) from error
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise UserError(
            f"{index.parent} lacks {len(absent)} of {len(shards)} shards: {', '.join(absent)}", "bring them there"
        )
    state: dict[str, Tensor] = {}
    for shard in shards:
        state |= read_state(index.parent / shard)
    lost = sorted(set(where) - set(state))
    if lost:
        raise UserError(f"{index.parent}: tensors of the index are in no shard: {', '.join(lost[:8])}", "copy it again")
    return state
