"""The kinds that are lowered by hand. What else can be built is recorded from its module."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal

from sora_spec.errors import UserError
from sora_spec.language.rules.buildable import UNBUILT

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
    lowered = True
    for section, kind in _vae_kinds(spec) if component.startswith("vae") else _network_kinds(spec):
        if kind not in LOWERED[section]:
            lowered = False
            if kind in UNBUILT[section]:
                raise UserError(f"{spec.name}: there is no model graph for {section}.kind {kind!r} yet")
    if not component.startswith("vae") and _gives_tokens_to_adaln(spec):
        raise UserError(f"{spec.name}: there is no model graph for condition.pooled 'false' yet")
    return lowered


def _gives_tokens_to_adaln(spec: Spec) -> bool:
    condition, backbone = spec.condition, spec.backbone
    tokens = condition.kind == "text" and not condition.pooled
    return tokens and backbone.kind == "transformer" and backbone.conditioning.kind != "cross_attention"


def _vae_kinds(spec: Spec) -> Iterator[tuple[str, str]]:
    yield "vae", spec.vae.kind
    if spec.vae.kind == "image_kl" or spec.vae.kind == "causal3d":
        yield "vae.decoder", spec.vae.decoder.kind


def _network_kinds(spec: Spec) -> Iterator[tuple[str, str]]:
    backbone = spec.backbone
    yield "backbone", backbone.kind
    if backbone.kind == "transformer":
        yield "backbone.conditioning", backbone.conditioning.kind
        yield "backbone.position", backbone.position.kind
    yield "temporal", spec.temporal.kind


def block_axes(temporal: Temporal, depth: int) -> tuple[Axis, ...]:
    """Axis of each block's attention."""
    axes = _AXES[temporal.kind]
    return tuple(axes[index % len(axes)] for index in range(depth))
