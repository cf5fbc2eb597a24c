"""Where the overlapping tiles of a VAE lie: the geometry that builders, bundles, graph and plan share. Pure Python.

All extents are in latent rows and columns: tiles are cut at them, so that pixels and latents are cut alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from sora_spec.language.facts import can_stream, is_trainable

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


class Span(NamedTuple):
    """One tile's place along an axis."""

    start: int
    shared: int
    """How many of its first positions the span before holds too; they are faded from that one into this one."""


@dataclass(frozen=True)
class Cut:
    """A picture of `height` × `width` latents as rows and columns of tiles, all of `tile_height` × `tile_width`."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def tiles(self) -> int:
        """How many there are."""
        return len(self.rows) * len(self.columns)


def spans(extent: int, side: int, overlap: int) -> tuple[Span, ...]:
    """Tiles of `side` that cover `extent`, neighbours sharing `overlap`; the last one is moved back to the border."""
    if extent <= side:
        return (Span(0, 0),)
    starts = [*range(0, extent - side, side - overlap), extent - side]
    return tuple(Span(start, max(0, before + side - start)) for before, start in pairwise([-side, *starts]))


def cut(height: int, width: int, side: int, overlap: int) -> Cut:
    """Cut `height` × `width` latents into tiles of `side`, or of the picture's own side where that is shorter."""
    rows, columns = spans(height, side, overlap), spans(width, side, overlap)
    return Cut(height, width, min(height, side), min(width, side), rows, columns)


def cut_of(spec: Spec) -> Cut | None:
    """How the spec's VAE cuts the spec's clip; None where it does not."""
    vae = spec.vae
    if not is_trainable(vae) or vae.tiling.kind == "none":
        return None
    space = vae.compression.space
    side, overlap = vae.tiling.tile // space, vae.tiling.overlap // space
    found = cut(spec.clip.height // space, spec.clip.width // space, side, overlap)
    return found if found.tiles > 1 else None


def streams(spec: Spec) -> bool:
    """Whether the spec's VAE runs one latent frame at a time, and the clip has more than one."""
    return can_stream(spec.vae) and spec.vae.streaming and spec.clip.frames > 1
