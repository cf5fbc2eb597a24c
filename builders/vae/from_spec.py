"""`vae` section → VAE."""

from __future__ import annotations

from sora_spec.builders.vae.causal3d import Causal3dModule
from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.builders.vae.interface import IdentityModule, VaeModule
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.vae import CascadeVae, Causal3dVae, IdentityVae, ImageKlVae, KlDecoder, SpatialTiling

__all__ = ["VaeModule", "build_vae", "set_pieces", "unset_pieces"]


def build_vae(spec: Spec) -> VaeModule:
    """The VAE of a spec with freshly initialised weights; runs under `torch.device("meta")` too.

    Raises UserError for a kind of VAE or decoder that cannot be built.
    """
    section = spec.vae
    if isinstance(section, IdentityVae):
        return IdentityModule()
    if isinstance(section, ImageKlVae | Causal3dVae):
        if not isinstance(section.decoder, KlDecoder):
            raise UserError(
                f"{spec.name}: vae.decoder.kind {section.decoder.kind!r} can be validated and planned, but not built",
                hint="set vae.decoder.kind to kl",
            )
        vae = ImageKlModule(section) if isinstance(section, ImageKlVae) else Causal3dModule(section)
        set_pieces(vae, section)
        return vae
    raise UserError(
        f"{spec.name}: vae.kind {section.kind!r} can be validated and planned, but not built",
        hint="VAEs that can be built: identity, image_kl, causal3d",
    )


def set_pieces(vae: VaeModule, section: IdentityVae | ImageKlVae | Causal3dVae | CascadeVae) -> None:
    """Let a VAE encode and decode as the section says: whole, in tiles, or one latent frame at a time."""
    unset_pieces(vae)
    if isinstance(section, ImageKlVae | Causal3dVae) and isinstance(section.tiling, SpatialTiling):
        vae.tiles = section.tiling.tile // vae.space, section.tiling.overlap // vae.space
    if isinstance(section, Causal3dVae):
        vae.streaming = section.streaming


def unset_pieces(vae: VaeModule) -> None:
    """Let a VAE encode and decode whole clips, as a graph is exported."""
    vae.tiles, vae.streaming = None, False
