"""How often sampling calls the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.plan.interval import Interval, exactly
from sora_spec.recipe.sampling import network_calls

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

ADAPTIVE = Interval(40, 100, 250)
"""Calls that dopri5 makes on trained SiT models at the usual tolerances; nobody can say before sampling."""


def sampler_calls(spec: Spec) -> Interval:
    """Calls of the network, one after another, for one batch; guidance doubles the batch and not the calls."""
    calls = network_calls(spec)
    return ADAPTIVE if calls is None else exactly(calls)
