"""Colours and damage: what a player shows comes out, or the file is refused; damage is named, not concealed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from sora_spec.train.data.container import UnusableFileError
from sora_spec.train.data.decode import clip_ticks, decode_frames
from sora_spec.train.data.probe import probe
from sora_spec.train.data.sources import Entry
from tests.hostile.case import Case
from tests.hostile.films import Picture, refused, write_film

COLOUR = (200, 40, 40)
_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Of red and blue in luma, by H.273's number of the matrix: BT.709, BT.601 twice, BT.2020."""


def _yuv(rgb: tuple[int, int, int], matrix: int, full: bool) -> tuple[int, int, int]:
    """The definition of H.273, 8.3: luma and two colour differences in 8 bits."""
    red, green, blue = (value / 255 for value in rgb)
    of_red, of_blue = _WEIGHTS[matrix]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    differences = ((blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red))
    if full:
        return round(255 * luma), *(round(128 + 255 * d) for d in differences)
    return round(16 + 219 * luma), *(round(128 + 224 * d) for d in differences)


def _write_colour(path: Path, size: tuple[int, int], stored: tuple[int, int, int], **tags: int) -> Path:
    """Two frames of one colour, written without any conversion."""
    height, width = size
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=16, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(2):
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane, value in zip(frame.planes, stored, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


# name: size, matrix that the values were made by, full range, tags in the file
COLOURS: dict[str, tuple[tuple[int, int], int, bool, dict[str, int]]] = {
    "untagged 1280x720 is BT.709": ((720, 1280), 1, False, {}),
    "untagged 720x1280 is BT.709": ((1280, 720), 1, False, {}),
    "untagged 1920x800 is BT.709": ((800, 1920), 1, False, {}),
    "untagged 640x480 is BT.601": ((480, 640), 6, False, {}),
    "untagged 720x576 is BT.601": ((576, 720), 6, False, {}),
    "tagged BT.709, small": ((48, 64), 1, False, {"colorspace": 1}),
    "tagged BT.601, large": ((720, 1280), 6, False, {"colorspace": 6}),
    "tagged BT.470BG": ((48, 64), 5, False, {"colorspace": 5}),
    "tagged BT.2020 matrix": ((48, 64), 9, False, {"colorspace": 9}),
    "full range, BT.709": ((48, 64), 1, True, {"colorspace": 1, "color_range": 2}),
    "full range, BT.601": ((48, 64), 6, True, {"colorspace": 6, "color_range": 2}),
    "untagged, full range, large": ((720, 1280), 1, True, {"color_range": 2}),
}


def _colour(size: tuple[int, int], matrix: int, full: bool, tags: dict[str, int], folder: Path) -> str | None:
    info = probe(Entry(_write_colour(folder / "a.mp4", size, _yuv(COLOUR, matrix, full), **tags)))
    for asked in (None, (24, 32)):
        got = decode_frames(info, clip_ticks(info, 0, 1, Fraction(16)), asked)[0]
        middle = got[got.shape[0] // 2, got.shape[1] // 2].astype(int)
        if np.abs(middle - COLOUR).max() > 3:
            return f"{middle.tolist()} instead of {COLOUR}"
    return None


def _refused_colour(tags: dict[str, int], word: str, folder: Path) -> str | None:
    return refused(_write_colour(folder / "a.mp4", (48, 64), (128, 128, 128), **tags), word)


def _remarked(word: str, film: dict[str, Any], folder: Path) -> str | None:
    info = probe(Entry(write_film(folder / "a.mkv", frames=4, **film)))
    return None if any(word in remark for remark in info.remarks) else f"nothing said: {info.remarks}"


def _textured(frames: int) -> list[Picture]:
    """A moving pattern of many colours, in which damage shows."""
    tiles = np.random.default_rng(2).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    large = tiles.repeat(8, 0).repeat(8, 1)
    return [large[k : k + 96, 2 * k : 2 * k + 160] for k in range(frames)]


DAMAGED: dict[str, tuple[str, dict[str, Any]]] = {
    "H.264": ("a.mp4", {"options": {"bf": "2", "g": "16"}}),
    "H.264 in two slices": ("a.mp4", {"options": {"bf": "2", "g": "16", "x264-params": "slices=2"}}),
    "H.264 in AVI": ("a.avi", {"options": {"bf": "2", "g": "16"}}),
    "AV1": ("a.mp4", {"codec": "libsvtav1"}),
    "MPEG-4": ("a.avi", {"codec": "mpeg4", "options": {"b": "2000000"}}),
    "MPEG-2": ("a.mpg", {"codec": "mpeg2video", "rate": 25, "options": {"b": "2000000", "bf": "2"}}),
}


def _damaged(file: str, film: dict[str, Any], folder: Path) -> str | None:
    """Half of a packet in the middle overwritten: the clip over it is refused, a clip before it may be read."""
    path = write_film(folder / file, size=(96, 160), pictures=_textured(32), **film)
    whole = probe(Entry(path))
    ticks = clip_ticks(whole, 0, 32, whole.rate)
    want = decode_frames(whole, ticks)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(container.streams.video[0]) if packet.size]
    at, size = max(packets[8:24], key=lambda packet: packet[1])
    data = bytearray(path.read_bytes())
    begin, end = at + size // 4, at + size * 3 // 4
    data[begin:end] = random.Random(3).randbytes(end - begin)
    path.write_bytes(data)
    try:
        got = decode_frames(probe(Entry(path)), ticks)
    except UnusableFileError as error:
        return None if str(path) in str(error) else f"the file is not named: {error}"
    return "same pictures as before" if np.array_equal(got, want) else "other pictures without a word"


def cases() -> Iterator[Case]:
    """See the module."""
    for name, (size, matrix, full, tags) in COLOURS.items():
        yield Case(name, partial(_colour, size, matrix, full, tags))
    yield Case("PQ", partial(_refused_colour, {"color_trc": 16, "colorspace": 9, "color_primaries": 9}, "HDR (PQ)"))
    yield Case("HLG", partial(_refused_colour, {"color_trc": 18, "colorspace": 9, "color_primaries": 9}, "HDR (HLG)"))
    yield Case("YCgCo", partial(_refused_colour, {"colorspace": 8}, "colour matrix"))
    interlaced = {"options": {"x264-params": "interlaced=1"}}
    yield Case("interlaced, tff", partial(_remarked, "interlaced", interlaced))
    yield Case("interlaced, bff", partial(_remarked, "interlaced", {"options": {"x264-params": "bff=1"}}))
    yield Case("BT.2020 primaries", partial(_remarked, "wide gamut", {"color_primaries": 9}))
    for name, (file, film) in DAMAGED.items():
        yield Case(f"damaged {name}", partial(_damaged, file, film))
