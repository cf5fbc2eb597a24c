"""Whether the entries of torch's archive are as long as its pickle says: torch reads on into the next one, unasked."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

from sora_spec.errors import UserError

BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "UntypedStorage": 1,
}
"""Bytes of one element, by the name of the storage in the pickle."""


def check_sizes(path: Path) -> None:
    """Raise UserError when an entry of an archive that torch could load is shorter than its tensor."""
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.rpartition("/")[2] == "data.pkl")
        root = entry.filename.removesuffix("data.pkl")
        if entry.CRC == 0:
            del entry.CRC  # written without sums; then zipfile compares none
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        for key, wanted in _wanted(archive.read(entry)).items():
            found = sizes.get(f"{root}data/{key}", wanted)
            if found < wanted:
                raise UserError(
                    f"{path} is damaged: its entry data/{key} is too short, {found:,} of {wanted:,} bytes",
                    "copy or download it again",
                )


def _wanted(pickled: bytes) -> dict[str, int]:
    reader = _Reader(io.BytesIO(pickled))
    try:
        reader.load()
    except Exception:  # what torch takes and this does not is checked as far as it went
        return reader.wanted
    return reader.wanted


class _Inert:
    """Stands for whatever a pickle names: takes everything and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return self

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def append(self, value: Any) -> None:
        """As a list."""

    def extend(self, values: Any) -> None:
        """As a list."""


class _Reader(pickle.Unpickler):
    """Walks through a pickle without making or running anything that it names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.wanted: dict[str, int] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """A stand-in that knows its name."""
        return type(global_name, (_Inert,), {}) if global_name in BYTES else _Inert

    def persistent_load(self, pid: Any) -> Any:
        """Note how long a storage is to be."""
        match pid:
            case ("storage", kind, str(key), _, int(count), *_):
                self.wanted[key] = count * BYTES.get(getattr(kind, "__name__", ""), 0)
            case _:
                pass
        return _Inert()
