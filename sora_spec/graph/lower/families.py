"""The kinds that are lowered by hand. What else can be built is recorded from its module."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from sora_spec.language.abilities import kinds, refuse_unbuilt

if TYPE_CHECKING:
    from sora_spec.language.schema.backbone import Temporal
    from sora_spec.language.schema.spec import Spec

Axis = Literal["space", "time", "joint", "factorized"]
"""What a block attends along: the places of a frame, the frames of a place, all tokens, or the first two in turn."""
_AXES: dict[str, tuple[Axis, ...]] = {
    "none": ("space",),
    "joint": ("joint",),
    "alternating": ("space", "time"),
    "factorized": ("factorized",),
}
"""By kind of `temporal`: the axes of blocks until they repeat."""
LOWERED: dict[str, Collection[str]] = {
    "vae": ("identity", "image_kl", "causal3d"),
    "vae.decoder": ("kl",),
    "backbone": ("transformer",),
    "backbone.conditioning": ("adaln_zero", "adaln_single", "cross_attention"),
    "backbone.position": ("sincos", "rope", "none"),
    "temporal": _AXES,
}
"""Kinds with a lowering, by section. `graph_from_spec` looks here, and nowhere else."""


def is_lowered(spec: Spec, component: str) -> bool:
    """Whether a component has a lowering; if not, it is recorded.

    Raises UserError for a variant that can be described but not built.
    """
    if component == "text_encode":
        return True
    part = "vae" if component.startswith("vae") else "network"
    refuse_unbuilt(spec, part)
    return all(kind in LOWERED[section] for section, kind in kinds(spec, part).items())


def block_axes(temporal: Temporal, depth: int) -> tuple[Axis, ...]:
    """Axis of each block's attention."""
    axes = _AXES[temporal.kind]
    return tuple(axes[index % len(axes)] for index in range(depth))
