"""Captions in text files beside the clips: `a.txt` is the caption of `a.mp4`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sora_spec.train.data.entries import Source
from sora_spec.train.data.list_text import encoding_of, opened


def texts_beside(media: Iterable[str], texts: Iterable[str]) -> dict[str, str]:
    """For each of `media` that has one, the text file of the same name but for its end."""
    by_stem = {os.path.splitext(text)[0]: text for text in texts}
    return {path: by_stem[stem] for path in media if (stem := os.path.splitext(path)[0]) in by_stem}


def read_beside(source: Source) -> None:
    """Fill in the captions that lie beside the clips of a folder. A source of another kind is left as it is.

    Raises UserError for one that cannot be read, or is no text.
    """
    beside, source.beside = source.beside, {}  # once
    entries = source.entries
    for index, path in enumerate(entries.paths):
        text = beside.get(path)
        if text is not None:
            entries.caption(index, _caption(Path(entries.root, text)))


def _caption(path: Path) -> str:
    """All of the file but for one line end at its end, which editors put there."""
    encoding = encoding_of(path)
    with opened(path, encoding, newline="") as file:
        text = file.read()
    return text.removesuffix("\n").removesuffix("\r")
