"""What a video file holds, read once: frames, times, size, orientation. Nothing is decoded but the first frame.

Frame times come from the packets, not from the header: a cut-off file shows its true length, variable frame rates are
seen, and a few milliseconds per file are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from av.error import FFmpegError

from sora_spec import output
from sora_spec.train.data.container import UnusableFileError, open_video, require_plain_file, set_decoder
from sora_spec.train.data.display import check_colour, check_size, displayed_size, guessed_bt709, remarks_on, turn_of
from sora_spec.train.data.entries import Entry
from sora_spec.train.data.pillow import TICKS_PER_SECOND, is_moving, moving_frames, open_picture, upright
from sora_spec.train.data.tracks import (
    Track,
    best_track,
    come_out_of_order,
    evenly_ascending,
    frame_rate,
    names_no_frame,
    remarks_on_track,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


_PROBED_AT_ONCE = 4096


@dataclass(frozen=True)
class FileInfo:
    """One probed file. Times are exact; `width` and `height` are as displayed, after rotation and pixel aspect."""

    path: Path
    frames: int
    rate: Fraction
    """Average frames a second."""
    time_base: Fraction
    """Seconds per tick of a presentation timestamp."""
    first: int
    """Presentation timestamp of the first frame, in ticks. Often 0, not always."""
    end: int
    """Timestamp at which the last frame stops being shown, in ticks."""
    width: int
    height: int
    still: bool = False
    """An image: it is shown for as long as wanted."""
    timed: bool = True
    """Packets carry timestamps. Without (raw streams, B-frames in AVI) frames are counted from the start of the file,
    in the order in which they are shown."""
    stream: int = 0
    """Which of the file's video streams."""
    moving_picture: bool = False
    """An animated WebP, PNG or AVIF, read through Pillow."""
    remarks: tuple[str, ...] = ()
    """What should be said of the file though it can be used: interlaced, cut off, a guessed rate."""
    manner: str = ""
    """How it is read where that differs from reading plainly; part of the data set's fingerprint."""

    @property
    def seconds(self) -> float:
        return float((self.end - self.first) * self.time_base)

    def starts(self, frames: int, fps: Fraction) -> int:
        """How many of this file's frames a clip of `frames` at `fps` may start on; 0 when the file is too short.

        The last frame of the clip must fall before the file's end. Half a tick is left for rounded timestamps.
        """
        if self.still:
            return 1
        room = (self.end - self.first - Fraction(1, 2)) * self.time_base - (frames - 1) / fps
        return min(self.frames, max(0, -((-room * self.rate) // 1)))


def probe(entry: Entry) -> FileInfo:
    """Read one file's facts. Raises UnusableFileError for what is no video, is empty or damaged, whatever it is."""
    try:
        require_plain_file(entry.path)
        if entry.is_image:
            return _probe_picture(entry.path)
        info = _probe_video(entry.path)
        return _probe_picture(entry.path) if info.frames == 1 and entry.path.suffix.lower() == ".gif" else info
    except FileNotFoundError:
        raise UnusableFileError("the file does not exist") from None
    except UnusableFileError:
        raise
    except MemoryError:
        raise UnusableFileError("not readable: it asks for more memory than there is") from None
    except FFmpegError as error:
        raise UnusableFileError(f"not readable as video: {error.strerror}") from error
    except (
        Exception
    ) as error:  # Pillow's and FFmpeg's readers raise anything at a broken file: SyntaxError, struct.error
        raise UnusableFileError(f"not readable: {error or type(error).__name__}") from error


def _probe_picture(path: Path) -> FileInfo:
    with open_picture(path) as image:
        moving = is_moving(image)
        if not moving:
            width, height = upright(image).size  # decodes, so that a damaged file shows here
            return FileInfo(path, 1, Fraction(1), Fraction(1), 0, 1, width, height, still=True)
    shown = [(end, picture.size) for _, end, picture in moving_frames(path)]
    end, (width, height) = shown[-1][0], shown[0][1]
    base = Fraction(1, TICKS_PER_SECOND)
    rate = len(shown) / (end * base)
    return FileInfo(path, len(shown), rate, base, 0, end, width, height, moving_picture=True, manner="moving picture")


def _probe_video(path: Path) -> FileInfo:
    with open_video(path) as container:
        track = best_track(container)
        stream, kind = track.stream, container.format.name
        check_size(max(1, stream.codec_context.width), max(1, stream.codec_context.height))
    if not track.times:
        raise UnusableFileError("no frames")
    with open_video(path) as container:
        stream = container.streams.video[track.number]
        info = _described(path, stream, _first_frame(container, stream), track.number)
        info = replace(info, remarks=info.remarks + remarks_on_track(track, container, stream))
        counted = track.is_counted(kind)
        evenly = evenly_ascending(track.times)
        counted = counted or (evenly and names_no_frame(container, stream, kind))
        if kind == "avi" and not evenly and not counted and come_out_of_order(container, stream):
            raise UnusableFileError("frames were dropped in recording, and AVI has no times for B-frames: none is sure")
        rate = frame_rate(stream, kind)
        base = stream.time_base or 1 / rate
    if counted:
        count = len(track.times)
        return replace(info, frames=count, rate=rate, time_base=1 / rate, first=0, end=count, timed=False)
    return _with_times(info, track, rate, base)


def _with_times(info: FileInfo, track: Track, rate: Fraction, base: Fraction) -> FileInfo:
    """`info` of a file whose packets carry the times at which frames are shown."""
    # Frames before the first key frame lean on some that are not there.
    times = sorted(
        time for time in track.times if time is not None and (track.first_key is None or time >= track.first_key)
    )
    end = times[-1] + (track.durations.get(times[-1], 0) or max(1, round(1 / (rate * base))))
    measured = len(times) / ((end - times[0]) * base)
    if abs(len(times) / rate - len(times) / measured) > 2 * base:
        rate = measured  # a variable rate, or a header that lies; otherwise the header's is free of rounding
    return replace(info, frames=len(times), rate=rate, time_base=base, first=times[0], end=end)


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """Decoding it proves that the codec is known and the stream starts whole."""
    set_decoder(stream)
    frame = next(iter(container.decode(stream)), None)
    if frame is None:
        raise UnusableFileError("no frame can be decoded")
    return frame


def _described(path: Path, stream: VideoStream, frame: VideoFrame, number: int) -> FileInfo:
    """What the first frame tells. Raises UnusableFileError for a size or colour that cannot be read rightly."""
    check_colour(frame)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width, height = displayed_size(frame, aspect)
    check_size(width, height)
    transpose, mirror, upend = turn_of(frame)
    mirrored = transpose ^ mirror ^ upend
    words = ["BT.709"] * guessed_bt709(frame) + ["mirrored"] * mirrored
    return FileInfo(
        path,
        1,
        Fraction(1),
        Fraction(1),
        0,
        1,
        width,
        height,
        stream=number,
        remarks=remarks_on(frame),
        manner=", ".join(words),
    )


@dataclass(frozen=True)
class Scan:
    """Usable files with the index of their entry, and the names and reasons of the others."""

    files: list[FileInfo]
    kept: list[int]
    skipped: list[tuple[Path, str]]


def unfit(info: FileInfo, frames: int, fps: Fraction, short: str = "skip", stills: str = "skip") -> str | None:
    """Why a readable file gives no clip of `frames` at `fps`, or None; `short` and `stills` as in `train`."""
    if info.still and frames > 1 and stills != "repeat":
        return "a still, and clips move: train.stills=repeat would show it for the whole clip"
    if info.starts(frames, fps) or (short == "loop" and info.frames > 1):
        return None
    if short == "loop" and frames > 1:
        return "too short: it holds a single frame, which does not move however often it starts anew"
    length = f"{float(frames / fps):.3g} s ({frames} frames at {float(fps):g} fps)"
    return f"too short: {info.seconds:.3g} s, a clip needs {length}"


def scan(entries: Sequence[Entry], frames: int, fps: Fraction, short: str = "skip", stills: str = "skip") -> Scan:
    """Probe every entry and keep those that hold a clip of `frames` at `fps`; `short` and `stills` as in `train`."""

    def examine(entry: Entry) -> FileInfo | str:
        try:
            info = probe(entry)
        except UnusableFileError as error:
            return str(error)
        return unfit(info, frames, fps, short, stills) or info

    result = Scan([], [], [])
    with output.progress("reading files", len(entries)) as advance, ThreadPoolExecutor(4) as pool:
        for begin in range(0, len(entries), _PROBED_AT_ONCE):  # a million waiting at once would take gigabytes
            part = entries[begin : begin + _PROBED_AT_ONCE]
            for index, (entry, found) in enumerate(zip(part, pool.map(examine, part), strict=True), start=begin):
                if isinstance(found, FileInfo):
                    result.files.append(found)
                    result.kept.append(index)
                else:
                    result.skipped.append((entry.path, found))
                advance(1)
    return result
