"""Everything that can be turned about a plan.

Knobs that only the language decides (recomputation, sharding, tiling, …) are not there where it has no such field.
"""

from __future__ import annotations

from sora_spec.plan.knobs.clip_knobs import CLIP_KNOBS
from sora_spec.plan.knobs.job_knobs import JOB_KNOBS
from sora_spec.plan.knobs.knob import Knob, Situation, situation_of
from sora_spec.plan.knobs.way_knobs import WAY_KNOBS

__all__ = ["KNOBS", "Knob", "Situation", "knobs_for", "situation_of"]

KNOBS: tuple[Knob, ...] = (*JOB_KNOBS, *CLIP_KNOBS, *WAY_KNOBS)
"""Every knob, in the order in which they are shown."""


def knobs_for(situation: Situation) -> tuple[Knob, ...]:
    """The knobs that have an effect here."""
    return tuple(knob for knob in KNOBS if knob.applies(situation))
