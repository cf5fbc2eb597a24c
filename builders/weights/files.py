"""Weights on disk → tensors by name: safetensors, PyTorch files (weights only), diffusers folders."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sora_spec import output
from sora_spec.builders.weights.names import unnested
from sora_spec.builders.weights.torch_file import AGAIN, load_torch_file, refuse_foreign
from sora_spec.disk.checkpoints import INDEX
from sora_spec.disk.checksums import check_listed
from sora_spec.errors import UserError

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
FOLDER_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Stems of the weight files that diffusers and transformers write into a folder."""
_LONGEST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""


def read_state(path: Path | str, subfolder: str | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, on the CPU, by its name in the file.

    `path`: a `.safetensors` file, a PyTorch file (`.pt .pth .bin .ckpt`, read with `weights_only=True`: no code in it
    is run), a folder of shards of a run, or one as diffusers saves it, sharded or not. A pipeline's folder is entered
    through `subfolder`. Of a training checkpoint `{model, ema, opt, args}` the moving average is taken, and said.

    Raises UserError when the file is missing, damaged, unsafe or holds no tensors.
    """
    path = Path(path).expanduser()
    try:
        if (path / INDEX).is_file():
            return _read_shards_of_ranks(path)
        if path.is_dir():
            return _read_folder(path / subfolder if subfolder and (path / subfolder).is_dir() else path)
        if not path.is_file():
            raise UserError(f"{path} does not exist", "give the path of a checkpoint file or of a diffusers folder")
        return _read_file(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}", "check the disk and the permissions"
        ) from (error)
    except ValueError as error:  # a NUL byte in a path
        raise UserError(f"{str(path)!r} is no path: {error}", "give the path of a checkpoint") from error


def _read_file(path: Path) -> dict[str, Tensor]:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        check_listed(path)
        state = read_safetensors(path)
    elif suffix in PICKLES:
        state = unnested(load_torch_file(path), str(path))
    else:
        raise UserError(
            f"{path} is not a known kind of checkpoint: {path.suffix or 'no suffix'}",
            f"known are .safetensors, {', '.join(PICKLES)} and diffusers folders",
        )
    if not state:
        raise UserError(f"{path} holds no tensors by name", "give a checkpoint that holds a state dict")
    without = [name for name, tensor in state.items() if tensor.device.type == "meta"]
    if without:
        raise UserError(f"{path}: {without[0]} was saved without its values (on the meta device)", "save it anew")
    return state


def _read_shards_of_ranks(folder: Path) -> dict[str, Tensor]:
    from sora_spec.builders.weights.shards import read_shards  # it imports what only several ranks need

    check_listed(folder)
    return read_shards(folder)


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a part of a checkpoint: a safetensors file, or a folder of shards."""
    if path.is_dir():
        from sora_spec.builders.weights.shards import shapes_in_shards

        return {name: tuple(shape) for name, shape in shapes_in_shards(path).items()}
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", "bring it back from a copy") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, which need not be one. Raises UserError."""
    _check_header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}", AGAIN) from error


def _check_header(path: Path) -> None:
    """Refuse other kinds of files by their beginning, and a header in which a name stands twice."""
    with path.open("rb") as file:
        begin = file.read(512)
        refuse_foreign(path, begin)
        if begin[:4] == b"PK\x03\x04" or (begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05"):
            raise UserError(f"{path} is a PyTorch file by another name", "rename it: its suffix must be .pt")
        length = int.from_bytes(begin[:8], "little")
        size = os.fstat(file.fileno()).st_size
        if len(begin) < 8 or length > min(_LONGEST_HEADER_BYTES, size - 8):
            raise UserError(
                f"{path} cannot be read as safetensors: its {size:,} bytes are too few, or it is another kind of file",
                AGAIN,
            )
        file.seek(8)
        header = file.read(length)
    try:
        json.loads(header, object_pairs_hook=refuse_twice)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as safetensors: its header is damaged: {error}", AGAIN) from error


def read_config(path: Path) -> dict[str, Any] | None:
    """diffusers' `config.json` at `path`; None where there is none. Raises UserError when it is damaged."""
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes(), object_pairs_hook=refuse_twice)
        assert isinstance(config, dict)
    except (ValueError, RecursionError, AssertionError) as error:
        raise UserError(f"{path} is not JSON with a mapping: {error}", AGAIN) from error
    return config


def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError where a key stands in it twice."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands in it twice")
    return dict(pairs)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    found = [
        file
        for stem in FOLDER_NAMES
        for suffix in (".safetensors", ".bin")
        for file in (folder / f"{stem}{suffix}.index.json", folder / f"{stem}{suffix}")
        if file.is_file()
    ]
    if not found:
        inside = sorted(child.name for child in folder.iterdir())
        kept = [*sorted(folder.glob("*/checkpoints/step-*")), *sorted(folder.glob("checkpoints/step-*"))]
        if kept:
            raise UserError(
                f"{folder} is a run folder, and weights are those of one of its checkpoints",
                f"name one, such as {kept[-1]}; or start from the run: sora-spec train SPEC --from RUN",
            )
        raise UserError(
            f"{folder} holds no weights; it holds: {', '.join(inside[:12]) or 'nothing'}",
            f"expected {FOLDER_NAMES[0]}.safetensors, .bin, or their .index.json with shards; "
            "or give one file by its name",
        )
    if len(found) > 1:
        output.note(f"{folder} holds {', '.join(file.name for file in found)}: {found[0].name} is taken")
    return _read_shards(found[0]) if found[0].suffix == ".json" else _read_file(found[0])


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        where: dict[str, str] = json.loads(index.read_text(), object_pairs_hook=refuse_twice)["weight_map"]
        shards = sorted(set(where.values()))
        assert shards
        assert all(Path(shard).name == shard and re.search(r"\.(safetensors|bin)$", shard) for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise UserError(
            f"{index} is not an index of shards: it needs a `weight_map` from tensor names to file names", AGAIN
        ) from error
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise UserError(
            f"{index.parent} lacks {len(absent)} of {len(shards)} shards: {', '.join(absent)}", "bring them there"
        )
    state: dict[str, Tensor] = {}
    for shard in shards:
        tensors = _read_file(index.parent / shard)
        _check_shard(index, shard, where, set(tensors))
        state |= tensors
    return state


def _check_shard(index: Path, shard: str, where: dict[str, str], names: set[str]) -> None:
    """Raise UserError unless a shard holds the tensors that the index says, and no others."""
    lost = sorted(name for name, owner in where.items() if owner == shard and name not in names)
    more = sorted(name for name in names if where.get(name) != shard)
    if lost or more:
        what = f"lacks {', '.join(lost[:8])}" if lost else f"holds {', '.join(more[:8])} besides"
        raise UserError(
            f"{index.parent}: {shard} does not belong to {index.name}: it {what}",
            "shards of two checkpoints were mixed: copy the folder again",
        )
