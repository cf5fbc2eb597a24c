"""What the cells of a list mean, whatever its format: headings, paths, labels, captions."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from sora_spec.errors import UserError
from sora_spec.train.data.entries import Entries

_HEADINGS = {
    "path": (
        "path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "video_file",
        "video_name", "videopath", "paths", "files", "filenames", "videos", "images", "relative_path", "full_path",
        "clip", "clip_path", "image", "image_path", "image_file", "img", "img_path",
    ),
    "label": (
        "label", "labels", "label_id", "label_index", "class", "classes", "class_id", "class_idx", "class_index",
        "class_label", "class_name", "classname", "category", "category_id", "category_name", "label_name", "target",
        "cls",
    ),
    "caption": ("caption", "captions", "text", "prompt", "description", "sentence"),
}  # fmt: skip
FIELDS = tuple(_HEADINGS)
_FIELD = {heading: field for field, headings in _HEADINGS.items() for heading in headings}


def normal_heading(text: str) -> str:
    """`File Name`, `file-name` and `file_name` are one heading."""
    return re.sub(r"[\s\-]+", "_", text.strip().strip("\ufeff").strip().casefold())


def field_of(heading: str) -> str | None:
    """Which field a heading stands for: path, label, caption or none of them."""
    return _FIELD.get(normal_heading(heading))


@dataclass(frozen=True)
class Columns:
    """Where the fields stand; None where a list has none."""

    path: int
    label: int | None = None
    caption: int | None = None


def choose_columns(headings: Sequence[str], where: str) -> tuple[Columns | None, list[str]]:
    """Columns of the fields under `headings`, and the headings that are not read. No columns without a path.

    The field's own word goes before its other names, so that `path,label,class_name` reads the column `label`.
    Raises UserError where two columns could be meant.
    """
    normal = [normal_heading(heading) for heading in headings]
    chosen: dict[str, int] = {}
    for field in FIELDS:
        places = [index for index, name in enumerate(normal) if _FIELD.get(name) == field]
        exact = [index for index in places if normal[index] == field]
        places = exact or places
        if len(places) > 1:
            named = " and ".join(repr(headings[index].strip()) for index in places)
            raise UserError(
                f"{where}: the headings {named} both name the {field}",
                f"call the column to be read {field!r}, and rename or remove the other",
            )
        if places:
            chosen[field] = places[0]
    unread = [heading.strip() for index, heading in enumerate(headings) if index not in chosen.values()]
    if "path" not in chosen:
        return None, unread
    return Columns(chosen["path"], chosen.get("label"), chosen.get("caption")), [name for name in unread if name]


_UNUSUAL = re.compile(r"[\\\x00]|://|^~|^file:", re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_LOCAL = re.compile(r"file://(?:localhost)?(/.+)", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class Paths:
    """Turns the path of a row into one of this machine, relative to the list's folder unless absolute."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.root = source.parent

    def read(self, text: str, line: int) -> str:
        """The path as it is kept. Spaces around it do not count.

        Raises UserError for an empty one, an address, and a drive of Windows.
        """
        path = text.strip()
        if _UNUSUAL.search(path):
            return self._unusual(path, line)
        if not path:
            raise UserError(f"{self.source}:{line}: no path", "every row needs the path of a video or image")
        return path

    def _unusual(self, path: str, line: int) -> str:
        where = f"{self.source}:{line}"
        if "\0" in path:
            raise UserError(f"{where}: the path {path!r} holds a zero character", "no file can have such a name")
        if self._is_there(path):
            return path
        if local := _LOCAL.fullmatch(path):
            return self.read(unquote(local[1]), line)
        if _ADDRESS.match(path):
            raise UserError(
                f"{where}: {path} is an address, not a file", "download the files and name them by their paths"
            )
        if _DRIVE.match(path) and os.name != "nt":
            raise UserError(
                f"{where}: {path} is a path of Windows", "write paths relative to the list, or as this machine has them"
            )
        path = path.replace("\\", "/")
        return os.path.expanduser(path) if path.startswith("~") else path

    def _is_there(self, path: str) -> bool:
        try:
            return os.path.exists(os.path.join(self.root, path))
        except ValueError:
            return False


def label_text(label: object, where: str) -> str | None:
    """A label of JSON as text: a name, a whole number (3 and 3.0), or none.

    Raises UserError for anything else.
    """
    if label is None or isinstance(label, str):
        return label.strip() or None if label else None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int):
        raise UserError(f"{where}: label {label!r} is neither a name nor a whole number")
    return str(label)


@dataclass(frozen=True)
class Repeats:
    """Rows that name a file which an earlier row names."""

    rows: int = 0
    conflict: str | None = None
    """Where one file stands under two labels: `a.mp4 is labelled 'cat' on line 2 and 'dog' on line 9`."""


def find_repeats(entries: Entries) -> Repeats:
    """Look for files that are named more than once, `./a.mp4`, `a.mp4` and its absolute path being the same."""
    paths, labels, lines = entries.paths, entries.labels, entries.lines
    if 0 < sum(map(os.path.isabs, paths)) < len(paths):
        root = os.path.abspath(entries.root)
        paths = [os.path.join(root, path) for path in paths]
    if len(set(paths)) == len(paths) and not any("./" in path or "//" in path for path in paths):
        return Repeats()
    first: dict[str, int] = {}
    conflict = None
    for index, path in enumerate(paths):
        known = first.setdefault(os.path.normpath(path), index)
        if conflict is None and labels[known] != labels[index]:
            one, other = (f"{labels[place]!r} on {entries.unit} {lines[place]}" for place in (known, index))
            conflict = f"{entries.paths[index]} is labelled {one} and {other}"
    return Repeats(len(paths) - len(first), conflict)
