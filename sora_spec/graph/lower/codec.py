"""`vae` section → lowered codec: mirrors `builders/codec.py` and `builders/vae/interface.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sora_spec.errors import UserError
from sora_spec.graph.lower.causal3d import Causal3dCodec
from sora_spec.graph.lower.image_kl import ImageKlCodec
from sora_spec.graph.lower.weights import Weights
from sora_spec.graph.tensor import Tensor

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec
    from sora_spec.schema.vae import Causal3dVae, ImageKlVae


class Codec(Protocol):
    """Pixels ⇄ latents."""

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, T, Y, X) → (B, C, F, H, W): the posterior's mean, normalised."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, 3, T, Y, X)."""
        ...


class IdentityCodec:
    """No codec."""

    def encode(self, video: Tensor) -> Tensor:
        """The pixels."""
        return video

    def decode(self, latents: Tensor) -> Tensor:
        """The pixels."""
        return latents


def build_codec(spec: Spec, weights: Weights) -> Codec:
    """The codec of a spec. Raises UserError for a variant without a model graph."""
    vae = spec.vae
    if vae.kind == "identity":
        return IdentityCodec()
    if (vae.kind == "image_kl" or vae.kind == "causal3d") and vae.decoder.kind == "kl":
        return trained_codec(vae, weights)
    raise UserError(f"{spec.name}: there is no model graph for vae.kind {vae.kind!r} with this decoder yet")


def trained_codec(vae: ImageKlVae | Causal3dVae, weights: Weights) -> ImageKlCodec | Causal3dCodec:
    """A codec with parameters."""
    return ImageKlCodec(weights, vae) if vae.kind == "image_kl" else Causal3dCodec(weights, vae)
