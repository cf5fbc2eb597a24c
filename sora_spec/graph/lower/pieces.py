"""VAEs in tiles and one latent frame at a time: mirrors `builders/vae/tiling.py` and `builders/vae/streaming.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sora_spec.graph.eager.layout import Shape, contiguous_strides
from sora_spec.graph.eager.ops.pointwise import contiguous, div_scalar, made_from_nothing, mul, sub
from sora_spec.graph.eager.ops.views import narrow, unsqueeze
from sora_spec.graph.eager.tensor import Tensor, run_one
from sora_spec.language.tiles import Cut, Span


class Stream:
    """The frames that causal convolutions remember between pieces."""

    def __init__(self, tails: list[Tensor] | None = None) -> None:
        self.before: list[Tensor | None] | None = None if tails is None else list(tails)
        self.tails: list[Tensor] = []

    def pass_on(self, extended: Tensor, frames: int) -> None:
        """Remember the last frames of a convolution's extended input."""
        self.tails.append(contiguous(narrow(extended, 2, extended.shape[2] - frames, frames)))

    def front(self) -> Tensor:
        """What the convolution which is called next remembered."""
        assert self.before is not None
        number = len(self.tails)
        front, self.before[number] = self.before[number], None
        assert front is not None
        return front


def starts(stream: Stream | None) -> bool:
    """Whether the input begins a clip."""
    return stream is None or stream.before is None


def join_frames(pieces: Iterator[Tensor], frames: int) -> Tensor:
    """The pieces one after the other, or as many of them as are run."""
    first = next(pieces)
    if first.shape[2] == frames:
        return first
    whole = new_empty((*first.shape[:2], frames, *first.shape[3:]), first)
    del first
    while next(pieces, None) is not None:  # no name holds a piece while the next one is made
        pass
    return whole


def stretches(count: int, full: bool) -> list[tuple[int, int]]:
    """First and last of the stretches that are run once each: the first, all between it and the last, the last."""
    if full or count < 4:
        return [(number, number) for number in range(count)]
    return [(0, 0), (1, count - 2), (count - 1, count - 1)]


def numbered(name: str, first: int, last: int) -> str:
    """Name of a region that stands for several."""
    return f"{name}[{first}]" if first == last else f"{name}[{first}..{last}]"


def in_tiles(run: Callable[[Tensor], Tensor], source: Tensor, cut: Cut, scale: tuple[int, int], full: bool) -> Tensor:
    """Tile after tile, faded into each other. Of rows and of columns the second stands for all but the first and last.

    All tiles are of one size, and those between share as much with the one before as the second does.
    """
    if cut.tiles == 1:
        return run(source)
    canvas, tape = None, source.tape
    for first, last in stretches(len(cut.rows), full):
        with tape.enter(numbered("rows", first, last), ("vae", "tiling"), times=last - first + 1):
            row = cut.rows[first]
            window = narrow(source, -2, row.start * scale[0], cut.tile_height * scale[0])
            strip = _strip(run, window, cut, scale, full)
            del window
            canvas = place(canvas, strip, -2, row, cut.height, scale[1])
            del strip
    assert canvas is not None
    return canvas


def _strip(run: Callable[[Tensor], Tensor], source: Tensor, cut: Cut, scale: tuple[int, int], full: bool) -> Tensor:
    strip, tape = None, source.tape
    for first, last in stretches(len(cut.columns), full):
        with tape.enter(numbered("tiles", first, last), times=last - first + 1):
            column = cut.columns[first]
            tile = run(contiguous(narrow(source, -1, column.start * scale[0], cut.tile_width * scale[0])))
            strip = place(strip, tile, -1, column, cut.width, scale[1])
            del tile
    assert strip is not None
    return strip


def place(canvas: Tensor | None, piece: Tensor, axis: int, span: Span, extent: int, scale: int) -> Tensor:
    """Fade a piece into the canvas, which is made for the first one."""
    shared = span.shared * scale
    if canvas is None:
        if piece.shape[axis] == extent * scale:
            return piece
        shape = list(piece.shape)
        shape[axis] = extent * scale
        canvas = new_empty(tuple(shape), piece)
    if shared:
        held, new = narrow(canvas, axis, span.start * scale, shared), narrow(piece, axis, 0, shared)
        weights = ramp(shared, piece)
        mul(sub(new, held), weights if axis == -1 else unsqueeze(weights, 1))
    return canvas


def ramp(count: int, like: Tensor) -> Tensor:
    """Weights of the fade."""
    return div_scalar(made_from_nothing("arange", like, (count,), like.dtype))


def new_empty(shape: Shape, like: Tensor) -> Tensor:
    """A tensor without values."""
    return run_one("new_empty", (like,), shape, contiguous_strides(shape), like.dtype)
