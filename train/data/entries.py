"""What a data source names: files with labels and captions, and what in it was not looked at."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from sora_spec.train.data.suffixes import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Entry:
    """One file that a source names. `label` is a class name or number as the source gives it."""

    path: Path
    label: str | None = None
    caption: str | None = None
    line: int | None = None
    """Line of the list on which its row begins, from 1; None for a folder's file."""

    @property
    def is_image(self) -> bool:
        """Whether it is read as a picture: a still, or one that moves (WebP, APNG, AVIF)."""
        return self.path.suffix.lower() in IMAGE_SUFFIXES


class Entries(Sequence[Entry]):
    """The files of a source, kept by column: a list of a million rows takes its text and little more.

    `paths` are as the source gives them, relative to `root` unless absolute. A line of 0 means none.
    """

    def __init__(self, root: Path, unit: str = "line") -> None:
        self.root = str(root)
        self.unit = unit
        """What `lines` number: lines of a text, or rows of a table."""
        self.paths: list[str] = []
        self.labels: list[str | None] = []
        self.captions: list[str | None] = []
        self.lines = array("Q")
        self._labels: dict[str, str] = {}

    def add(self, path: str, label: str | None = None, caption: str | None = None, line: int = 0) -> None:
        """Append a file. An empty label is none; equal labels are kept once."""
        self.paths.append(path)
        self.labels.append(self._labels.setdefault(label, label) if label else None)
        self.captions.append(None)
        self.lines.append(line)
        self.caption(len(self) - 1, caption)

    def caption(self, index: int, text: str | None) -> None:
        """Set the caption of file number `index`. A blank one is none."""
        self.captions[index] = text if text and not text.isspace() else None

    def file(self, index: int) -> str:
        """Where file number `index` lies."""
        return os.path.join(self.root, self.paths[index])

    def place(self, index: int) -> str:
        """How a message names the row: `a.mp4 (line 3)`, or the path alone."""
        line = self.lines[index]
        return f"{self.paths[index]} ({self.unit} {line})" if line else self.file(index)

    def chosen(self, indices: Iterable[int]) -> Entries:
        """The files with these numbers, in this order."""
        part = Entries(Path(self.root), self.unit)
        for index in indices:
            part.add(self.paths[index], self.labels[index], self.captions[index], self.lines[index])
        return part

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...
    def __getitem__(self, index: int | slice) -> Entry | Entries:
        """One file, or a part of them."""
        if isinstance(index, slice):
            return self.chosen(range(*index.indices(len(self))))
        line = self.lines[index]
        return Entry(Path(self.file(index)), self.labels[index], self.captions[index], line or None)


_EXAMPLES = 20
"""Names kept of a group of files that are not looked at."""


@dataclass
class Ignored:
    """Files that were not looked at: for each reason how many, and the first names."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count one more."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES:
            shown.append(name)

    @property
    def total(self) -> int:
        """How many there are in all."""
        return sum(self.counts.values())


@dataclass
class Source:
    """A data source as read: every file or row is an entry, is counted in `ignored`, or is named by a remark."""

    path: Path
    kind: str
    """In words: `folder`, `CSV list (semicolons, UTF-16)`."""
    entries: Entries
    ignored: Ignored = field(default_factory=Ignored)
    remarks: list[str] = field(default_factory=list)
    """What is good to know: columns that are not read, how many comments there are."""
    label_warnings: list[str] = field(default_factory=list)
    """What is probably not meant about classes; of no weight where labels are not used."""
    lists: Sequence[str] = ()
    """Lists that lie directly in a folder; they are not read."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Of a folder: which text file beside each clip holds its caption; read where captions are used."""
    unread: Sequence[str] = ()
    """Headings of columns that are not read."""
    headless: bool = False
    """A list without headings: its second column was taken for captions."""
    conflict: tuple[str, str] | None = None
    """One file under two labels, in words, and how to mend it."""

    in_tars: bool = False
    """Whether the files lie inside of tars."""

    @property
    def is_folder(self) -> bool:
        """Whether labels come from the names of folders."""
        return self.kind == "folder"
