"""`data check`: every file of a source with what it holds, or why it cannot be used, and the report before training."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sora_spec.errors import UserError
from sora_spec.language.schema.condition import ClassCondition, TextCondition
from sora_spec.train.data.beside import read_beside
from sora_spec.train.data.captions import all_captions
from sora_spec.train.data.clips import exact_fps, label_source
from sora_spec.train.data.entries import Source
from sora_spec.train.data.labels import number_names
from sora_spec.train.data.missing import find_missing
from sora_spec.train.data.probe import FileInfo, scan
from sora_spec.train.data.report import ClassCount, DataReport, make_report, on_one_line
from sora_spec.train.data.sources import read_source

Row = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """What `data check` found."""

    report: DataReport
    rows: list[Row]
    """One per file, in the order of their paths."""
    refusal: UserError | None = None
    """Why `train` would not take the labels or captions."""

    @property
    def passed(self) -> bool:
        """Whether every file can be used and the labels are right."""
        return self.refusal is None and not self.report.skipped

    def values(self) -> dict[str, Any]:
        """As `--json` has it."""
        refused = None if self.refusal is None else self.refusal.message
        return self.report.values() | {"files": self.rows, "refused": refused}


def check_source(source: str, spec_path: str | None) -> Check:
    """Look at every file. Without a spec, one is usable when it holds a frame; with one, when it holds a clip."""
    frames, fps, condition = 1, Fraction(1), None
    short, stills = "skip", "skip"
    if spec_path is not None:
        from sora_spec.language.loading import load_spec

        spec = load_spec(spec_path)
        frames, fps, condition = spec.clip.frames, exact_fps(spec.clip.fps), spec.condition
        short, stills = spec.train.short, spec.train.stills
    read = read_source(source)
    numbering, refusal = None, None
    try:
        numbering = label_source(read, condition) if condition is not None else _numbering(read)
        if isinstance(condition, TextCondition):
            all_captions(read)
        elif condition is None:
            read_beside(read)
    except UserError as error:
        refusal = error
    missing = find_missing(read)
    gone = set(missing)
    tried = [index for index in range(len(read.entries)) if index not in gone]
    found = scan(read.entries.chosen(tried), frames, fps, short, stills)
    classes = condition.classes if isinstance(condition, ClassCondition) else None
    captioned = isinstance(condition, TextCondition)
    if condition is None:
        captioned = any(read.entries.captions)
    report = make_report(read, missing, found, numbering, classes, captioned)
    rows = [_usable(file, read, tried[place]) for place, file in zip(found.kept, found.files, strict=True)]
    rows += [{"path": each.path, "line": each.line, "problem": each.reason} for each in report.skipped]
    return Check(report, sorted(rows, key=lambda row: (row["path"], row["line"] or 0)), refusal)


def _numbering(read: Source) -> tuple[list[int], list[str]] | None:
    """The numbers that labels would get under a class condition, where every file has one."""
    labels = [label for label in read.entries.labels if label is not None]
    if len(labels) < len(read.entries):
        if labels:
            read.remarks.append(f"files without a label: {len(read.entries) - len(labels)}")
        return None
    numbering = number_names(set(labels), read.path, folders=read.is_folder)
    if read.conflict is not None:
        raise UserError(*read.conflict)
    return [numbering.numbers[label] for label in labels], numbering.names


def _usable(file: FileInfo, read: Source, index: int) -> Row:
    entries = read.entries
    return {
        "path": str(file.path),
        "line": entries.lines[index] or None,
        "label": entries.labels[index],
        "caption": entries.captions[index],
        "width": file.width,
        "height": file.height,
        "frames": file.frames,
        "fps": round(float(file.rate), 3),
        "seconds": round(file.seconds, 3),
        "still": file.still,
        "remarks": list(file.remarks),
        "problem": None,
    }


def table(check: Check) -> str:
    """A check as text: files, classes, what was not looked at, and counts."""
    report = check.report
    lines = [_line(row) for row in check.rows]
    lines += [_class_line(each) for each in report.classes or [] if each.named]
    for reason, count in report.ignored.counts.items():
        first = ", ".join(report.ignored.examples[reason][:3]) + (", …" if count > 3 else "")
        lines.append(f"not looked at: {count} × {reason}: {first}")
    lines += report.remarks
    lines += [] if report.captions is None else [report.captions.in_words()]
    lines += report.summary()[:1]
    return "\n".join([*map(on_one_line, lines), f"{report.clips + report.stills} of {report.named} files can be used"])


def _class_line(each: ClassCount) -> str:
    stills = f", {each.stills} of them stills" if each.stills else ""
    return f"class {each.number}  {each.name}  {each.clips + each.stills} of {each.named} files{stills}"


def _line(row: Row) -> str:
    if row["problem"]:
        return f"{row['path']}  not usable: {row['problem']}"
    facts = "still" if row["still"] else f"{row['frames']} frames  {row['fps']:g} fps"
    label = f"  label {row['label']}" if row["label"] is not None else ""
    remarks = "".join(f"  ({remark})" for remark in row["remarks"])
    return f"{row['path']}  {row['width']}x{row['height']}  {facts}{label}{remarks}"
