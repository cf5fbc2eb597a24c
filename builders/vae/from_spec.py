"""`vae` section → VAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sora_spec.builders.vae.causal3d import Causal3dModule
from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.builders.vae.interface import IdentityModule, VaeModule
from sora_spec.errors import UserError
from sora_spec.language.facts import can_stream, is_trainable
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.vae import Vae

__all__ = ["VaeModule", "build_vae", "set_pieces", "unset_pieces"]

VAES: dict[str, Callable[[Any], VaeModule]] = {
    "identity": lambda _: IdentityModule(),
    "image_kl": ImageKlModule,
    "causal3d": Causal3dModule,
}
"""By kind of `vae`: the module of a section."""


def build_vae(spec: Spec) -> VaeModule:
    """The VAE of a spec with freshly initialised weights; runs under `torch.device("meta")` too.

    Raises UserError for a kind of VAE or decoder that cannot be built.
    """
    section = spec.vae
    if section.kind not in VAES:
        raise UserError(
            f"{spec.name}: vae.kind {section.kind!r} can be validated and planned, but not built",
            hint=f"VAEs that can be built: {', '.join(VAES)}",
        )
    if is_trainable(section) and section.decoder.kind != "kl":
        raise UserError(
            f"{spec.name}: vae.decoder.kind {section.decoder.kind!r} can be validated and planned, but not built",
            hint="set vae.decoder.kind to kl",
        )
    vae = VAES[section.kind](section)
    set_pieces(vae, section)
    return vae


def set_pieces(vae: VaeModule, section: Vae) -> None:
    """Let a VAE encode and decode as the section says: whole, in tiles, or one latent frame at a time."""
    unset_pieces(vae)
    if is_trainable(section) and section.tiling.kind == "spatial":
        vae.tiles = section.tiling.tile // vae.space, section.tiling.overlap // vae.space
    if can_stream(section):
        vae.streaming = section.streaming


def unset_pieces(vae: VaeModule) -> None:
    """Let a VAE encode and decode whole clips, as a graph is exported."""
    vae.tiles, vae.streaming = None, False
