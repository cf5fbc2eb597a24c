"""Cells of the Sweep screen's table, and what is typed above it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from sora_spec.errors import UserError
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


def parse_counts(text: str) -> list[int | None]:
    """`1,8` → numbers of devices; the spec's own for an empty text.

    Raises:
        UserError: something that is no number from 1 to 4096.
    """
    found: list[int | None] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not part.isdecimal() or not 1 <= int(part) <= 4096:
            raise UserError(f"{part!r} is no number of devices", "numbers from 1 to 4096, with commas between")
        found.append(int(part))
    return found or [None]


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


def first_axes(spec: OpenSpec) -> str:
    """Settings to begin with: half, the same and twice the batch; nothing where that is no knob."""
    answer = spec.answer
    if answer is None or answer.spec is None or answer.whatif.mode != "train" or answer.whatif.stage != "denoiser":
        return ""
    batch = answer.spec.train.batch
    return f"train.batch={','.join(str(value) for value in sorted({max(1, batch // 2), batch, 2 * batch}))}"


def export_format(path: str) -> str:
    """`csv` or `json`, by the ending of a file's name.

    Raises:
        UserError: another ending.
    """
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
