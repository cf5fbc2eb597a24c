"""`vae` section → lowered VAE: mirrors `builders/vae/from_spec.py` and `builders/vae/interface.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.pieces import in_tiles
from sora_spec.graph.lower.vae_loss import split_moments
from sora_spec.graph.lower.weights import Weights
from sora_spec.language.facts import is_learned, is_trainable
from sora_spec.language.tiles import cut

if TYPE_CHECKING:
    from sora_spec.graph.lower.causal3d import Causal3d
    from sora_spec.graph.lower.image_kl import ImageKl
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.schema.vae import TrainableVae

TrainedVae: TypeAlias = "ImageKl | Causal3d"


class LoweredVae(Protocol):
    """Pixels ⇄ latents."""

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, T, Y, X) → (B, C, F, H, W): the posterior's mean, normalised."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, 3, T, Y, X)."""
        ...


class VaeInPieces:
    """A trained VAE as it encodes and decodes: in tiles where the spec says so.

    Of tiles, and of pieces of a stream, only those that differ are run, unless `full` asks for all.
    """

    def __init__(self, vae: TrainedVae, section: TrainableVae, full: bool) -> None:
        self.vae, self.space, self.full = vae, section.compression.space, full
        self.tiles: tuple[int, int] | None = None
        if section.tiling.kind == "spatial":
            self.tiles = section.tiling.tile // self.space, section.tiling.overlap // self.space

    def encode(self, video: Tensor) -> Tensor:
        """The posterior's mean, normalised."""
        mean, _ = split_moments(self._in_tiles(self.vae.encode_tile, video, (self.space, 1)))
        return self.vae.normalise(mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels of normalised latents."""
        return self._in_tiles(self.vae.decode_tile, latents, (1, self.space))

    def _in_tiles(self, run: Callable[[Tensor], Tensor], source: Tensor, scale: tuple[int, int]) -> Tensor:
        if self.tiles is None:
            return run(source)
        rows, columns = (side // scale[0] for side in source.shape[-2:])
        return in_tiles(run, source, cut(rows, columns, *self.tiles), scale, self.full)


class Identity:
    """No VAE."""

    def encode(self, video: Tensor) -> Tensor:
        return video

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def build_vae(spec: Spec, weights: Weights, full: bool = False) -> LoweredVae:
    """The VAE of a spec, running every tile and piece where `full` is set."""
    vae = spec.vae
    if not is_learned(vae):
        return Identity()
    assert is_trainable(vae), "`is_lowered` refuses others"
    return VaeInPieces(trained_vae(vae, weights, full), vae, full)


def trained_vae(vae: TrainableVae, weights: Weights, full: bool = False) -> TrainedVae:
    """A VAE with parameters, on whole pictures."""
    match vae.kind:  # a spec has one VAE: the others' rules are not imported
        case "image_kl":
            from sora_spec.graph.lower.image_kl import ImageKl

            return ImageKl(weights, vae)
        case "causal3d":
            from sora_spec.graph.lower.causal3d import Causal3d

            return Causal3d(weights, vae, full)
        case kind:
            raise AssertionError(f"vae.kind {kind!r} has no lowering")
