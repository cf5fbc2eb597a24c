"""The one report before training: every file of a source, which class it belongs to and what became of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sora_spec import output
from sora_spec.characters import escaped
from sora_spec.disk.atomic import write_atomically
from sora_spec.errors import UserError
from sora_spec.train.data.captions import CaptionCount, count_captions
from sora_spec.train.data.entries import Ignored, Source
from sora_spec.train.data.labels import label_warnings
from sora_spec.train.data.missing import missing_hint, missing_message
from sora_spec.train.data.probe import FileInfo, Scan

Fate = Literal["too short", "a still", "damaged", "missing"]
_SHOWN_FILES = 10
_SHOWN_CLASSES = 12


@dataclass(frozen=True)
class Skipped:
    """One file that is not used."""

    path: str
    fate: Fate
    reason: str
    line: int | None = None


@dataclass(frozen=True)
class ClassCount:
    """One class: its number is the label that the network is given."""

    number: int
    name: str
    clips: int
    stills: int
    named: int
    """Files that the source gives it, the unusable ones included."""


@dataclass
class DataReport:
    """What a source gave. `clips` and `stills` are files that are used."""

    source: str
    kind: str
    named: int
    """Files that the source names."""
    clips: int
    stills: int
    skipped: list[Skipped]
    ignored: Ignored
    classes: list[ClassCount] | None = None
    """In label order; None where labels are not used."""
    captions: CaptionCount | None = None
    """None where captions are not used."""
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def count(self, fate: Fate) -> int:
        """How many files met this fate."""
        return sum(file.fate == fate for file in self.skipped)

    def summary(self) -> list[str]:
        """A few lines: what is trained on, and how classes are numbered."""
        parts = [_many(self.clips, "clip"), _many(self.stills, "still")] if self.stills else [_many(self.clips, "clip")]
        fates: tuple[Fate, ...] = ("too short", "damaged", "missing")
        parts += [f"{count:,} {fate}" for fate in fates if (count := self.count(fate))]
        if left_out := self.count("a still"):
            parts.append(f"{_many(left_out, 'still')} left out")
        if self.ignored.total:
            parts.append(f"{_many(self.ignored.total, 'file')} not looked at")
        lines = [f"data: {self.source}, {self.kind}: {', '.join(parts)}"]
        if self.classes is not None:
            lines.append(f"classes: {self._listed_classes()}")
        if self.captions is not None:
            lines.append(on_one_line(self.captions.in_words()))
        return lines

    def _listed_classes(self) -> str:
        classes = self.classes or []
        shown = [_class(each) for each in classes[:_SHOWN_CLASSES]]
        if len(classes) > _SHOWN_CLASSES:
            rest = sum(each.clips + each.stills for each in classes[_SHOWN_CLASSES:])
            shown.append(f"… and {len(classes) - _SHOWN_CLASSES} more ({rest:,})")
        return ", ".join(shown)

    def tell(self) -> None:
        """Print the summary, what is skipped by name, and what is probably not meant."""
        for line in self.summary():
            output.note(line)
        unusable = [file for file in self.skipped if file.fate != "missing"]  # these have a warning of their own
        if unusable:
            output.warn(f"{len(unusable)} of {self.named} files of {self.source} are skipped:\n{_names(unusable)}")
        for text in self.warnings:
            output.warn(text)

    def write(self, path: Path) -> None:
        """Record it in a run folder, whole or not at all."""
        write_atomically(path, json.dumps(self.values(), indent=1) + "\n")

    def values(self) -> dict[str, Any]:
        """As JSON has it, for `data check --json` and a run folder's `data.json`."""
        return {
            "contract": 1,
            "source": self.source,
            "kind": self.kind,
            "named": self.named,
            "clips": self.clips,
            "stills": self.stills,
            "too_short": self.count("too short"),
            "stills_left_out": self.count("a still"),
            "damaged": self.count("damaged"),
            "missing": self.count("missing"),
            "classes": None if self.classes is None else [vars(each) for each in self.classes],
            "captions": None if self.captions is None else vars(self.captions),
            "skipped": [vars(file) for file in self.skipped],
            "not_looked_at": [
                {"reason": reason, "files": count, "first": self.ignored.examples[reason]}
                for reason, count in self.ignored.counts.items()
            ],
            "warnings": self.warnings,
            "remarks": self.remarks,
        }


def on_one_line(text: str) -> str:
    """A line end in a name must not make a line of its own in a report."""
    return "".join(escaped(char) if char in "\r\n\t" else char for char in text)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _class(each: ClassCount) -> str:
    name = "" if each.name == str(each.number) else f" {each.name}"
    return on_one_line(f"{each.number}{name} ({each.clips + each.stills:,})")


def _names(skipped: Sequence[Skipped]) -> str:
    lines = [on_one_line(f"  {file.path}: {file.reason}") for file in skipped[:_SHOWN_FILES]]
    if len(skipped) > _SHOWN_FILES:
        lines.append(f"  … and {len(skipped) - _SHOWN_FILES} more")
    return "\n".join(lines)


def make_report(
    source: Source,
    missing: Sequence[int],
    scan: Scan,
    numbering: tuple[list[int], list[str]] | None,
    classes: int | None = None,
    captioned: bool = False,
) -> DataReport:
    """Bring together what was read, what does not exist, and what probing the rest found.

    `scan` covers the entries that exist, in their order. `numbering`: the number of each entry and the names.
    `classes`: how many the network has. `captioned`: captions are used.
    """
    gone = set(missing)
    tried = [index for index in range(len(source.entries)) if index not in gone]
    kept = {tried[place]: file for place, file in zip(scan.kept, scan.files, strict=True)}
    lost = iter(scan.skipped)
    skipped: list[Skipped] = []
    for index in range(len(source.entries)):
        line = source.entries.lines[index] or None
        if index in gone:
            skipped.append(Skipped(str(source.entries[index].path), "missing", "the file does not exist", line))
        elif index not in kept:
            path, reason = next(lost)
            skipped.append(Skipped(str(path), _fate(reason), reason, line))
    stills = sum(file.still for file in scan.files)
    report = DataReport(
        source=str(source.path),
        kind=source.kind,
        named=len(source.entries),
        clips=len(scan.files) - stills,
        stills=stills,
        skipped=skipped,
        ignored=source.ignored,
        captions=count_captions(source) if captioned else None,
        remarks=list(source.remarks),
    )
    if missing:
        report.warnings.append(f"{missing_message(source, missing)}; {missing_hint(source.entries, missing[0])}")
    report.warnings += _odd_files(scan.files)
    if numbering is not None:
        report.classes = _count_classes(numbering, kept)
        counts = Counter(label for label in source.entries.labels if label is not None)
        report.warnings += source.label_warnings + label_warnings(counts, counts) + _unseen(report.classes, classes)
    return report


def _odd_files(files: Sequence[FileInfo]) -> list[str]:
    """What is odd in files that are used, one line for each kind, with the first file's name."""
    odd: dict[str, list[str]] = {}
    for file in files:
        for remark in file.remarks:
            odd.setdefault(remark, []).append(str(file.path))
    return [
        f"{paths[0]}{f' and {len(paths) - 1:,} more' if len(paths) > 1 else ''}: {remark}"
        for remark, paths in odd.items()
    ]


def _fate(reason: str) -> Fate:
    if reason.startswith("too short"):
        return "too short"
    if reason.startswith("a still"):
        return "a still"
    return "missing" if reason == "the file does not exist" else "damaged"


def _count_classes(numbering: tuple[list[int], list[str]], kept: dict[int, FileInfo]) -> list[ClassCount]:
    numbers, names = numbering
    named = Counter(numbers)
    stills = Counter(numbers[index] for index, file in kept.items() if file.still)
    clips = Counter(numbers[index] for index, file in kept.items() if not file.still)
    return [ClassCount(number, name, clips[number], stills[number], named[number]) for number, name in enumerate(names)]


def _unseen(classes: Sequence[ClassCount], wanted: int | None) -> list[str]:
    """Classes that the network has and never sees."""
    said = []
    if empty := [each for each in classes if not each.clips + each.stills]:
        names = [str(each.number) + ("" if each.name == str(each.number) else f" {each.name}") for each in empty]
        listed = ", ".join(names[:_SHOWN_CLASSES]) + (", …" if len(empty) > _SHOWN_CLASSES else "")
        what = "the class" if len(empty) == 1 else f"{len(empty):,} classes, which are not trained:"
        said.append(f"no file that can be used for {what} {listed}")
    if wanted is not None and len(classes) < wanted:
        untrained = (
            f"numbers {len(classes)} to {wanted - 1} are" if wanted > len(classes) + 1 else f"number {wanted - 1} is"
        )
        said.append(f"condition.classes is {wanted}, the data has {len(classes)}: {untrained} not trained")
    return said


def refuse_unusable(report: DataReport) -> None:
    """Raise UserError when no file can be used, with what would help against the commonest reason."""
    if report.clips + report.stills:
        return
    fates: list[Fate] = [file.fate for file in report.skipped]
    commonest = max(fates, key=report.count)
    hints: dict[Fate, str] = {
        "too short": "give longer clips, or ask for fewer frames or more frames a second: clip.frames=…, clip.fps=…; "
        "or let them start anew when they end: train.short=loop",
        "a still": "show each for a whole clip: train.stills=repeat; or train on images: clip.frames=1; "
        "pictures that are the frames of a film must be made one: ffmpeg -i %04d.jpg clip.mp4",
        "damaged": f"see what is in them: sora-spec data check {report.source}",
        "missing": "paths in a list are relative to the folder of the list, or absolute",
    }
    if all("single frame" in file.reason for file in report.skipped):
        hints["too short"] = "a film of one frame gives clips of one frame: clip.frames=1"
    raise UserError(
        f"none of the {report.named} files of {report.source} can be used:\n{_names(report.skipped)}", hints[commonest]
    )
