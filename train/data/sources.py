"""Which files a data source names, and their labels: a folder, a CSV list or a JSONL list."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sora_spec.errors import UserError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif"}
)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})

_HOW_TO_GIVE_DATA = (
    "train.data is a folder of video files, or a .csv or .jsonl list with the columns path, label, caption; "
    "`sora-spec data digits data/digits` makes one to try"
)
_JSONL_LINE = 'one object a line: {"path": "a.mp4", "label": "cat", "caption": "a cat"}'


@dataclass(frozen=True)
class Entry:
    """One file that a source names. `label` is a class name or number as the source gives it."""

    path: Path
    label: str | None = None
    caption: str | None = None

    @property
    def is_image(self) -> bool:
        """Whether the file is a still: it becomes a clip by repetition, as in OpenDiT's loader."""
        return self.path.suffix.lower() in IMAGE_SUFFIXES


def find_entries(source: str | Path) -> list[Entry]:
    """Every file of `source`, in an order that depends on names only.

    Raises UserError when the source is missing, empty or malformed.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        entries = _from_folder(path)
    elif not path.exists():
        raise UserError(f"data source {path} does not exist", _HOW_TO_GIVE_DATA)
    elif path.suffix.lower() in {".jsonl", ".ndjson"}:
        entries = list(_from_jsonl(path))
    elif path.suffix.lower() == ".csv":
        entries = list(_from_csv(path))
    else:
        raise UserError(f"data source {path} is neither a folder nor a .csv or .jsonl list", _HOW_TO_GIVE_DATA)
    if not entries:
        raise UserError(f"data source {path} names no video or image", _HOW_TO_GIVE_DATA)
    return entries


def _from_folder(folder: Path) -> list[Entry]:
    """Class = name of the parent folder, for files below a sub-folder."""
    known = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    files = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in known and not path.name.startswith(".") and path.is_file()
    )
    ordered = sorted(files, key=lambda path: path.relative_to(folder).parts)
    return [Entry(path, None if path.parent == folder else path.parent.name) for path in ordered]


def _entry(source: Path, line: int, path: object, label: object, caption: object) -> Entry:
    if not isinstance(path, str) or not path.strip():
        raise UserError(f"{source}:{line}: no path", "every line needs the path of a video or image")
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise UserError(f"{source}:{line}: label {label!r} is neither a name nor a whole number")
    if not isinstance(caption, str | None):
        raise UserError(f"{source}:{line}: caption {caption!r} is not text")
    name = None if label is None or label == "" else str(label)
    return Entry(source.parent / Path(path.strip()).expanduser(), name, caption or None)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}", "save the list as UTF-8") from error


def _from_jsonl(path: Path) -> Iterator[Entry]:
    for number, text in enumerate(_read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            item = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON: {error.msg}", _JSONL_LINE) from error
        if not isinstance(item, dict):
            raise UserError(f"{path}:{number}: not an object", _JSONL_LINE)
        yield _entry(path, number, item.get("path"), item.get("label"), item.get("caption"))


def _from_csv(path: Path) -> Iterator[Entry]:
    """With a header: columns path, label, caption (or text). Without: OpenDiT's two columns, path and text."""
    rows = list(csv.reader(_read_text(path).splitlines()))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    columns = {name: header.index(name) for name in ("path", "label", "caption", "text") if name in header}
    headed = "path" in columns
    columns = columns if headed else {"path": 0, "text": 1}
    for number, row in enumerate(rows, start=1):
        if (headed and number == 1) or not any(cell.strip() for cell in row):
            continue
        cells = {name: row[index] for name, index in columns.items() if index < len(row)}
        yield _entry(path, number, cells.get("path"), cells.get("label"), cells.get("caption") or cells.get("text"))


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which `class9` comes before `class10`."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def class_names(labels: Iterable[str]) -> list[str]:
    """Class names in label order.

    Names that are all whole numbers stand for themselves, so that a source which lacks class 3 does not renumber
    class 4; other names are sorted and numbered.
    """
    found = sorted(set(labels), key=_natural)
    if found and all(name.isdecimal() for name in found):
        return [str(number) for number in range(max(int(name) for name in found) + 1)]
    return found


def number_labels(entries: Sequence[Entry], classes: int, source: str | Path) -> tuple[list[int], list[str]]:
    """Label number of every entry, and the class names in label order.

    Raises UserError when an entry has no label or when there are more classes than `condition.classes`.
    """
    bare = [entry.path for entry in entries if entry.label is None]
    if bare:
        raise UserError(
            f"{len(bare)} of {len(entries)} files in {source} have no label, the first is {bare[0]}",
            "put files in one sub-folder per class, give a list with a label column, or set condition: {kind: none}",
        )
    labels = [_canonical(entry.label) for entry in entries if entry.label is not None]
    if all(label.isdecimal() for label in labels) and (largest := max(int(label) for label in labels)) >= classes:
        raise UserError(
            f"{source} has the label {largest}, but condition.classes is {classes}: numbers must stay below it",
            f"set condition.classes={largest + 1}, or number the labels from 0",
        )
    names = class_names(labels)
    if len(names) > classes:
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        raise UserError(
            f"{source} has {len(names)} classes ({shown}), but condition.classes is {classes}",
            f"set condition.classes={len(names)}, or give a source with at most {classes} classes",
        )
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[label] for label in labels], names


def _canonical(label: str) -> str:
    """`007` and `7` are the same number."""
    return str(int(label)) if label.isascii() and label.isdecimal() else label
