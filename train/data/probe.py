"""What a video file holds, read once: frames, times, size, rotation. Nothing is decoded but the first frame.

Frame times come from the packets, not from the header: a cut-off file shows its true length, variable frame rates are
seen, and a few milliseconds per file are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.error import FFmpegError

from sora_spec import output
from sora_spec.train.data.entries import Entry


class UnusableFileError(Exception):
    """A file cannot be used; the text says why."""


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
    """Packets carry timestamps. Without (raw streams, old AVI) frames are counted from the start of the file."""

    @property
    def seconds(self) -> float:
        """Length of the file."""
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
    """Read one file's facts. Raises UnusableFileError for what is no video, is empty or damaged."""
    try:
        if entry.path.stat().st_size == 0:
            raise UnusableFileError("the file is empty")
        return _probe_image(entry.path) if entry.is_image else _probe_video(entry.path)
    except FileNotFoundError:
        raise UnusableFileError("the file does not exist") from None
    except FFmpegError as error:
        raise UnusableFileError(f"not readable as video: {error.strerror}") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's decoders raise SyntaxError for broken PNGs
        raise UnusableFileError(f"not readable: {error}") from error


def _probe_image(path: Path) -> FileInfo:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        width, height = ImageOps.exif_transpose(image).size  # decodes, so that a damaged file shows here
    return FileInfo(path, 1, Fraction(1), Fraction(1), 0, 1, width, height, still=True)


def _probe_video(path: Path) -> FileInfo:
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise UnusableFileError("no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        times = sorted(packet.pts for packet in packets if packet.pts is not None)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        base = stream.time_base or 1 / rate
        shown_last = [packet.duration or 0 for packet in packets if times and packet.pts == times[-1]]
    if not packets:
        raise UnusableFileError("no frames")
    width, height = _display_size(path)
    if len(times) < len(packets):
        ticks = 1 / rate
        return FileInfo(path, len(packets), rate, ticks, 0, len(packets), width, height, timed=False)
    end = times[-1] + (max(shown_last) or max(1, round(1 / (rate * base))))
    measured = len(times) / ((end - times[0]) * base)
    if abs(len(times) / rate - len(times) / measured) > 2 * base:
        rate = measured  # a variable rate, or a header that lies; otherwise the header's is free of rounding
    return FileInfo(path, len(times), rate, base, times[0], end, width, height)


def _display_size(path: Path) -> tuple[int, int]:
    """Size of the first frame as displayed; decoding it proves that the codec is known and the stream starts whole."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frame = next(iter(container.decode(stream)), None)
        if frame is None:
            raise UnusableFileError("no frame can be decoded")
        aspect = stream.sample_aspect_ratio or Fraction(1)
        width, height = max(1, round(frame.width * aspect)), frame.height
        return (height, width) if frame.rotation % 180 else (width, height)


@dataclass(frozen=True)
class Scan:
    """Usable files with the index of their entry, and the names and reasons of the others."""

    files: list[FileInfo]
    kept: list[int]
    skipped: list[tuple[Path, str]]


def scan(entries: Sequence[Entry], frames: int, fps: Fraction) -> Scan:
    """Probe every entry and keep those that hold a clip of `frames` at `fps`."""

    def examine(entry: Entry) -> FileInfo | str:
        try:
            info = probe(entry)
        except UnusableFileError as error:
            return str(error)
        if info.starts(frames, fps) == 0:
            needed = f"{float(frames / fps):.3g} s ({frames} frames at {float(fps):g} fps)"
            return f"too short: {info.seconds:.3g} s, a clip needs {needed}"
        return info

    result = Scan([], [], [])
    with output.progress("reading files", len(entries)) as advance, ThreadPoolExecutor(4) as pool:
        for index, (entry, found) in enumerate(zip(entries, pool.map(examine, entries), strict=True)):
            if isinstance(found, FileInfo):
                result.files.append(found)
                result.kept.append(index)
            else:
                result.skipped.append((entry.path, found))
            advance(1)
    return result
