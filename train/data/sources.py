"""Which files a data source names, and their labels: a folder, or a list in one of several formats."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from sora_spec.errors import UserError
from sora_spec.train.data.entries import Entries, Entry, Source
from sora_spec.train.data.folders import read_folder
from sora_spec.train.data.lists import read_json, read_plain
from sora_spec.train.data.parquet import read_parquet
from sora_spec.train.data.rows import find_repeats
from sora_spec.train.data.tables import read_table
from sora_spec.train.data.webdataset import read_tar, read_tars

__all__ = ["Entries", "Entry", "Source", "find_entries", "read_source"]

_READERS: dict[str, Callable[[Path], Source]] = {
    ".csv": read_table,
    ".tsv": read_table,
    ".tab": read_table,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".txt": read_plain,
    ".lst": read_plain,
    ".list": read_plain,
    ".parquet": read_parquet,
    ".tar": read_tar,
}
_HOW_TO_GIVE_DATA = (
    "train.data is a folder of videos, or a list (.csv, .tsv, .jsonl, .json, .txt or .parquet) with path, label and "
    "caption, or a WebDataset tar; "
    "`sora-spec data digits data/digits` makes one to try"
)


def read_source(source: str | Path) -> Source:
    """Read `source`, in an order that depends on names only for a folder, and on the list for a list.

    Raises UserError when the source is missing, empty or malformed.
    """
    path = _expanded(source)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        dead = " leads nowhere" if os.path.islink(path) else " does not exist"
        raise UserError(f"data source {path}{dead}", _HOW_TO_GIVE_DATA) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"data source {path} cannot be read: {reason}", _HOW_TO_GIVE_DATA) from None
    reader = read_folder if is_folder else _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"data source {path} is neither a folder nor a list", _HOW_TO_GIVE_DATA)
    found = reader(path)
    if is_folder and not found.entries and (tars := sorted(path.glob("*.tar"))):
        found = read_tars(path, tars)
    if not found.entries:
        seen = "".join(f"; {count} files: {reason}" for reason, count in found.ignored.counts.items())
        raise UserError(f"data source {path} names no video or image{seen}", _HOW_TO_GIVE_DATA)
    if not found.is_folder:
        _note_repeats(found)
    return found


def _expanded(source: str | Path) -> Path:
    """`~` and `~name` are home folders, where there is no such folder here."""
    text = str(source)
    return Path(os.path.expanduser(text) if text.startswith("~") and not os.path.lexists(text) else text)


def _note_repeats(found: Source) -> None:
    repeats = find_repeats(found.entries)
    if repeats.conflict is not None:
        found.conflict = (f"{found.path}: {repeats.conflict}", "keep one of the rows")
    if repeats.rows:
        found.remarks.append(f"rows that name a file again: {repeats.rows}; it is seen as often as it is named")


def find_entries(source: str | Path) -> Entries:
    """Every file of `source`. Raises UserError as `read_source` does."""
    return read_source(source).entries
