"""Everything that may vary about a job, in one list: searches, curves, sweeps and what-if knobs read it."""

from __future__ import annotations

from typing import Literal

from sora_spec.plan.axes.axis import Axis, Solved
from sora_spec.plan.axes.clip import CLIP_AXES
from sora_spec.plan.axes.machine import MACHINE_AXES
from sora_spec.plan.axes.way import WAY_AXES

AXES: dict[str, Axis] = {axis.key: axis for axis in (*MACHINE_AXES, *CLIP_AXES, *WAY_AXES)}
"""In the order in which they are shown."""
Field = Literal["batch", "frames", "resolution", "gpus"]
"""Axes whose extreme can be sought."""
FIELDS: tuple[Field, ...] = ("batch", "frames", "resolution", "gpus")


def solved(field: Field) -> tuple[Axis, Solved]:
    """An axis whose extreme can be sought, and how."""
    axis = AXES[field]
    assert axis.solved is not None
    return axis, axis.solved
