"""Settings that were put aside in the planner to be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sora_spec.plan.job import Question
from sora_spec.plan.question import Answer

if TYPE_CHECKING:
    from sora_spec.tui.session import OpenSpec

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST = 6
"""Columns of a comparison: more cannot be told apart in a plot."""


@dataclass(frozen=True)
class Column:
    """One column of the comparison."""

    name: str
    """Of the spec."""
    answer: Answer
    pinned: bool = False

    @property
    def label(self) -> str:
        """The spec and what is asked beyond it."""
        return " ".join([self.name, *asked_words(self.answer.question)])


def asked_words(question: Question) -> list[str]:
    """What a question says beyond its spec, in few words."""
    words = [] if question.mode == "train" else ["generate"]
    words += ["VAE"] if question.stage == "vae" and question.mode == "train" else []
    if question.gpu or question.count is not None:
        words.append(" × ".join(filter(None, [str(question.count or ""), question.gpu])))
    words += [f"{path.rpartition('.')[2]}={value}" for path, value in question.overrides]
    words += [] if question.batch is None else [f"{question.batch} at a time"]
    words += [] if question.placement == "resident" else ["one part at a time"]
    words += [] if question.attention is None else [f"{question.attention} attention"]
    return words + (["tf32"] if question.tf32 else [])


def pin(spec: OpenSpec) -> Column | None:
    """What is asked of a spec now, put aside. None while there is no answer to it."""
    return Column(spec.name, spec.answer, pinned=True) if spec.answer is not None and spec.fresh else None


def columns_of(specs: list[OpenSpec], index: int, pins: list[Column]) -> list[Column]:
    """The pins and the spec that is looked at, as it is asked now; with few specs open, the others too.

    At most `MOST`. What is pinned does not stand there twice.
    """
    shown = specs if len(specs) + len(pins) <= MOST else [specs[index]]
    found = list(pins)
    for spec in shown:
        pinned = any(column.name == spec.name and column.answer.question == spec.question for column in pins)
        if spec.answer is not None and not pinned:
            found.append(Column(spec.name, spec.answer))
    return found[-MOST:]
