"""A folder as data source: every video and image below it, one class per folder that lies directly in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sora_spec.errors import UserError
from sora_spec.train.data.beside import texts_beside
from sora_spec.train.data.entries import Entries, Ignored, Source
from sora_spec.train.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES, thumbnails

LIST_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".txt", ".lst", ".list"})
_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".json"})
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "holdout"})

_OF_SYSTEMS = frozenset({"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that a disk station, an archive or a file system puts beside one's own: thumbnails, bins."""

_Key = tuple[int, int]
"""Device and inode: one folder under whatever name."""


@dataclass(frozen=True)
class _Folder:
    """A folder to be read: its place below the source, and the folders above it."""

    parts: tuple[str, ...]
    above: tuple[_Key, ...]


@dataclass
class _Walk:
    """Reads folders below `root`, those reached by links after all others."""

    root: Path
    files: list[tuple[str, ...]] = field(default_factory=list)
    ignored: Ignored = field(default_factory=Ignored)
    tops: list[str] = field(default_factory=list)
    """Names of the folders directly in the root."""
    links: list[_Folder] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    """Lists directly in the root."""
    texts: list[tuple[str, ...]] = field(default_factory=list)
    """Text files, which may be captions of the clips beside them."""
    linked: bool = False
    """Whether a link was followed: the same file may then occur twice."""
    _seen: set[tuple[str, _Key]] = field(default_factory=set)

    def run(self) -> None:
        """Read everything."""
        waiting = [_Folder((), ())]
        while waiting or self.links:
            # Linked folders come last, so that a folder's own files keep their names where a link leads to it too.
            folder = waiting.pop() if waiting else self._next_link()
            if folder is not None:
                waiting += self._read(folder)

    def _path(self, parts: tuple[str, ...]) -> str:
        return os.path.join(self.root, *parts)

    def _next_link(self) -> _Folder | None:
        self.links.sort(key=lambda folder: folder.parts, reverse=True)
        folder = self.links.pop()
        key = _key(self._path(folder.parts))
        if key in folder.above:
            self.ignored.add("links to a folder above them", self._path(folder.parts))
        elif (folder.parts[0], key) in self._seen:
            self.ignored.add("links to a folder that is read already", self._path(folder.parts))
        else:
            return folder
        return None

    def _read(self, folder: _Folder) -> list[_Folder]:
        """Note the files of one folder; gives its sub-folders."""
        path = self._path(folder.parts)
        try:
            with os.scandir(path) as listing:
                found = sorted(listing, key=lambda entry: entry.name)
            key = _key(path)
        except OSError as error:
            raise UserError(
                f"the folder {path} cannot be read: {error.strerror}",
                "without it classes would be missing; make it readable, or move it out of the source",
            ) from None
        top = folder.parts[0] if folder.parts else ""
        self._seen.add((top, key))
        inner: list[_Folder] = []
        for entry in found:
            parts = (*folder.parts, entry.name)
            if entry.name.startswith("."):
                self.ignored.add("hidden", entry.path)
            elif entry.name in _OF_SYSTEMS and _is_dir(entry):
                self.ignored.add("folders of the system (thumbnails, bins)", entry.path)
            elif _is_dir(entry):
                if not folder.parts:
                    self.tops.append(entry.name)
                self.linked |= entry.is_symlink()
                (self.links if entry.is_symlink() else inner).append(_Folder(parts, (*folder.above, key)))
            else:
                self._note_file(entry, parts)
        return inner

    def _note_file(self, entry: os.DirEntry[str], parts: tuple[str, ...]) -> None:
        suffix = os.path.splitext(entry.name)[1].lower()
        if not _is_file(entry):
            dead = entry.is_symlink()
            self.ignored.add("links that lead nowhere" if dead else "neither files nor folders", entry.path)
        elif suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES:
            self.linked |= entry.is_symlink()
            self.files.append(parts)
        elif suffix == ".txt":
            self.texts.append(parts)
        elif suffix in LIST_SUFFIXES:
            self.ignored.add("lists", entry.path)
            if len(parts) == 1 and suffix in _TABLE_SUFFIXES and entry.name != "dataset.json":
                self.lists.append(entry.path)
        else:
            self.ignored.add(f"suffix {suffix}" if suffix else "no suffix", entry.path)


def _key(path: str) -> _Key:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def read_folder(folder: Path) -> Source:
    """Every video and image below `folder`, in the order of their names, whatever the order on disk.

    The class of a file is the folder directly in `folder` that it lies below, at any depth. Links to folders and files
    are followed, each folder once per class. Hidden files and folders are left out and counted.

    Raises UserError for a folder that cannot be read.
    """
    walk = _Walk(folder)
    walk.run()
    entries = Entries(folder)
    beside = thumbnails("/".join(parts) for parts in walk.files)
    for parts in sorted(walk.files):
        if (name := "/".join(parts)) in beside:
            walk.ignored.add("pictures beside a video of the same name (thumbnails)", os.path.join(folder, name))
            continue
        entries.add(name, parts[0] if len(parts) > 1 else None)
    texts = ["/".join(parts) for parts in sorted(walk.texts)]
    source = Source(folder, "folder", entries, walk.ignored, beside=texts_beside(entries.paths, texts))
    for text in sorted(set(texts) - set(source.beside.values())):
        walk.ignored.add("text files without a clip of the same name", os.path.join(folder, text))
    source.lists = walk.lists
    empty = sorted(set(walk.tops) - set(entries.labels))
    if empty and len(empty) < len(walk.tops):
        source.label_warnings.append(
            f"{_names(empty)} in {folder} {'holds' if len(empty) == 1 else 'hold'} no video or image, "
            "and the classes are numbered without"
        )
    if walk.linked:
        source.conflict = _reached_twice(entries)
    return source


def _reached_twice(entries: Entries) -> tuple[str, str] | None:
    """A file that a link brings in a second time under another label. It is wrong under one of the two."""
    first: dict[_Key, int] = {}
    for index in range(len(entries)):
        known = first.setdefault(_key(entries.file(index)), index)
        if entries.labels[known] != entries.labels[index]:
            both = f"{entries.labels[known]!r} and {entries.labels[index]!r}"
            return (
                f"{entries.file(known)} and {entries.file(index)} are one file under two labels, {both}",
                "remove the link under one of the two",
            )
    return None


def check_class_folders(source: Source, classes: int) -> None:
    """Refuse a layout whose outer folders are no classes: splits, or one folder around the class folders."""
    tops = sorted({label for label in source.entries.labels if label is not None})
    if len(tops) > 1 and all(top.lower() in _SPLITS for top in tops):
        raise UserError(
            f"the folders in {source.path} are {', '.join(tops)}: parts of a data set, not classes",
            f"name one of them: train.data={source.path / tops[0]}",
        )
    if len(tops) != 1 or classes == 1:
        return
    inner = sorted({parts[1] for parts in (path.split("/") for path in source.entries.paths) if len(parts) > 2})
    if len(inner) > 1:
        raise UserError(
            f"everything in {source.path} lies in one folder, {tops[0]}, so that there is one class; "
            f"condition.classes is {classes}, and {tops[0]} holds {_names(inner)}",
            f"where these are the classes, name it: train.data={source.path / tops[0]}; "
            "where it is one class, set condition.classes=1",
        )


def _names(names: list[str], shown: int = 6) -> str:
    """`folder a`, `folders a, b, …`."""
    listed = ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
    return f"{'folder' if len(names) == 1 else 'folders'} {listed}"
