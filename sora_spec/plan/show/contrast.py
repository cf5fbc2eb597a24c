"""Any number of answers side by side: the fields in which their specs differ, what was asked, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sora_spec.plan.show.comparing import costs_of, fields_of, shown_cost, shown_ratio

if TYPE_CHECKING:
    from sora_spec.plan.question import Answer

Group = Literal["asked", "field", "cost"]
_ABSENT = "-"
_TOLD = ("mode", "stage", "batch", "placement", "hardware")
"""Of a way, what is told in other words or is no matter."""


@dataclass(frozen=True)
class Line:
    """One line of the comparison: a value for each answer."""

    group: Group
    name: str
    values: tuple[float | str | None, ...]
    """None where there is no plan, or no price."""
    shown: tuple[str, ...]
    """The same for people; from the second on with the ratio to the first."""

    @property
    def differs(self) -> bool:
        """Whether not all are alike."""
        return any(value != self.values[0] for value in self.values[1:])


_VERDICTS = {"yes": "fits", "tight": "tight", "no": "does not fit", "cannot": "unsupported", "errors": "no plan"}


def contrast(answers: Sequence[Answer]) -> tuple[Line, ...]:
    """What was asked, then costs, then fields, each in the order of the first answer that has it."""
    asked = [_asked(answer) for answer in answers]
    fields = [{} if answer.spec is None else fields_of(answer.spec) for answer in answers]
    return (*_lines("asked", asked), *_costs(answers), *_lines("field", fields))


def _asked(answer: Answer) -> dict[str, str]:
    asked, job = answer.question, answer.job
    placement = "" if asked.mode == "train" or asked.placement == "resident" else " one part at a time"
    found = {
        "verdict": _VERDICTS[answer.standing],
        "mode": asked.mode + placement,
    }
    if job is None:
        return found | {"problem": _problem(answer)}
    devices = f"{job.count} × {job.device.name}"
    clips = str(job.generated if job.mode == "generate" else job.micro_batch)
    way = {name: value for name, value in asked.way.items() if name not in _TOLD and value not in (None, False)}
    given = {name.replace("_", " "): "allowed" if value is True else str(value) for name, value in way.items()}
    return found | {"stage": job.stage, "devices": devices, "clips per pass": clips} | given


def _problem(answer: Answer) -> str:
    return answer.problem or next((d.message for d in answer.diagnostics if d.severity == "error"), "no plan")


def _lines(group: Group, columns: Sequence[Mapping[str, str]]) -> list[Line]:
    found: list[Line] = []
    for name in dict.fromkeys(name for column in columns for name in column):
        values = tuple(column.get(name, _ABSENT) for column in columns)
        found.append(Line(group, name, values, values))
    return found


def _costs(answers: Sequence[Answer]) -> list[Line]:
    columns = [{} if answer.plan is None else costs_of(answer.plan) for answer in answers]
    found: list[Line] = []
    for name in dict.fromkeys(name for column in columns for name in column):
        values = tuple(column.get(name) for column in columns)
        shown = [shown_cost(name, value) for value in values]
        found.append(
            Line(
                "cost",
                name,
                values,
                (shown[0], *(s + shown_ratio(values[0], v) for s, v in zip(shown[1:], values[1:], strict=True))),
            )
        )
    return found
