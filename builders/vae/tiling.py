"""A function over pictures, run tile by tile and put together again. Knows no framework: numpy and torch alike.

A row of tiles is faded from left to right into a strip, and the strips from top to bottom into the picture. Fading is
`held + (new − held) · weight`, with weights that rise linearly over the shared positions and are never 0 or 1: equal
tiles give exactly themselves, and outside the overlaps a tile's values stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

from sora_spec.builders.diffusion.arrays import NUMPY, Array, Arrays
from sora_spec.language.tiles import Cut, Span


def in_tiles(
    run: Callable[[Array], Array], source: Array, cut: Cut, scale: tuple[int, int], xp: Arrays = NUMPY
) -> Array:
    """`run(source)` for a source (..., height·from, width·from) and a result (..., height·to, width·to).

    `scale` is (from, to): positions of source and of result per latent row and column. `run` gets row-major tiles of
    (..., tile_height·from, tile_width·from). One tile is at work at a time; beside it there are the result so far and
    one strip. A single tile is the whole picture, and is returned as it is.
    """
    if cut.tiles == 1:
        return run(source)
    canvas = None
    for row in cut.rows:
        # No name may hold a tile or a strip any longer than it takes to place it.
        strip = _strip(run, _rows(source, row.start * scale[0], cut.tile_height * scale[0]), cut, scale, xp)
        canvas = place(canvas, strip, -2, row, cut.height, scale[1], xp)
        del strip
    return canvas


def _strip(run: Callable[[Array], Array], source: Array, cut: Cut, scale: tuple[int, int], xp: Arrays) -> Array:
    """One row of tiles, put together."""
    strip, side = None, cut.tile_width * scale[0]
    for column in cut.columns:
        start = column.start * scale[0]
        tile = run(xp.contiguous(source[..., start : start + side]))
        strip = place(strip, tile, -1, column, cut.width, scale[1], xp)
        del tile
    return strip


def place(canvas: Array | None, piece: Array, axis: int, span: Span, extent: int, scale: int, xp: Arrays) -> Array:
    """Fade `piece` into `canvas` at its span along `axis`; the canvas is made for the first one.

    Lengths of `span` and `extent` count latents, `scale` positions per latent. A piece that is all there is becomes the
    canvas itself.
    """
    length, start, shared = piece.shape[axis], span.start * scale, span.shared * scale
    if canvas is None:
        if length == extent * scale:
            return piece
        shape = list(piece.shape)
        shape[axis] = extent * scale
        canvas = xp.empty(tuple(shape), piece)
    assert canvas is not None
    if axis == -1:
        held, rest = canvas[..., start : start + shared], canvas[..., start + shared : start + length]
        new, further = piece[..., :shared], piece[..., shared:]
    else:
        held, rest = _rows(canvas, start, shared), _rows(canvas, start + shared, length - shared)
        new, further = _rows(piece, 0, shared), _rows(piece, shared, length - shared)
    rest[...] = further
    if shared:
        weights = xp.ramp(shared, piece)
        held += (new - held) * (weights if axis == -1 else weights[:, None])
    return canvas


def _rows(x: Array, start: int, count: int) -> Array:
    return x[..., start : start + count, :]
