"""What `torch.save` wrote → what was saved. Nothing in a file is run: only tensors and plain values are made of it.

torch checks neither the sums of a zip archive nor whether a name stands in it twice, and its mapped reading takes
compressed bytes for numbers. So the archive is checked here, before torch sees it.
"""

from __future__ import annotations

import argparse
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from sora_spec.builders.weights.storage_sizes import check_sizes
from sora_spec.errors import UserError

AGAIN = "copy or download it again"
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""How files of torch before 1.6 begin, after the two bytes of the pickle's protocol: torch's magic number."""
_CHUNK_BYTES = 1 << 24


def load_torch_file(path: Path) -> Any:
    """What was saved in `path`, on the CPU.

    Raises UserError when the file is no file of `torch.save`, is damaged, or would have to run code.
    """
    archive = _is_archive(path)
    mapped = archive and _check_archive(path)
    if not archive:
        _check_beginning(path)
    # The published training loops save their argparse namespace beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # torch raises whatever the damaged byte leads to
            raise _bad_pickle(path, error) from error
    if archive:
        check_sizes(path)
    return loaded


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is a damaged archive: {error}", AGAIN) from error


def _check_archive(path: Path) -> bool:
    """Whether the archive may be mapped: its entries lie there as they are. Raises UserError for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
            if twice:
                raise UserError(f"{path} holds {twice[0]!r} twice, and which one counts is not said", AGAIN)
            if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
                raise UserError(
                    f"{path} is a TorchScript program, not weights",
                    "save its weights: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')",
                )
            if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
                shown = ", ".join(repr(name) for name in names[:6]) or "nothing"
                raise UserError(
                    f"{path} is a zip archive, but not torch.save's: it has no data.pkl; it holds: {shown}",
                    "unpack it, and name the checkpoint inside",
                )
            if any(entry.flag_bits & 1 for entry in entries):
                raise UserError(f"{path} is an encrypted archive", "unpack it, and save the weights anew")
            if any(entry.CRC for entry in entries):  # torch.serialization.set_crc32_options(False) leaves them all 0
                _check_sums(path, archive)
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is a damaged archive: {error}", AGAIN) from error


def _check_sums(path: Path, archive: zipfile.ZipFile) -> None:
    for entry in archive.infolist():
        try:
            with archive.open(entry) as file:
                read = 0
                while chunk := file.read(_CHUNK_BYTES):
                    read += len(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(
                f"{path} is damaged: the bytes of {entry.filename!r} do not have the checksum stored with them", AGAIN
            ) from error
        if read != entry.file_size:
            raise UserError(f"{path} is cut short: {entry.filename!r} has {read:,} of {entry.file_size:,} bytes", AGAIN)


def _check_beginning(path: Path) -> None:
    """Refuse what is not a checkpoint at all, by how it begins."""
    with path.open("rb") as file:
        begin = file.read(512)
    if begin[2:].startswith(_LEGACY_MAGIC):
        return
    if begin[:4] == b"PK\x03\x04":
        raise UserError(f"{path} is cut short: it begins as a zip archive and has no end", AGAIN)
    if re.match(rb".{7}\x00\s*\{", begin, re.DOTALL):
        raise UserError(f"{path} is a safetensors file by another name", "rename it: its suffix must be .safetensors")
    refuse_foreign(path, begin)
    if begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05":
        raise UserError(
            f"{path} is a plain pickle (protocol {begin[1]}), not a file of torch.save: a pickle may run any code, so "
            "it is not opened",
            "where you trust it: torch.save(pickle.load(open(FILE, 'rb')), 'weights.pt')",
        )
    what = "it is empty" if not begin else "it does not begin as a file of torch.save does"
    raise UserError(f"{path} cannot be read as a PyTorch checkpoint: {what}", AGAIN)


def refuse_foreign(path: Path, begin: bytes) -> None:
    """Name what is often found where weights were meant: a pointer, a web page, a packed file."""
    text = begin.lstrip()[:64].lower()
    if begin.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS, not the file it stands for", "fetch it: git lfs pull")
    if text.startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{path} is a web page, not weights", "download the file itself")
    for magic, kind in ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        if begin.startswith(magic):
            raise UserError(f"{path} is packed with {kind}", "unpack it first")
    if begin[:8] == b"\x89HDF\r\n\x1a\n":
        raise UserError(f"{path} is an HDF5 file", "save its weights with torch.save or as safetensors")
    if begin[:4] == b"GGUF":
        raise UserError(f"{path} is a GGUF file: its weights are quantised", "give the weights it was made from")


def _bad_pickle(path: Path, error: Exception) -> UserError:
    text = str(error)
    forbidden = re.search(r"(?:GLOBAL|Unsupported class|Unsupported global:?(?: GLOBAL)?)\s+([\w.]+)", text)
    if forbidden:
        return UserError(
            f"{path} holds more than weights: it wants to run {forbidden[1]}, which is refused",
            "where you trust it, load it once with torch and save its tensors as safetensors",
        )
    found = re.search(r"WeightsUnpickler error:\s*([^\n]*)", text)
    reason = (found[1].strip() if found else "") or text.strip().partition("\n")[0].strip() or type(error).__name__
    return UserError(f"{path} cannot be read as a PyTorch checkpoint: {reason}", AGAIN)
