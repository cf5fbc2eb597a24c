"""`vae` section → lowered codec: mirrors `builders/codec.py` and `builders/vae/interface.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sora_spec.errors import UserError
from sora_spec.graph.ir import Repeat
from sora_spec.graph.layout import Shape
from sora_spec.graph.lower.causal3d import Causal3dCodec
from sora_spec.graph.lower.image_kl import ImageKlCodec
from sora_spec.graph.lower.pieces import in_tiles
from sora_spec.graph.lower.vae_loss import split_moments
from sora_spec.graph.lower.weights import Weights
from sora_spec.graph.tensor import Tensor
from sora_spec.tiles import cut

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec
    from sora_spec.schema.vae import Causal3dVae, ImageKlVae


TrainedCodec: TypeAlias = ImageKlCodec | Causal3dCodec


class Codec(Protocol):
    """Pixels ⇄ latents."""

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, T, Y, X) → (B, C, F, H, W): the posterior's mean, normalised."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, 3, T, Y, X)."""
        ...

    def repeat_pieces(self, latent: Shape) -> Repeat | None:
        """Run one piece for all equal ones of latents (C, F, H, W) where there are several; says which."""
        ...


class CodecInPieces:
    """A trained codec as it encodes and decodes: in tiles where the spec says so."""

    def __init__(self, codec: TrainedCodec, vae: ImageKlVae | Causal3dVae) -> None:
        self.codec, self.space = codec, vae.compression.space
        self.tiles: tuple[int, int] | None = None
        if vae.tiling.kind == "spatial":
            self.tiles = vae.tiling.tile // self.space, vae.tiling.overlap // self.space

    def encode(self, video: Tensor) -> Tensor:
        """The posterior's mean, normalised."""
        mean, _ = split_moments(self._in_tiles(self.codec.encode_tile, video, (self.space, 1)))
        return self.codec.normalise(mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels of normalised latents."""
        return self._in_tiles(self.codec.decode_tile, latents, (1, self.space))

    def repeat_pieces(self, latent: Shape) -> Repeat | None:
        """Pieces of a stream but the first and the last are alike. In tiles every piece is run: tiles differ."""
        _, frames, rows, columns = latent
        tiles = 1 if self.tiles is None else cut(rows, columns, *self.tiles).tiles
        if self.codec.kind == "image_kl" or not self.codec.streaming or tiles > 1 or frames < 4:
            return None
        self.codec.abridged = True
        return Repeat(1, 2, frames - 2)

    def _in_tiles(self, run: Callable[[Tensor], Tensor], source: Tensor, scale: tuple[int, int]) -> Tensor:
        if self.tiles is None:
            return run(source)
        rows, columns = (side // scale[0] for side in source.shape[-2:])
        return in_tiles(run, source, cut(rows, columns, *self.tiles), scale)


class IdentityCodec:
    """No codec."""

    def encode(self, video: Tensor) -> Tensor:
        """The pixels."""
        return video

    def decode(self, latents: Tensor) -> Tensor:
        """The pixels."""
        return latents

    def repeat_pieces(self, latent: Shape) -> Repeat | None:
        """There are none."""
        return None


def build_codec(spec: Spec, weights: Weights) -> Codec:
    """The codec of a spec. Raises UserError for a variant without a model graph."""
    vae = spec.vae
    if vae.kind == "identity":
        return IdentityCodec()
    if (vae.kind == "image_kl" or vae.kind == "causal3d") and vae.decoder.kind == "kl":
        return CodecInPieces(trained_codec(vae, weights), vae)
    raise UserError(f"{spec.name}: there is no model graph for vae.kind {vae.kind!r} with this decoder yet")


def trained_codec(vae: ImageKlVae | Causal3dVae, weights: Weights) -> TrainedCodec:
    """A codec with parameters, on whole pictures."""
    return ImageKlCodec(weights, vae) if vae.kind == "image_kl" else Causal3dCodec(weights, vae)
