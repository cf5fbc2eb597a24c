"""What the user asks for → what each clip shows: a label, a prompt, or nothing. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sora_spec.compile.run.labels import check_count, plan_labels
from sora_spec.compile.run.pipeline import Asked
from sora_spec.compile.run.prompts import plan_prompts
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import TextCondition
from sora_spec.language.schema.spec import Spec


@dataclass(frozen=True)
class Asking:
    """The words of a command line or a call."""

    labels: Sequence[str] = ()
    prompts: Sequence[str] = ()
    count: int | None = None
    unconditional: bool = False
    negative: str | None = None


def plan_clips(spec: Spec, asking: Asking, classes: Sequence[str] | None = None) -> list[Asked]:
    """What each clip shows. `classes`: names that the model was trained on.

    Raises UserError for what the model does not take: prompts of one with classes, labels of one with text.
    """
    if isinstance(spec.condition, TextCondition) and not asking.labels:
        check_count(asking.count)
        return [*plan_prompts(spec, asking.prompts, asking.count, asking.unconditional, asking.negative)]
    if not isinstance(spec.condition, TextCondition) and (asking.prompts or asking.negative is not None):
        shown = asking.prompts[0] if asking.prompts else asking.negative
        raise UserError(
            f"{spec.name} is not steered by text: its condition is {spec.condition.kind}, and {shown!r} is a prompt",
            "leave it out; settings are written KEY=VALUE, such as sampler.steps=50",
        )
    return [*plan_labels(spec, asking.labels, asking.count, classes, asking.unconditional)]
