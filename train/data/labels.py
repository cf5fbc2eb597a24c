"""Labels → class numbers. The numbers depend on the set of labels alone, never on their order or count."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sora_spec.errors import UserError
from sora_spec.train.data.entries import Entries, Source
from sora_spec.train.data.folders import check_class_folders

_HOW_TO_LABEL = "put files in one sub-folder per class, give a list with a label column, or set condition: {kind: none}"
_FRACTION = re.compile(r"[+-]?\d*\.\d+|[+-]?\d+\.|[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_NEGATIVE = re.compile(r"-\d+")
_MISSING_WORDS = frozenset({"nan", "null", "none", "n/a", "na", "<na>", "?"})
MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Numbering:
    """Class names in label order, and the number that each label of the source stands for."""

    names: list[str]
    numbers: dict[str, int]


def _natural(name: str) -> tuple[tuple[int, int, str, str], ...]:
    """Sort key under which `class9` comes before `class10`, and `01` before `1`. Digits are never made a number."""
    parts = re.findall(r"\d+|\D+", name)
    digits = {part: part.lstrip("0") for part in parts if part.isdecimal()}
    return tuple((0, len(digits[part]), digits[part], part) if part in digits else (1, 0, part, part) for part in parts)


def class_names(labels: Iterable[str]) -> list[str]:
    """Class names in label order.

    Names that are all whole numbers stand for themselves, so that a source which lacks class 3 does not renumber
    class 4; other names are sorted and numbered.
    """
    found = sorted(set(labels), key=_natural)
    if found and all(name.isdecimal() for name in found):
        return [str(number) for number in range(max(int(name) for name in found) + 1)]
    return found


def _canonical(label: str) -> str:
    """`007`, `7` and `7.0` are the same number; programs write the last where a column also has empty cells."""
    whole = re.fullmatch(r"\+?(\d+)(\.0*)?", label)
    digits = whole[1].lstrip("0") if whole else ""  # Python refuses to read very many digits, zeros in front among them
    return f"{int(digits or 0):d}" if whole and len(digits) < 19 else label


def number_names(
    labels: Iterable[str], source: str | Path, classes: int | None = None, folders: bool = False
) -> Numbering:
    """Numbers for distinct labels. `folders`: labels are names of folders, where `0.5` is as good a name as any.

    Raises UserError for labels that are numbers but no class numbers below `classes`, and for numbers beside names.
    """
    canonical = {label: _canonical(label) for label in labels}
    found = set(canonical.values())
    wholes = [label for label in found if label.isdecimal()]
    wrong = sorted(
        label for label in found if _NEGATIVE.fullmatch(label) or (not folders and _FRACTION.fullmatch(label))
    )
    if wrong and len(wholes) + len(wrong) == len(found):
        raise UserError(
            f"{source} has the label {wrong[0]}: labels are whole numbers from 0, or names",
            "leave out rows without a class, and number the others from 0",
        )
    if len(wholes) == len(found):
        _check_largest(max(wholes, key=lambda label: (len(label), label), default="0"), source, classes)
    names = class_names(found)
    number_of = {name: number for number, name in enumerate(names)}
    moved = sorted((label for label in wholes if label != str(number_of[label])), key=_natural)
    if moved:
        name = next(name for name in names if not name.isdecimal())
        raise UserError(
            f"{source} has numbers and names as labels, {moved[0]} beside {name!r}: "
            f"{moved[0]} would become number {number_of[moved[0]]}",
            "write names only, such as class-3, or numbers only",
        )
    return Numbering(names, {label: number_of[name] for label, name in canonical.items()})


def _check_largest(largest: str, source: str | Path, classes: int | None) -> None:
    limit = MOST_CLASSES if classes is None else classes
    if len(largest) < 9 and int(largest) < limit:
        return
    but = f"the largest number of classes is {limit:,}" if classes is None else f"condition.classes is {classes}"
    more = f"set condition.classes={int(largest) + 1}, or " if len(largest) < 7 else ""
    raise UserError(
        f"{source} has the label {_cut(largest)}, but {but}: numbers must stay below it",
        f"{more}number the labels from 0",
    )


def _cut(text: str) -> str:
    return text if len(text) <= 30 else text[:27] + "…"


def number_labels(
    entries: Entries, classes: int, source: str | Path, read: Source | None = None
) -> tuple[list[int], list[str]]:
    """Label number of every entry, and the class names in label order. `read`: the source, for what it knows of it.

    Raises UserError when an entry has no label, when a file has two, when the layout is not one of classes, and when
    there are more classes than `condition.classes`.
    """
    refuse_bare(entries, source, read)
    if read is not None and read.conflict is not None:
        raise UserError(*read.conflict)
    if read is not None and read.is_folder:
        check_class_folders(read, classes)
    labels = [label for label in entries.labels if label is not None]
    numbering = number_names(set(labels), source, classes, read is not None and read.is_folder)
    if len(numbering.names) > classes:
        raise UserError(
            f"{source} has {len(numbering.names)} classes ({_listed(numbering.names)}), "
            f"but condition.classes is {classes}",
            f"set condition.classes={len(numbering.names)}, or give a source with at most {classes} classes",
        )
    return [numbering.numbers[label] for label in labels], numbering.names


def refuse_bare(entries: Entries, source: str | Path, read: Source | None = None) -> None:
    """Raise UserError when an entry has no label. `read`: the source, for what it knows of its columns."""
    bare = entries.labels.count(None)
    if not bare:
        return
    hint = _HOW_TO_LABEL
    if read is not None and read.headless:
        hint = "write `path,label` as the first line of the list if its second column is the label; otherwise " + hint
    elif read is not None and read.lists and bare == len(entries):
        hint = f"if the labels are in a list, name it: train.data={read.lists[0]}; otherwise {hint}"
    elif read is not None and read.unread and bare == len(entries):
        hint = f"the headings {', '.join(read.unread)} are not read: call the label's `label`; otherwise {hint}"
    first = entries.place(entries.labels.index(None))
    raise UserError(f"{bare} of {len(entries)} files in {source} have no label, the first is {first}", hint)


def label_warnings(labels: Iterable[str | None], counts: Counter[str]) -> list[str]:
    """Class names that are probably not meant: alike but for case or spaces, or words for "missing"."""
    alike: dict[str, list[str]] = {}
    for label in sorted({label for label in labels if label is not None}, key=_natural):
        seen = "".join(char for char in label if unicodedata.category(char) != "Cf")  # of no width
        folded = re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFKC", seen).casefold())
        alike.setdefault(folded, []).append(label)
    same: dict[str, list[str]] = {}
    for label in (name for names in alike.values() for name in names):
        same.setdefault(_canonical(label), []).append(label)
    said = [f"{' and '.join(map(repr, names))} are one class, {number}" for number, names in same.items() if names[1:]]
    said += [
        f"{' and '.join(f'{name!r} ({counts[name]})' for name in names)} are different classes; are they meant to be?"
        for names in alike.values()
        if len({_canonical(name) for name in names}) > 1
    ]
    said += [
        f"{name!r} is taken as the name of a class ({counts[name]} files); a missing label is an empty cell or null"
        for folded, names in alike.items()
        for name in names
        if folded in _MISSING_WORDS
    ]
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
