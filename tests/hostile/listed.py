"""What a case of a hostile list is made of: files, the list, and what is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sora_spec.errors import UserError
from sora_spec.train.data.labels import label_warnings, number_labels
from sora_spec.train.data.missing import find_missing, missing_hint, missing_message, refuse_all_missing
from sora_spec.train.data.sources import Source, read_source

Rows = list[tuple[str, str | None, int | None]]
"""Path as the list gives it, label as it is kept, class number."""
TWO: Rows = [("a.mp4", "cat", 0), ("b.mp4", "dog", 1)]
BARE: Rows = [("a.mp4", None, None), ("b.mp4", None, None)]


@dataclass(frozen=True)
class Listed:
    """A source that is written, read and numbered."""

    name: str
    source: str
    """Name of the list, or of the folder."""
    content: str | bytes = ""
    rows: Rows | None = None
    """What must come out; None where the source must be refused."""
    says: tuple[str, ...] = ()
    """Words of the refusal, or of what is said about an accepted source."""
    captions: tuple[str | None, ...] | None = None
    classes: int | None = 100
    """`condition.classes`; None for a condition without labels."""
    files: tuple[str, ...] = ()
    """Files to be there, below the case's folder."""
    links: Mapping[str, str] = field(default_factory=dict)

    def lay_out(self, folder: Path) -> Path:
        """Write everything; gives the path of the source."""
        for name in self.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")
        for name, target in self.links.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)
        source = folder / self.source
        if self.content:
            raw = self.content.encode() if isinstance(self.content, str) else self.content
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(raw)
        return source

    def run(self, folder: Path) -> str | None:
        """What is wrong with what the reader makes of it."""
        source = self.lay_out(folder)
        try:
            read = read_source(source)
            numbers = self._numbers(read)
            said = [*read.remarks, *read.label_warnings, *label_warnings(read.entries.labels, _counts(read))]
            if not read.is_folder and self.files:
                missing = find_missing(read)
                refuse_all_missing(read, missing)
                said += [missing_message(read, missing), missing_hint(read.entries, missing[0])] if missing else []
        except UserError as error:
            text = f"{error.message} | {error.hint}"
            if self.rows is not None:
                return f"refused: {text}"
            lost = [word for word in self.says if word not in text]
            return f"the refusal does not say {lost}: {text}" if lost else None
        found = list(zip(read.entries.paths, read.entries.labels, numbers, strict=True))
        if self.rows is None:
            return f"accepted: {found}"
        if found != self.rows:
            return f"read as {found}, right is {self.rows}"
        if self.captions is not None and tuple(read.entries.captions) != self.captions:
            return f"captions {read.entries.captions}, right is {self.captions}"
        said += [f"{count} × {reason}" for reason, count in read.ignored.counts.items()] + [read.kind]
        lost = [word for word in self.says if not any(word in text for text in said)]
        return f"does not say {lost}: {said}" if lost else None

    def _numbers(self, read: Source) -> list[int | None]:
        if self.classes is None:
            return [None] * len(read.entries)
        return [*number_labels(read.entries, self.classes, read.path, read)[0]]


def _counts(read: Source) -> Counter[str]:
    return Counter(label for label in read.entries.labels if label is not None)
