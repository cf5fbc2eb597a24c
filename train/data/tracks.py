"""The packets of a file's video streams: which stream to read, and whether its timestamps name frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from av.error import FFmpegError

from sora_spec.train.data.container import UnusableFileError, whole_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_ATTACHED_PICTURE = 1024  # of FFmpeg's dispositions: cover art
_COUNTED = frozenset(
    {
        "h261",
        "h263",
        "h264",
        "hevc",
        "vvc",
        "evc",
        "m4v",
        "mpegvideo",
        "mjpeg",
        "dirac",
        "cavsvideo",
        "avs2",
        "avs3",
        "vc1",
    }
)
"""Containers that are bare streams: FFmpeg makes their times up, 25 frames a second whatever the stream says."""
_ROUGHLY_TIMED = frozenset({"mpeg", "mpegts"})
"""Containers that stamp pieces of the stream, not frames: where two frames get one time, frames are counted."""
_BARE = _COUNTED | {"obu", "dnxhd"}
"""Bare streams, with those whose made-up times keep the order of frames."""
_FRAMES_LOOKED_AT = 60  # where it is in doubt whether timestamps name frames
_DURATIONS_PER_SECOND = 1_000_000  # FFmpeg's unit for a whole container
_JOIN_SECONDS = 1  # decoding times that go back by more are two recordings in one file


@dataclass
class Track:
    """The packets of one video stream, without their data."""

    number: int
    """Among the file's video streams."""
    stream: VideoStream
    packets: int = 0
    """All of them, also those that an edit list hides."""
    times: list[int | None] = field(default_factory=list[int | None])
    """Presentation timestamps in the order of decoding, of the packets that are shown."""
    durations: dict[int, int] = field(default_factory=dict[int, int])
    """Longest duration of a packet at the latest timestamp."""
    first_key: int | None = None
    went_back: bool = False
    """Decoding times descend somewhere."""
    joined: bool = False
    """Decoding times start anew in the middle: two recordings in one file."""
    decoded_until: int | None = None
    """Decoding time of the packet before."""

    def add(self, packet: Packet) -> None:
        """Note the next packet of the file."""
        self.packets += 1
        if packet.is_keyframe and self.first_key is None:
            self.first_key = packet.pts  # also one that an edit list hides: what follows leans on it
        if not packet.size or packet.is_discard:
            return
        if packet.dts is not None:
            back = 0 if self.decoded_until is None else self.decoded_until - packet.dts
            if back > 0:
                self.went_back = True
                self.joined = self.joined or back * (packet.time_base or 0) > _JOIN_SECONDS
            self.decoded_until = packet.dts
        if packet.pts is not None and (not self.durations or packet.pts >= max(self.durations)):
            known = self.durations.get(packet.pts, 0)
            self.durations = {packet.pts: max(known, packet.duration or 0)}
        self.times.append(packet.pts)

    @property
    def area(self) -> int:
        """Of its picture, as the header has it."""
        return self.stream.codec_context.width * self.stream.codec_context.height

    def reaches(self, stream: VideoStream) -> float:
        """When its last frame ends, in seconds."""
        last = max(self.durations, default=0)
        return float((last + self.durations.get(last, 0)) * (stream.time_base or 0))

    @property
    def shares_times(self) -> bool:
        """Whether two frames have one timestamp."""
        return len(set(self.times)) < len(self.times)

    def is_joined(self, kind: str) -> bool:
        """Whether times start anew in the middle of this `kind` of container."""
        return self.joined or (self.shares_times and self.went_back and kind not in _ROUGHLY_TIMED)

    def is_counted(self, kind: str) -> bool:
        """Whether its timestamps name no frames in this `kind` of container."""
        roughly = kind in _ROUGHLY_TIMED and self.shares_times
        return kind in _COUNTED or roughly or None in self.times or self.is_joined(kind)


def best_track(container: InputContainer) -> Track:
    """The largest video stream that moves: neither cover art nor a single picture beside a film."""
    if not container.streams.video:
        raise UnusableFileError("no video stream")
    known = [Track(k, s) for k, s in enumerate(container.streams.video) if s.codec_context is not None]
    if not known:
        raise UnusableFileError("no decoder for its video: the codec is unknown")
    tracks = [track for track in known if not int(track.stream.disposition) & _ATTACHED_PICTURE]
    if not tracks:
        raise UnusableFileError("holds cover art only, no video")
    by_index = {track.stream.index: track for track in tracks}
    for packet in whole_packets(container, *(track.stream for track in tracks)):
        by_index[packet.stream.index].add(packet)
    return max(tracks, key=lambda track: (min(len(track.times), 2), track.area, len(track.times), -track.number))


def evenly_ascending(times: Sequence[int | None]) -> bool:
    """Whether the timestamps of packets ascend in the order of decoding at one pace."""
    steps = [later - earlier for earlier, later in pairwise(time for time in times if time is not None)]
    return not steps or (min(steps) > 0 and max(steps) - min(steps) <= 1)


def names_no_frame(container: InputContainer, stream: VideoStream, kind: str) -> bool:
    """Whether such timestamps are times of decoding, as the decoder gives the frames in another order.

    AVI has no others. Elsewhere frames out of order show it, among the first after the one already decoded.
    Counting the frames as they come out gives the right ones.
    """
    if not stream.codec_context.has_b_frames:
        return False
    return kind == "avi" or come_out_of_order(container, stream)


def come_out_of_order(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the decoder gives one of the first frames a time before that of the frame it gave last."""
    times: list[int] = []
    with suppress(FFmpegError):  # damage further on is met, and named, where it is read
        times.extend(
            frame.pts for frame in islice(container.decode(stream), _FRAMES_LOOKED_AT) if frame.pts is not None
        )
    return times != sorted(times)


def frame_rate(stream: VideoStream, kind: str) -> Fraction:
    """Frames a second by the header; of a bare stream, what the decoder found in it."""
    stated = stream.codec_context.framerate or stream.guessed_rate if kind in _COUNTED else None
    return stated or stream.average_rate or stream.guessed_rate or Fraction(25)


def _promised_end(container: InputContainer, stream: VideoStream) -> float | None:
    """When the last frame ends by the header, in seconds, where the header says it and no count of frames."""
    if stream.frames:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))  # Matroska
    if stated is not None:
        hours, minutes, seconds = stated.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    alone = len(container.streams) == 1 and container.format.name not in _COUNTED
    return container.duration / _DURATIONS_PER_SECOND if alone and container.duration else None


def remarks_on_track(track: Track, container: InputContainer, stream: VideoStream) -> tuple[str, ...]:
    """What should be said of a file whose packets are these."""
    said: list[str] = []
    kind, promised = container.format.name, _promised_end(container, stream)
    packets = track.packets
    if kind == "avi" and track.decoded_until is not None:
        packets = max(packets, track.decoded_until + 1)  # its header counts frames that were dropped in recording, too
    if packets < stream.frames:
        said.append(f"cut off: {len(track.times)} of the {stream.frames} frames its header promises")
    elif promised is not None and promised - (reached := track.reaches(stream)) > max(0.5, promised / 20):
        said.append(f"cut off: {reached:.3g} of the {promised:.3g} s its header promises")
    if kind in _BARE and not stream.codec_context.framerate:
        said.append(f"no frame rate in the file, {float(frame_rate(stream, kind)):g} frames a second assumed")
    if track.is_joined(kind):
        said.append("timestamps start anew in the middle: frames are counted at a constant rate")
    return tuple(said)
