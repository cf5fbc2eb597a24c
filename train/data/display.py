"""From a decoded frame to RGB as a player shows it: colour, orientation, size."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sora_spec.train.data.container import UnusableFileError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Pixels = NDArray[np.uint8]
"""Frames (T, Y, X, 3) or one frame (Y, X, 3)."""

Turn = tuple[bool, bool, bool]
"""Transpose, then flip left to right, then flip upside down."""

_UNTAGGED = 2  # of FFmpeg's colour enumerations
_HDR = {16: "PQ", 18: "HLG"}
_CONVERTIBLE = {0, 1, 2, 3, 4, 5, 6, 7, 9, 10}
"""Colour matrices that libswscale converts; it takes any other for BT.601 without a word."""
_BT2020 = 9
MAX_PIXELS = 178_956_970
"""Of one frame: Pillow's limit for a decompression bomb, here for video too."""
_SHAPE_TOLERANCE = 0.04
"""Of width over height: sizes of one film are rounded to even numbers or to blocks of 16."""
_MAX_ASPECT = 64
"""Longest side over shortest. Beyond it, no crop of the frame is a picture, and scaling it would take gigabytes."""


def check_size(width: int, height: int) -> None:
    """Raises UnusableFileError for a frame that is too large to decode or is a mere line."""
    if width * height > MAX_PIXELS:
        raise UnusableFileError(f"{width}x{height} pixels, above the limit of {MAX_PIXELS:,} pixels")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise UnusableFileError(f"{width}x{height} pixels: one side is more than {_MAX_ASPECT} times the other")


def turn_of(frame: VideoFrame) -> Turn:
    """What the display matrix asks for; any of the eight orientations, the nearest one for other angles."""
    for data in cast("Any", frame.side_data):  # PyAV's stub says that it yields names
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = np.frombuffer(data, np.int32).tolist()
            if abs(a) + abs(d) >= abs(b) + abs(c):
                return False, a < 0, d < 0
            return True, c < 0, b < 0
    return False, False, False


def displayed_size(frame: VideoFrame, aspect: Fraction) -> tuple[int, int]:
    """(width, height) of a frame whose pixels are `aspect` times as wide as high, turned as its matrix asks."""
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (height, width) if turn_of(frame)[0] else (width, height)


def has_shape(frame: VideoFrame, stream: VideoStream, size: tuple[int, int]) -> bool:
    """Whether a frame is as wide for its height as a file of `size` (width, height); its resolution may be another.

    Scaled to the clip, a frame of another shape would be squeezed. The shape of pixels may change with the resolution:
    the decoder's or the container's makes the frame fit.
    """
    aspects = (stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio)
    for width, height in (displayed_size(frame, aspect or Fraction(1)) for aspect in aspects):
        if (width, height) == size or abs(width * size[1] / (height * size[0]) - 1) < _SHAPE_TOLERANCE:
            return True
    return False


def guessed_bt709(frame: VideoFrame) -> bool:
    """Whether a frame without a colour tag is taken for BT.709: from 1280 columns or 577 rows on, as mpv does."""
    large = frame.width >= 1280 or frame.height > 576
    return large and int(frame.colorspace) == _UNTAGGED and not (frame.format.is_rgb or frame.format.name == "pal8")


def check_colour(frame: VideoFrame) -> None:
    """Raises UnusableFileError for HDR and for colour matrices that cannot be converted."""
    transfer, matrix = int(frame.color_trc), int(frame.colorspace)
    if transfer in _HDR:
        raise UnusableFileError(
            f"HDR ({_HDR[transfer]}): without tone mapping its colours would be wrong; convert it to BT.709 first"
        )
    if matrix not in _CONVERTIBLE:
        raise UnusableFileError(f"its colour matrix (number {matrix} of H.273) cannot be converted; convert it first")


def remarks_on(frame: VideoFrame) -> tuple[str, ...]:
    """What should be said of a file whose frames look like this one."""
    said: list[str] = []
    if frame.interlaced_frame:
        said.append("interlaced: what moves shows as combs; deinterlace first (ffmpeg -vf bwdif)")
    if int(frame.color_primaries) == _BT2020:
        said.append("wide gamut (BT.2020): read as if its primaries were BT.709's, so colours are paler")
    return tuple(said)


def to_pixels(frame: VideoFrame, size: tuple[int, int] | None) -> Pixels:
    """RGB (Y, X, 3) as displayed, scaled with libswscale's bicubic filter, which is antialiased."""
    transpose, mirror, upend = turn_of(frame)
    height, width = (None, None) if size is None else reversed(size) if transpose else size
    matrix = "ITU709" if guessed_bt709(frame) else None
    scaled = frame.reformat(format="rgb24", width=width, height=height, interpolation="BICUBIC", src_colorspace=matrix)
    pixels = np.asarray(scaled.to_ndarray(), np.uint8)
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[:: -1 if upend else 1, :: -1 if mirror else 1])
