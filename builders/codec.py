"""`vae` section → codec."""

from __future__ import annotations

from sora_spec.builders.vae.causal3d import Causal3dCodec
from sora_spec.builders.vae.image_kl import ImageKlCodec
from sora_spec.builders.vae.interface import Codec, IdentityCodec
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.vae import CascadeVae, Causal3dVae, IdentityVae, ImageKlVae, KlDecoder, SpatialTiling

__all__ = ["Codec", "build_codec", "set_pieces", "unset_pieces"]


def build_codec(spec: Spec) -> Codec:
    """The codec of a spec with freshly initialised weights; runs under `torch.device("meta")` too.

    Raises UserError for a kind of codec or decoder that cannot be built.
    """
    vae = spec.vae
    if isinstance(vae, IdentityVae):
        return IdentityCodec()
    if isinstance(vae, ImageKlVae | Causal3dVae):
        if not isinstance(vae.decoder, KlDecoder):
            raise UserError(
                f"{spec.name}: vae.decoder.kind {vae.decoder.kind!r} can be validated and planned, but not built",
                hint="set vae.decoder.kind to kl",
            )
        codec = ImageKlCodec(vae) if isinstance(vae, ImageKlVae) else Causal3dCodec(vae)
        set_pieces(codec, vae)
        return codec
    raise UserError(
        f"{spec.name}: vae.kind {vae.kind!r} can be validated and planned, but not built",
        hint="codecs that can be built: identity, image_kl, causal3d",
    )


def set_pieces(codec: Codec, vae: IdentityVae | ImageKlVae | Causal3dVae | CascadeVae) -> None:
    """Let a codec encode and decode as the section says: whole, in tiles, or one latent frame at a time."""
    unset_pieces(codec)
    if isinstance(vae, ImageKlVae | Causal3dVae) and isinstance(vae.tiling, SpatialTiling):
        codec.tiles = vae.tiling.tile // codec.space, vae.tiling.overlap // codec.space
    if isinstance(vae, Causal3dVae):
        codec.streaming = vae.streaming


def unset_pieces(codec: Codec) -> None:
    """Let a codec encode and decode whole clips, as a graph is exported."""
    codec.tiles, codec.streaming = None, False
