"""E4xx: what the language can say and nothing can build yet. One problem per section, naming what can be built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sora_spec.language.facts import is_trainable
from sora_spec.language.grammar import kinds_of
from sora_spec.language.rules.problem import At, Problem

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

UNBUILT: dict[str, tuple[str, ...]] = {
    "vae": ("cascade",),
    "vae.decoder": ("consistency",),
    "backbone": ("cascade",),
    "backbone.conditioning": ("adaln_lora",),
    "backbone.position": ("learned",),
    "temporal": ("inserted",),
}
"""Kinds of the language that no builder has a constructor for. Tests compare it with the builders' tables."""


def buildable(section: str) -> list[str]:
    """Kinds of a section that can be built, as the language lists them."""
    return [kind for kind in kinds_of(section) if kind not in UNBUILT.get(section, ())]


def _not_yet(code: str, section: str, kind: str) -> Iterator[Problem]:
    if kind in UNBUILT[section]:
        names = ", ".join(f"`{name}`" for name in buildable(section))
        yield Problem(
            code,
            f"`{section}: {{kind: {kind}}}` is part of the language, but cannot be built yet",
            At(f"{section}.kind", "not buildable yet"),
            help=f"Can be built: {names}.",
        )


def vae_is_buildable(spec: Spec) -> Iterator[Problem]:
    """E401."""
    return _not_yet("E401", "vae", spec.vae.kind)


def decoder_is_buildable(spec: Spec) -> Iterator[Problem]:
    """E402."""
    if is_trainable(spec.vae):
        yield from _not_yet("E402", "vae.decoder", spec.vae.decoder.kind)


def backbone_is_buildable(spec: Spec) -> Iterator[Problem]:
    """E403."""
    return _not_yet("E403", "backbone", spec.backbone.kind)


def temporal_is_buildable(spec: Spec) -> Iterator[Problem]:
    """E404."""
    return _not_yet("E404", "temporal", spec.temporal.kind)


def conditioning_is_buildable(spec: Spec) -> Iterator[Problem]:
    """E405. Text tokens without cross-attention are E312 already."""
    if spec.backbone.kind == "transformer":
        yield from _not_yet("E405", "backbone.conditioning", spec.backbone.conditioning.kind)


def position_is_buildable(spec: Spec) -> Iterator[Problem]:
    """E406."""
    if spec.backbone.kind == "transformer":
        yield from _not_yet("E406", "backbone.position", spec.backbone.position.kind)


RULES = (
    vae_is_buildable,
    decoder_is_buildable,
    backbone_is_buildable,
    temporal_is_buildable,
    conditioning_is_buildable,
    position_is_buildable,
)
