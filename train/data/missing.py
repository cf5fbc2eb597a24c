"""Files that a list names and that do not exist."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from sora_spec.errors import UserError
from sora_spec.train.data.entries import Entries, Source
from sora_spec.train.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES


def find_missing(source: Source) -> list[int]:
    """Numbers of the entries whose file does not exist. The files of a folder, and of a tar, are all there."""
    if source.is_folder or source.in_tars:
        return []
    return [index for index in range(len(source.entries)) if not _exists(source.entries.file(index))]


def _exists(path: str) -> bool:
    try:
        return os.access(path, os.F_OK)
    except ValueError:  # a character that no name can hold
        return False


def missing_message(source: Source, missing: Sequence[int]) -> str:
    """`3 of 10 files of list.csv do not exist, the first: a.mp4 (line 2), looked in /data`."""
    entries = source.entries
    folder = os.path.dirname(os.path.abspath(entries.file(missing[0])))
    count = f"{len(missing)} of {len(entries)} files of {source.path} do not exist"
    return f"{count}, the first: {entries.place(missing[0])}, looked in {folder}"


def refuse_all_missing(source: Source, missing: Sequence[int]) -> None:
    """Raise UserError when no file of a list exists: the folder is another one, or a column is no path."""
    if missing and len(missing) == len(source.entries):
        raise UserError(missing_message(source, missing), missing_hint(source.entries, missing[0]))


def missing_hint(entries: Entries, index: int) -> str:
    """What the file may have been meant to be."""
    path, rule = entries.paths[index], "paths in a list are relative to the folder of the list, or absolute"
    if not os.path.isabs(path) and _exists(path):
        return f"{rule}; {path} lies below the folder you are in"
    for meant in _nearby(entries.file(index)):
        return f"is {meant} meant?"
    for separator in (",", ";", "\t", "|", " "):
        head = path.split(separator, 1)[0].strip()
        if head != path and os.path.splitext(head)[1].lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            return "for labels or captions write headings such as path,label as the first line, and the same separator"
    if entries.lines[index] == 1 and not os.path.splitext(path)[1]:
        return f"{rule}; if line 1 holds headings, call the columns path, label and caption"
    return rule


def _nearby(file: str) -> list[str]:
    """Files of the same folder whose name differs in case, accents' spelling or a missing suffix only."""
    folder, name = os.path.split(file)
    try:
        present = sorted(os.listdir(folder or "."))
    except (OSError, ValueError):
        return []
    wanted = _folded(name.strip("'\"`“”‘’«»\ufeff\u200b"))
    same = [found for found in present if _folded(found) == wanted]
    longer = [found for found in present if Path(found).stem == name and Path(found).suffix.lower() in VIDEO_SUFFIXES]
    return [os.path.join(folder, found) for found in same + longer]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
