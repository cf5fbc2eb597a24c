"""Cells of the Sweep screen's table, and what is typed above it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from sora_spec.errors import UserError
from sora_spec.plan.axes.all_axes import AXES
from sora_spec.plan.job import Job
from sora_spec.tui.session import OpenSpec


class Column(NamedTuple):
    """One column: its heading, how a row is shown in it, and by what it is sorted."""

    key: str
    heading: str
    style: str = ""


class Figure(Text):
    """A cell that knows by what it is sorted."""

    def __init__(self, text: str, value: Any, style: str = "", justify: Any = "right") -> None:
        super().__init__(text, style, justify=justify, no_wrap=True)
        self.value = value


def split_axes(text: str) -> list[str]:
    """`train.batch=8,16 clip.frames=17,33` → its parts. Spaces inside brackets and after commas belong to a value."""
    parts, depth = [""], 0
    for character in text.strip():
        depth += (character in "{[") - (character in "}]")
        if character.isspace() and depth <= 0 and not parts[-1].endswith((",", "=")):
            parts.append("")
        elif not (character.isspace() and not parts[-1]):
            parts[-1] += character
    return [part for part in parts if part]


def first_counts(spec: OpenSpec) -> tuple[int, ...]:
    """Numbers of devices to begin with: one, the spec's own and eight, as far as they can share the batch."""
    answer = spec.answer
    if answer is None or answer.job is None or answer.job.mode != "train":
        return (1,)
    own = answer.job.count
    return tuple(count for count in sorted({1, own, 8}) if count == own or _shares(answer.job, count))


def first_axes(spec: OpenSpec, counts: Sequence[int]) -> str:
    """Settings to begin with: half, the same and twice the batch, as far as all `counts` can share them; nothing where
    that is no knob."""
    answer = spec.answer
    if answer is None or answer.job is None or answer.question.mode != "train" or answer.question.stage != "denoiser":
        return ""
    job, batch = answer.job, answer.job.spec.train.batch
    batches = [
        value
        for value in sorted({max(1, batch // 2), batch, 2 * batch})
        if value == batch or all(_shares(job, count, value) for count in counts)
    ]
    return f"train.batch={','.join(map(str, batches))}"


def _shares(job: Job, count: int, batch: int | None = None) -> bool:
    """Whether so many devices can share the batch."""
    try:
        job = job if batch is None else AXES["batch"].change(job, batch).at(job)
        AXES["gpus"].change(job, count).at(job)
    except UserError:
        return False
    return True


def export_format(path: str) -> str:
    """`csv` or `json`, by the ending of a file's name. Raises UserError: another ending."""
    ending = Path(path.strip()).suffix.lower().removeprefix(".")
    if ending not in ("csv", "json"):
        raise UserError(f"{path.strip()!r} ends neither in .csv nor in .json", "such as sweep.csv")
    return ending


def sortable(text: str) -> Any:
    """Numbers before words."""
    try:
        return (0, float(json.loads(text)), text)
    except (ValueError, TypeError):
        return (1, 0.0, text)


def in_order(reverse: bool, cell: Figure) -> tuple[bool, Any]:
    """What is missing comes last, whichever way it is sorted."""
    missing = cell.value is None
    return missing != reverse, 0 if missing else cell.value
