"""Films that carry the number of each frame in its picture, written in any container, and what is read back."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sora_spec.train.data.decode import clip_ticks, decode_file, decode_frames
from sora_spec.train.data.probe import FileInfo, UnusableFileError, probe
from sora_spec.train.data.sources import Entry

HEIGHT, WIDTH, BITS = 48, 64, 8
Picture = NDArray[np.uint8]


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """A grey frame whose number stands in black and white blocks over its lower half, lowest bit left."""
    frame = np.full((height, width, 3), 96, np.uint8)
    block = width // BITS
    for bit in range(BITS):
        frame[height // 2 :, bit * block : (bit + 1) * block] = 235 if number >> bit & 1 else 16
    return frame


def number_of(frame: Picture) -> int:
    """The number that `picture` put into a frame, after scaling and compression; -1 where it cannot be read."""
    height, width = frame.shape[:2]
    block, found = width / BITS, 0
    for bit in range(BITS):
        inner = frame[height * 5 // 8 : height * 7 // 8, int((bit + 0.25) * block) : int((bit + 0.75) * block)]
        if 80 < inner.mean() < 170:
            return -1
        found |= int(inner.mean() > 125) << bit
    return found


CORNERS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (230, 230, 230)}


def corners(height: int = 32, width: int = 64) -> Picture:
    """Red top left, green top right, blue bottom left, white bottom right."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = CORNERS["red"]
    frame[: height // 2, width // 2 :] = CORNERS["green"]
    frame[height // 2 :, : width // 2] = CORNERS["blue"]
    frame[height // 2 :, width // 2 :] = CORNERS["white"]
    return frame


def corner_names(frame: Picture) -> tuple[str, ...]:
    """Which colour stands top left, top right, bottom left, bottom right."""
    height, width = frame.shape[:2]
    centres = [frame[y, x].astype(int) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return tuple(min(CORNERS, key=lambda name: int(np.abs(centre - CORNERS[name]).sum())) for centre in centres)


def write_film(
    path: Path | str,
    codec: str = "libx264",
    rate: Fraction | int = 16,
    frames: int = 32,
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    pictures: Sequence[Picture] | None = None,
    container: dict[str, Any] | None = None,
    **context: Any,
) -> Path:
    """Write numbered frames. `context` sets attributes of the encoder, `container` goes to `av.open`."""
    with av.open(str(path), "w", **(container or {})) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for k in range(frames):
            shown = pictures[k] if pictures is not None else picture(k, *size)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[k], time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return Path(path)


def images(frames: int, **arguments: int) -> list[Image.Image]:
    """Numbered frames for Pillow."""
    return [Image.fromarray(picture(k, **arguments)) for k in range(frames)]


def shown(info: FileInfo, start: int, count: int, fps: Fraction | None = None) -> list[int]:
    """Numbers of the frames of a clip."""
    return [number_of(frame) for frame in decode_frames(info, clip_ticks(info, start, count, fps or info.rate))]


def misread(path: Path, frames: int = 32, rate: Fraction | int | None = 16) -> str | None:
    """None when every frame is read once and in order at the film's rate: from its start, its end, and as a whole."""
    info = probe(Entry(path))
    if info.frames != frames:
        return f"{info.frames} frames instead of {frames}"
    if rate is not None and abs(info.rate - rate) > Fraction(1, 100):
        return f"{float(info.rate)} frames a second instead of {float(rate)}"
    whole = list(range(frames))
    if (got := shown(info, 0, frames)) != whole:
        return f"read {got}"
    if (got := [number_of(frame) for frame in decode_file(info)[1]]) != whole:
        return f"the whole file: {got}"
    starts = info.starts(4, info.rate)
    if starts != frames - 3:
        return f"clips of 4 frames may start at {starts} places instead of {frames - 3}"
    for start in (starts - 1, frames // 2):
        if (got := shown(info, start, 4)) != whole[start : start + 4]:
            return f"from frame {start} on: {got}"
    return None


def refused(path: Path, *words: str) -> str | None:
    """None when the file is refused with a reason that has all `words`."""
    try:
        info = probe(Entry(path))
    except UnusableFileError as error:
        missing = [word for word in words if word not in str(error)]
        return f"does not say {missing}: {error}" if missing else None
    return f"taken: {info}"
