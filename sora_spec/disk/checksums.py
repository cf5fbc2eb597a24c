"""SHA-256 of every file of a checkpoint, in a file that `sha256sum --check checksums.sha256` reads too."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from sora_spec.errors import UserError

NAME = "checksums.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  ((?:[^/\n]+/)?[^/\n]+)")
_HEADER_LIMIT_BYTES = 100_000_000  # as the safetensors library has it


def sha256_of(path: Path) -> str:
    """Hex digits of a file's SHA-256. Within a process an unchanged file is read once."""
    facts = path.stat()
    return _digest(str(path.absolute()), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


@lru_cache(maxsize=256)
def _digest(path: str, *stamp: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(folder: Path, pattern: str) -> dict[str, str]:
    """Digests of the files below `folder` that a pattern names, by their place there. Raises OSError."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file() and path.name != NAME)
    with ThreadPoolExecutor(len(files) or 1) as pool:
        return dict(zip([str(path.relative_to(folder)) for path in files], pool.map(sha256_of, files), strict=True))


def write_checksums(folder: Path, sums: Mapping[str, str] | None = None) -> None:
    """Write the digests of all files of `folder` into it, or those that are known already. Raises OSError."""
    sums = sums_of(folder, "*") if sums is None else sums
    (folder / NAME).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def read_checksums(folder: Path) -> dict[str, str] | None:
    """Digests by file name; None where there is no list. Raises ValueError for a list that is damaged."""
    try:
        text = (folder / NAME).read_bytes().decode("ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{NAME} cannot be read: {error}") from error
    found: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in found:
            raise ValueError(f"{NAME} is damaged")
        found[match[2]] = match[1]
    if not found or not text.endswith("\n"):
        raise ValueError(f"{NAME} is damaged")
    return found


def damage_of_files(folder: Path, names: Iterable[str]) -> str | None:
    """What is wrong with files of a folder that has checksums; None where all are as they were written.

    A name that ends in `/` means all that is listed below it.
    """
    try:
        listed = read_checksums(folder)
    except ValueError as error:
        return str(error)
    if listed is None:
        return f"{NAME} is missing"
    chosen = sorted(file for name in names for file in _listed_below(listed, name) or [name])
    with ThreadPoolExecutor(len(chosen) or 1) as pool:
        found = list(pool.map(lambda name: _damage(folder, name, listed.get(name)), chosen))
    return next((text for text in found if text), None)


def _listed_below(listed: Iterable[str], name: str) -> list[str]:
    return [file for file in listed if name.endswith("/") and file.startswith(name)]


def _damage(folder: Path, name: str, digest: str | None) -> str | None:
    if digest is None:
        return f"{NAME} does not list {name}"
    try:
        found = sha256_of(folder / name)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return None if found == digest else f"{name} is not as it was written: its SHA-256 differs"


def damage_of_safetensors(path: Path) -> str | None:
    """What the form of a safetensors file says about damage: all that can be seen without checksums."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT_BYTES, size - 8):
                return f"{path.name} is cut off or not a safetensors file"
            header = json.loads(file.read(length))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return f"{path.name} is damaged"
    return None if 8 + length + max(ends, default=0) == size else f"{path.name} is cut off or has grown"


def check_listed(path: Path) -> None:
    """Compare a file, or a folder of shards, that is read by its name with the checksums beside it that list it.

    Raises UserError when it is damaged.
    """
    try:
        listed = read_checksums(path.parent)
    except ValueError as error:
        raise UserError(f"{path.parent}: {error}", "name another checkpoint, or copy this one again") from error
    name = f"{path.name}/" if path.is_dir() else path.name
    if listed is None or not (name in listed or _listed_below(listed, name)):
        return
    damage = damage_of_files(path.parent, [name])
    if damage is not None:
        raise UserError(f"{path.parent}: {damage}", "name another checkpoint, or copy this one again")
