"""Files inside an uncompressed tar, read where they lie: a member's path is the tar's with its own name behind it.

`shards/000.tar/clip.mp4` is the member `clip.mp4`. Nothing is unpacked: FFmpeg is told a member's first and last byte.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

TAR = ".tar"
_END = 1024  # zero bytes behind the last member


@dataclass(frozen=True)
class Member:
    """Where a file lies inside a tar, in bytes."""

    tar: str
    begin: int
    size: int

    def read(self) -> bytes:
        """All of it."""
        with open(self.tar, "rb") as file:
            file.seek(self.begin)
            return file.read(self.size)


def member_of(path: str | Path) -> Member | None:
    """The member that a path names; None for any other path, one of no such member among them.

    Raises OSError and tarfile.TarError where the tar cannot be read.
    """
    text = str(path)
    for end in re.finditer(rf"\{TAR}{re.escape(os.sep)}", text):
        tar = text[: end.end() - 1]
        if os.path.isfile(tar):
            return index_of(tar).get(text[end.end() :])
    return None


def index_of(tar: str) -> Mapping[str, Member]:
    """The plain files of a tar by their names, in order. Kept until the tar is another one.

    Raises OSError and tarfile.TarError where it cannot be read, is compressed, or ends too early.
    """
    status = os.stat(tar)
    return _index(tar, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _index(tar: str, size: int, changed: int) -> Mapping[str, Member]:
    with open(tar, "rb") as file:
        return MappingProxyType(dict(_members(tar, size, file)))


def _members(tar: str, size: int, file: BinaryIO) -> Iterator[tuple[str, Member]]:
    file.seek(max(0, size - _END))
    if any(file.read()):
        raise tarfile.ReadError("its end is missing: it was cut off, or is compressed")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if not info.isreg() or info.sparse is not None:
                continue
            if info.offset_data + info.size > size:
                raise tarfile.ReadError(f"it ends inside {info.name}")
            yield os.path.normpath(info.name).lstrip(os.sep), Member(tar, info.offset_data, info.size)
