"""A part of a checkpoint that several ranks wrote, in the form of `torch.distributed.checkpoint`: one file per rank.

Its index, `.metadata`, is a pickle. It is read by an unpickler that knows the index's own types and nothing else, and
compared with the files before anything is loaded: PyTorch's reader would run whatever the pickle asks for, and leave
memory as it was where a shard is missing.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from sora_spec.builders.weights.torch_file import AGAIN
from sora_spec.disk.checkpoints import INDEX
from sora_spec.errors import UserError

_TYPES = {
    "torch.distributed.checkpoint.metadata": (
        "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
}  # fmt: skip
"""All that an index consists of, beside numbers, strings, lists and tables."""
_SHARD = re.compile(r"__\d+_\d+\.distcp")


def write_shards(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup) -> None:
    """Write this rank's share of `tensors`, and on the first rank the index. Every rank of `group` must call it.

    Raises OSError where a disk refuses, on every rank.
    """
    try:
        save(dict(tensors), storage_writer=_Writer(folder), process_group=group)
    except CheckpointException as error:  # not an Exception
        causes = [cause for cause, _ in error.failures.values()]
        raise next((cause for cause in causes if isinstance(cause, OSError)), causes[0]) from None


def read_shards(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a part, whole, on the CPU. Raises UserError when it is damaged."""
    index = _read_index(folder)
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in _entries(index).items()}
    fill_from_shards(folder, tensors)
    return tensors


def fill_from_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite `tensors` with those of the same names, each rank what it holds of them: no rank waits for another.

    Raises UserError when the part is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(dict(tensors), storage_reader=_Reader(folder), no_dist=True)
    except CheckpointException as error:
        cause = next(cause for cause, _ in error.failures.values())
        raise cause if isinstance(cause, UserError) else _damaged(folder, str(cause)) from error


def shapes_in_shards(folder: Path) -> dict[str, torch.Size]:
    """Name and shape of every tensor of a part. Raises UserError when its index is damaged."""
    return {name: entry.size for name, entry in _entries(_read_index(folder)).items()}


class _Writer(FileSystemWriter):
    def storage_meta(self) -> None:
        """Left out: it names the folder that was written to, which is a temporary one."""


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return _read_index(Path(self.path))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _TYPES.get(module, ()):
            raise _ForeignError(f"{module}.{name}")
        return super().find_class(module, name)


class _ForeignError(Exception):
    """A pickle names something that no index consists of."""


def _read_index(folder: Path) -> Metadata:
    file = folder / INDEX
    try:
        with file.open("rb") as opened:
            index = _Unpickler(opened).load()
        _check_index(folder, index)
    except _ForeignError as error:
        raise UserError(
            f"{file} is refused: it asks for {error}, which no checkpoint needs",
            "it may be made to run code: take the checkpoint from a place that you trust",
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", AGAIN) from error
    except Exception as error:  # a damaged pickle raises whatever it comes across
        raise _damaged(folder, f"{INDEX}: {error or type(error).__name__}") from error
    return Metadata(index.state_dict_metadata, storage_data=index.storage_data)


def _entries(index: Metadata) -> dict[str, TensorStorageMetadata]:
    return {
        name: entry for name, entry in index.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)
    }


def _check_index(folder: Path, index: Metadata) -> None:
    """Raise ValueError unless every tensor is there in full, in files of this folder, cut along its first dimension."""
    assert index.storage_data is not None
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    for name, entry in index.state_dict_metadata.items():
        if type(name) is not str or type(entry) is not TensorStorageMetadata:
            raise ValueError(f"{name!r} is no tensor")
        rows = 0
        for chunk in sorted(entry.chunks, key=lambda chunk: (tuple(chunk.offsets), tuple(chunk.sizes))):
            begin, size = tuple(chunk.offsets), tuple(chunk.sizes)
            if begin[:1] != (rows,)[: len(begin)] or any(begin[1:]) or size[1:] != tuple(entry.size[1:]):
                raise ValueError(f"the shards of {name} do not fit together")
            rows += size[0] if size else 1
            info = index.storage_data[MetadataIndex(name, chunk.offsets)]
            inside = info.offset >= 0 and info.offset + info.length <= sizes.get(info.relative_path, 0)
            needed = chunk.sizes.numel() * entry.properties.dtype.itemsize
            if not _SHARD.fullmatch(info.relative_path) or not inside or needed > info.length:
                raise ValueError(f"{info.relative_path} does not hold its shard of {name}")
            if info.transform_descriptors:
                raise ValueError(f"{name} is compressed")
        if rows != (entry.size[0] if entry.size else 1):
            raise ValueError(f"a shard of {name} is missing")


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"{folder} is damaged: {why}", AGAIN)
