"""`vae` section → codec."""

from __future__ import annotations

from sora_spec.builders.vae.causal3d import Causal3dCodec
from sora_spec.builders.vae.image_kl import ImageKlCodec
from sora_spec.builders.vae.interface import Codec, IdentityCodec
from sora_spec.errors import UserError
from sora_spec.schema.spec import Spec
from sora_spec.schema.vae import Causal3dVae, IdentityVae, ImageKlVae, KlDecoder

__all__ = ["Codec", "build_codec"]


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
        return ImageKlCodec(vae) if isinstance(vae, ImageKlVae) else Causal3dCodec(vae)
    raise UserError(
        f"{spec.name}: vae.kind {vae.kind!r} can be validated and planned, but not built",
        hint="codecs that can be built: identity, image_kl, causal3d",
    )
