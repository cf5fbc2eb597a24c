"""Frame-accurate decoding: the frames that a player shows at given times, without decoding the whole file.

Frame i of a clip is the source frame shown at `start + i/fps`: the last one whose presentation timestamp is not later.
Half a tick is forgiven, since containers round timestamps to their time base (33, 67, 100 ms for 30 fps in Matroska).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from sora_spec.train.data.probe import FileInfo, UnusableFileError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Pixels = NDArray[np.uint8]
"""Frames (T, Y, X, 3)."""


def clip_ticks(file: FileInfo, start: int, frames: int, fps: Fraction) -> list[Fraction]:
    """Times of a clip's frames in the file's ticks, when it starts on the file's frame number `start`."""
    begin = file.first + start / file.rate / file.time_base
    return [begin + index / fps / file.time_base for index in range(frames)]


def shown_at(pts: Sequence[int], ticks: Iterable[Fraction]) -> list[int]:
    """Index of the frame shown at each time, for ascending `pts`; the first frame stands for earlier times."""
    times = np.asarray(pts)
    limits = [int((tick + Fraction(1, 2)) // 1) for tick in ticks]
    return [max(0, int(index)) for index in np.searchsorted(times, limits, side="right") - 1]


def decode_frames(file: FileInfo, ticks: Sequence[Fraction], size: tuple[int, int] | None = None) -> Pixels:
    """Frames (T, Y, X, 3) shown at the ascending times `ticks`, scaled to `size` (height, width) if given.

    Seeks to the key frame before the first one and stops after the last one.
    Raises UnusableFileError when the file is damaged where it is read.
    """
    if file.still:
        return np.repeat(_read_image(file.path, size)[None], len(ticks), axis=0)
    try:
        with av.open(str(file.path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            shown = _select(_frames_from(container, stream, file, ticks[0]), ticks)
            return np.stack([_to_pixels(frame, size) for frame in shown])
    except (FFmpegError, OSError) as error:
        raise UnusableFileError(f"{file.path}: {error}") from error


def decode_file(file: FileInfo, size: tuple[int, int] | None = None) -> tuple[list[int], Pixels]:
    """Timestamps and frames (N, Y, X, 3) of a whole file."""
    if file.still:
        return [0], _read_image(file.path, size)[None]
    try:
        with av.open(str(file.path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            timed = list(_timed(container, stream, file))
            return [pts for pts, _ in timed], np.stack([_to_pixels(frame, size) for _, frame in timed])
    except (FFmpegError, OSError, ValueError) as error:
        raise UnusableFileError(f"{file.path}: {error}") from error


TimedFrame = tuple[int, "VideoFrame"]


def _timed(container: InputContainer, stream: VideoStream, file: FileInfo) -> Iterator[TimedFrame]:
    """Frames with ascending timestamps from wherever the container stands; counted ones where the file has none."""
    previous: int | None = None
    for count, frame in enumerate(container.decode(stream)):
        pts = frame.pts if file.timed else count
        if pts is None or (previous is not None and pts <= previous):
            continue  # a repeated or unplaceable frame is never the one shown
        previous = pts
        yield pts, frame


def _frames_from(
    container: InputContainer, stream: VideoStream, file: FileInfo, tick: Fraction
) -> Iterator[TimedFrame]:
    """Frames from the one shown at `tick` or an earlier one.

    A seek lands on a key frame by decoding time in some containers, so the first frame may come out too late (an open
    group of pictures); then the seek is repeated further back, at last from the start.
    """
    limit = tick + Fraction(1, 2)
    back = 0
    while file.timed and int(tick) - back > file.first:
        container.seek(int(tick) - back, stream=stream, backward=True, any_frame=False)
        frames = _timed(container, stream, file)
        head = next(frames, None)
        if head is not None and head[0] <= limit:
            yield head
            yield from frames
            return
        back = max(2 * back, round(1 / file.time_base))
    if back or file.timed:
        container.seek(min(0, file.first), stream=stream, backward=True, any_frame=False)
    yield from _timed(container, stream, file)


def _select(frames: Iterator[TimedFrame], ticks: Sequence[Fraction]) -> list[VideoFrame]:
    """The frame shown at each of the ascending times; the last frame stands for later times."""
    chosen: list[VideoFrame] = []
    wanted = iter(ticks)
    limit = next(wanted) + Fraction(1, 2)
    shown: VideoFrame | None = None
    for pts, frame in frames:
        while shown is not None and pts > limit:
            chosen.append(shown)
            if len(chosen) == len(ticks):
                return chosen
            limit = next(wanted) + Fraction(1, 2)
        shown = frame
    if shown is None:
        raise UnusableFileError("no frame could be decoded")
    return chosen + [shown] * (len(ticks) - len(chosen))


def _to_pixels(frame: VideoFrame, size: tuple[int, int] | None) -> Pixels:
    """RGB as displayed: rotated as the file asks, scaled with libswscale's bicubic filter, which is antialiased."""
    turned = frame.rotation % 180 != 0
    height, width = (None, None) if size is None else reversed(size) if turned else size
    scaled = frame.reformat(format="rgb24", width=width, height=height, interpolation="BICUBIC")
    pixels = np.asarray(scaled.to_ndarray(), np.uint8)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def _read_image(path: Path, size: tuple[int, int] | None) -> Pixels:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
            if size is not None:
                image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnusableFileError(f"{path}: {error}") from error
