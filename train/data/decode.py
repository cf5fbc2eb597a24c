"""Frame-accurate decoding: the frames that a player shows at given times, without decoding the whole file.

Frame i of a clip is the source frame shown at `start + i/fps`: the last one whose presentation timestamp is not later.
Half a tick is forgiven, since containers round timestamps to their time base (33, 67, 100 ms for 30 fps in Matroska).
A frame that the decoder marks as damaged, or that never comes out, makes the clip unusable: nothing is concealed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from heapq import heappop, heappush
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from av.error import FFmpegError

from sora_spec.train.data.container import UnusableFileError, open_video, set_decoder, whole_packets
from sora_spec.train.data.display import Pixels, has_shape, to_pixels
from sora_spec.train.data.pillow import moving_frames, read_still, resized
from sora_spec.train.data.probe import FileInfo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Frame = TypeVar("Frame")

_ONE_FRAME_A_PACKET = frozenset({"h264", "hevc", "vp9", "av1", "mjpeg", "libdav1d"})
"""Decoders that give a frame for every packet of a progressive stream: one that is missing was damaged."""


class _DamagedFrameError(UnusableFileError):
    """The decoder marked a frame as damaged, or a seek failed: reading from the start decides."""


def clip_ticks(file: FileInfo, start: int, frames: int, fps: Fraction) -> list[Fraction]:
    """Times of a clip's frames in the file's ticks, when it starts on the file's frame number `start`."""
    begin = file.first + start / file.rate / file.time_base
    return [begin + index / fps / file.time_base for index in range(frames)]


def looped_ticks(file: FileInfo, frames: int, fps: Fraction) -> tuple[list[Fraction], list[int]]:
    """Ascending times within one run of the file, and for each frame of the clip the index of its time.

    The clip starts with the file and starts it anew when it ends.
    """
    length = file.frames / file.rate / file.time_base
    moments = [index / fps / file.time_base % length for index in range(frames)]
    ascending = sorted(set(moments))
    places = {moment: place for place, moment in enumerate(ascending)}
    return [file.first + moment for moment in ascending], [places[moment] for moment in moments]


def shown_at(pts: Sequence[int], ticks: Iterable[Fraction]) -> list[int]:
    """Index of the frame shown at each time, for ascending `pts`; the first frame stands for earlier times."""
    times = np.asarray(pts)
    limits = [int((tick + Fraction(1, 2)) // 1) for tick in ticks]
    return [max(0, int(index)) for index in np.searchsorted(times, limits, side="right") - 1]


@contextmanager
def _named(file: FileInfo) -> Generator[None]:
    """Whatever decoders raise becomes an UnusableFileError that names the file."""
    try:
        yield
    except UnusableFileError as error:
        raise type(error)(f"{file.path}: {error}") from error
    except MemoryError as error:
        raise UnusableFileError(f"{file.path}: it asks for more memory than there is") from error
    except Exception as error:  # decoders of damaged files raise anything
        reason = error.strerror if isinstance(error, FFmpegError) else f"{type(error).__name__}: {error}"
        raise UnusableFileError(f"{file.path}: {reason}") from error


def decode_frames(
    file: FileInfo,
    ticks: Sequence[Fraction],
    size: tuple[int, int] | None = None,
    halved: tuple[int, int] | None = None,
) -> Pixels:
    """Frames (T, Y, X, 3) shown at the ascending times `ticks`, scaled to `size` (height, width) if given.

    Seeks to the key frame before the first one and stops after the last one. A still is first halved down to `halved`.
    Raises UnusableFileError when the file is damaged where it is read.
    """
    with _named(file):
        if file.still:
            return np.repeat(read_still(file.path, size, halved)[None], len(ticks), axis=0)
        if file.moving_picture:
            pictures = ((begin, frame) for begin, _, frame in moving_frames(file.path))
            return np.stack([resized(frame, size) for frame in _select(pictures, ticks)])
        try:
            return _decode_video(file, ticks, size, seek=True)
        except _DamagedFrameError:
            # A seek into a stream without clean key frames marks good frames, too: only a whole decode is proof.
            return _decode_video(file, ticks, size, seek=False)


def _decode_video(file: FileInfo, ticks: Sequence[Fraction], size: tuple[int, int] | None, seek: bool) -> Pixels:
    with open_video(file.path) as container:
        stream = _stream_of(container, file)
        frames = _frames_from(container, stream, file, ticks[0]) if seek else _timed(container, stream, file)
        return np.stack([to_pixels(frame, size) for frame in _select(frames, ticks)])


def decode_file(
    file: FileInfo, size: tuple[int, int] | None = None, halved: tuple[int, int] | None = None
) -> tuple[list[int], Pixels]:
    """Timestamps and frames (N, Y, X, 3) of a whole file. Raises UnusableFileError when any of it is damaged."""
    with _named(file):
        if file.still:
            return [0], read_still(file.path, size, halved)[None]
        if file.moving_picture:
            shown = [(begin, resized(frame, size)) for begin, _, frame in moving_frames(file.path)]
        else:
            with open_video(file.path) as container:
                timed = _timed(container, _stream_of(container, file), file)
                shown = [(pts, to_pixels(frame, size)) for pts, frame in timed]
        return [pts for pts, _ in shown], np.stack([pixels for _, pixels in shown])


TimedFrame = tuple[int, "VideoFrame"]


def _stream_of(container: InputContainer, file: FileInfo) -> VideoStream:
    stream = container.streams.video[file.stream]
    set_decoder(stream)
    return stream


def _timed(
    container: InputContainer, stream: VideoStream, file: FileInfo, sought: bool = False
) -> Iterator[TimedFrame]:
    """Frames with ascending timestamps from wherever the container stands; counted ones where the file has none.

    Raises _DamagedFrameError at a frame that the decoder marks as damaged, and where frames are missing;
    UnusableFileError where the picture takes another shape, as when a phone was turned during a call.
    """
    previous: int | None = None
    size: tuple[int, int] | None = None
    awaited: list[int] = []  # timestamps of packets whose frame has not come out
    complete = stream.codec_context.name in _ONE_FRAME_A_PACKET
    count = 0
    for packet in whole_packets(container, stream):
        if packet.pts is not None and packet.size and not packet.is_discard:
            heappush(awaited, packet.pts)
        for frame in packet.decode():
            pts = frame.pts if file.timed else count
            count += 1
            complete = complete and not frame.interlaced_frame  # each field may be a packet of its own
            if pts is None or (previous is not None and pts <= previous):
                continue  # a repeated or unplaceable frame is never the one shown
            if file.timed and pts < file.first:
                continue  # before the first key frame: what it refers to is not there
            if frame.is_corrupt:
                if sought and previous is None:
                    continue  # of a group of pictures that leans on the one before the seek
                raise _DamagedFrameError(f"damaged at {_moment(file, pts)}")
            lost = _missing(awaited, pts, previous)
            if complete and file.timed and lost is not None:
                raise _DamagedFrameError(f"damaged at {_moment(file, lost)}: a frame is lost")
            if size != (frame.width, frame.height):
                size = (frame.width, frame.height)
                if not has_shape(frame, stream, (file.width, file.height)):
                    raise UnusableFileError(
                        f"the shape of its picture changes at {_moment(file, pts)} to {size[0]}x{size[1]}"
                    )
            previous = pts
            yield pts, frame
    short = count < file.frames if not file.timed else any(previous is not None and pts > previous for pts in awaited)
    if complete and short:
        raise _DamagedFrameError(f"damaged: frames are lost, {count} came out")


def _missing(awaited: list[int], pts: int, previous: int | None) -> int | None:
    """A timestamp between the last frame and this one that a packet had and no frame; takes those up to `pts` off."""
    lost = None
    while awaited and awaited[0] <= pts:
        due = heappop(awaited)
        if previous is not None and previous < due < pts:
            lost = due
    return lost


def _moment(file: FileInfo, pts: int) -> str:
    return f"{float((pts - file.first) * file.time_base):.3f} s"


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
        _seek(container, stream, int(tick) - back)
        frames = _timed(container, stream, file, True)
        head = next(frames, None)
        if head is not None and head[0] <= limit:
            yield head
            yield from frames
            return
        back = max(2 * back, round(1 / file.time_base))
    if back:
        _seek(container, stream, min(0, file.first))
    yield from _timed(container, stream, file)


def _seek(container: InputContainer, stream: VideoStream, tick: int) -> None:
    try:
        container.seek(tick, stream=stream, backward=True, any_frame=False)
    except OSError as error:  # SWF and pipes of frames
        raise _DamagedFrameError(f"no seek to {tick}: {error}") from error


def _select(frames: Iterator[tuple[int, Frame]], ticks: Sequence[Fraction]) -> list[Frame]:
    """The frame shown at each of the ascending times; the last frame stands for later times."""
    chosen: list[Frame] = []
    wanted = iter(ticks)
    limit = next(wanted) + Fraction(1, 2)
    shown: Frame | None = None
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
