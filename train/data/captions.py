"""Captions of a source: text of any language, kept as it stands; where the condition is text, every file needs one."""

from __future__ import annotations

from dataclasses import dataclass

from sora_spec.errors import UserError
from sora_spec.train.data.beside import read_beside
from sora_spec.train.data.entries import Source

_HOW_TO_CAPTION = (
    "give a list with a caption column, such as path,caption, or put a text file beside every clip: a.mp4 and a.txt; "
    "files without a caption can be left out of a list"
)


@dataclass(frozen=True)
class CaptionCount:
    """What a report says of captions."""

    captioned: int
    """Files that have one."""
    empty: int
    """Files without: nothing, or blanks alone."""
    duplicates: int
    """Files whose caption another file has before them."""
    longest: int
    """Characters of the longest."""
    longest_of: str
    """Which file that is: `a.mp4 (line 3)`."""

    def in_words(self) -> str:
        """One line of a report."""
        parts = [f"{self.captioned:,} of {self.captioned + self.empty:,} files"]
        parts += [f"{self.empty:,} without"] if self.empty else []
        parts += [f"{self.duplicates:,} repeat an earlier one"] if self.duplicates else []
        parts += [f"the longest has {self.longest:,} characters: {self.longest_of}"] if self.captioned else []
        return f"captions: {', '.join(parts)}"


def count_captions(source: Source) -> CaptionCount:
    """Count the captions of all files that `source` names, those in text files beside them included.

    Raises UserError for a text file that cannot be read.
    """
    read_beside(source)
    entries = source.entries
    given = [index for index, caption in enumerate(entries.captions) if caption is not None]
    longest = max(given, key=lambda index: len(entries.captions[index] or ""), default=None)
    return CaptionCount(
        captioned=len(given),
        empty=len(entries) - len(given),
        duplicates=len(given) - len({entries.captions[index] for index in given}),
        longest=0 if longest is None else len(entries.captions[longest] or ""),
        longest_of="" if longest is None else entries.place(longest),
    )


def all_captions(source: Source) -> list[str]:
    """The caption of every entry. Raises UserError, which names the first one, where an entry has none."""
    read_beside(source)
    entries = source.entries
    captions = [caption for caption in entries.captions if caption is not None]
    if len(captions) == len(entries):
        return captions
    first = entries.place(entries.captions.index(None))
    raise UserError(
        f"{len(entries) - len(captions)} of {len(entries)} files in {source.path} have no caption, "
        f"the first is {first}",
        _hint(source, not captions),
    )


def _hint(source: Source, none_at_all: bool) -> str:
    if none_at_all and source.lists:
        return f"if the captions are in a list, name it: train.data={source.lists[0]}; otherwise {_HOW_TO_CAPTION}"
    if none_at_all and source.unread:
        named = ", ".join(source.unread)
        return f"the headings {named} are not read: call the caption's `caption`; otherwise {_HOW_TO_CAPTION}"
    return _HOW_TO_CAPTION


def check_encodable(caption: str, where: str) -> None:
    """Raise UserError for half of a character, which JSON can hold and no text file."""
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: the caption holds \\u{ord(caption[error.start]):04x} alone, half of a character",
            "write both halves, such as \\ud83d\\ude00, or the character itself",
        ) from None
