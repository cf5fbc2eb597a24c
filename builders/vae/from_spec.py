"""`vae` section → VAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sora_spec.builders.vae.causal3d import Causal3dModule
from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.builders.vae.interface import IdentityModule, VaeModule
from sora_spec.language.abilities import refuse_unbuilt
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

    Raises UserError for a kind of VAE or decoder that can be described but not built.
    """
    refuse_unbuilt(spec, "vae")
    section = spec.vae
    assert not is_trainable(section) or section.decoder.kind == "kl", "others are refused"
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
