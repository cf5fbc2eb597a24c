"""One quantity of a plan over one axis: memory over frames and over clips, time over devices. For plots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.plan.axes.all_axes import Field, solved
from sora_spec.plan.planner import Plan, make_plan

if TYPE_CHECKING:
    from sora_spec.plan.interval import Interval
    from sora_spec.plan.job import Job

_FAR = 1.5
"""Share of the device's memory beyond which no larger batch is planned."""


@dataclass(frozen=True)
class Point:
    """The plan at one setting of the knob."""

    x: int
    """Frames; clips of one pass; devices; height in pixels."""
    plan: Plan
    asked: bool
    """Whether it is the job as it was asked."""

    @property
    def memory_bytes(self) -> Interval:
        """What one device needs."""
        return self.plan.needed

    @property
    def total_seconds(self) -> Interval:
        """All steps, or the generation of one batch."""
        return self.plan.times.total_seconds


def curve(job: Job, field: Field) -> Iterator[Point]:
    """Points in the order of the axis. None where it cannot vary, as frames of an image model."""
    axis, how = solved(field)
    own = axis.own(job)
    for value in how.few(job):
        try:
            plan = make_plan(axis.change(job, value).at(job))
        except UserError:
            continue
        yield Point(how.x(job, value), plan, how.x(job, value) == how.x(job, own))
        if field == "batch" and value >= own and plan.needed.likely > _FAR * job.device.memory_bytes:
            return
