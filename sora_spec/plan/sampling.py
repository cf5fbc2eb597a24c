"""How often sampling calls the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.plan.interval import Interval, exactly

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec

ADAPTIVE = Interval(40, 100, 250)
"""Calls that dopri5 makes on trained SiT models at the usual tolerances; nobody can say before sampling."""


def sampler_calls(spec: Spec) -> Interval:
    """Calls of the network, one after another, for one batch; guidance doubles the batch and not the calls."""
    sampler = spec.sampler
    if sampler.kind == "dopri5":
        return ADAPTIVE
    if sampler.kind == "heun":
        return exactly(2 * sampler.steps)
    if sampler.kind == "euler_maruyama":
        return exactly(sampler.steps + (sampler.last_step != "none" and sampler.last_step_size > 0))
    return exactly(sampler.steps)
