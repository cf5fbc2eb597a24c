"""What a knob is: a value in words, its settings from low to high, and typed values.

A setting is a whole `Question`, so that turning a knob is asking another question.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from sora_spec.errors import UserError
from sora_spec.plan.job import Job, Question
from sora_spec.plan.question import Answer

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


class Setting(NamedTuple):
    """One setting of a knob."""

    words: str
    question: Question
    order: float = 0.0
    """Place on the scale of a knob of numbers; knobs of choices count them."""


@dataclass(frozen=True)
class Situation:
    """What a knob sees: the question, and the last spec and job that could be made of it."""

    question: Question
    spec: Spec
    """As written, overrides included."""
    job: Job


@dataclass(frozen=True)
class Knob:
    """Something that can be turned."""

    key: str
    label: str
    help: str
    shown: Callable[[Situation], str]
    settings: Callable[[Situation], Sequence[Setting]]
    place: Callable[[Situation], float] | None = None
    """Where the present value stands on the scale; None for a knob of choices."""
    typed: Callable[[Situation, str], Question] | None = None
    """The question for a typed value; raises UserError. None where only choices make sense."""
    applies: Callable[[Situation], bool] = lambda _: True
    """Whether it has an effect on the job."""

    def step(self, situation: Situation, way: Literal[-1, 1]) -> Question | None:
        """The next setting up or down; None at the end."""
        settings = self.settings(situation)
        if not settings:
            return None
        if self.place is None:
            words = [setting.words for setting in settings]
            shown = self.shown(situation)
            index = words.index(shown) + way if shown in words else 0
            return settings[index].question if 0 <= index < len(settings) else None
        scale, here = [setting.order for setting in settings], self.place(situation)
        index = bisect_right(scale, here) if way > 0 else bisect_left(scale, here) - 1
        return settings[index].question if 0 <= index < len(settings) else None

    def enter(self, situation: Situation, text: str) -> Question:
        """The question for a typed value.

        Raises:
            UserError: the knob cannot take it.
        """
        text = text.strip()
        for setting in self.settings(situation):
            if setting.words.lower() == text.lower():
                return setting.question
        if self.typed is None:
            choices = ", ".join(setting.words for setting in self.settings(situation))
            raise UserError(f"{self.label}: {text!r} is none of its settings", choices)
        return self.typed(situation, text)


def situation_of(answer: Answer) -> Situation | None:
    """What knobs see of an answer; None where there was no plan."""
    if answer.plan is None or answer.spec is None:
        return None
    return Situation(answer.question, answer.spec, answer.plan.job)


def trains_denoiser(at: Situation) -> bool:
    """The denoiser is trained."""
    return at.job.mode == "train" and at.job.stage == "denoiser"


def runs_network(at: Situation) -> bool:
    """The network runs, trained or not."""
    return at.job.mode == "generate" or at.job.stage == "denoiser"


def trains(at: Situation) -> bool:
    """Something is trained."""
    return at.job.mode == "train"


def generates(at: Situation) -> bool:
    """Clips are generated."""
    return at.job.mode == "generate"


def on_cuda(at: Situation) -> bool:
    """A GPU does it."""
    return at.job.device.kind == "cuda"


def whole_number(
    low: int, high: int, make: Callable[[Situation, int], Question]
) -> Callable[[Situation, str], Question]:
    """How a whole number is typed."""

    def typed(at: Situation, text: str) -> Question:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise UserError(f"{text!r} is not a number from {low} to {high}")
        return make(at, int(text))

    return typed
