"""How often sampling calls the network."""

from __future__ import annotations

from typing import assert_never

from sora_spec.plan.interval import Interval, exactly
from sora_spec.schema.objective import (
    DdimSampler,
    DdpmSampler,
    Dopri5Sampler,
    EulerMaruyamaSampler,
    EulerSampler,
    HeunSampler,
)
from sora_spec.schema.spec import Spec

ADAPTIVE = Interval(40, 100, 250)
"""Calls that dopri5 makes on trained SiT models at the usual tolerances; nobody can say before sampling."""


def sampler_calls(spec: Spec) -> Interval:
    """Calls of the network, one after another, for one batch; guidance doubles the batch and not the calls."""
    sampler = spec.sampler
    match sampler:
        case DdpmSampler() | DdimSampler() | EulerSampler():
            return exactly(sampler.steps)
        case HeunSampler():
            return exactly(2 * sampler.steps)
        case EulerMaruyamaSampler():
            return exactly(sampler.steps + (sampler.last_step != "none" and sampler.last_step_size > 0))
        case Dopri5Sampler():
            return ADAPTIVE
        case _:
            assert_never(sampler)
