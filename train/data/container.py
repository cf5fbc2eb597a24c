"""How a video file is opened: as a container of frames on disk, whatever its name or its content would have it be."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.error import ArgumentError

from sora_spec.train.data.members import Member, member_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream


_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,h261,h263,h264,hevc,vvc,evc,av1,obu,ivf,m4v,"
    "mjpeg,mjpeg_2000,smjpeg,mpjpeg,dirac,cavsvideo,avs2,avs3,vc1,vc1test,dnxhd,dv,flv,live_flv,kux,ogg,asf,asf_o,rm,ivr,"
    "mxf,mxg,gxf,lxf,nut,nuv,nsv,yuv4mpegpipe,swf,gif,apng,wtv,bink,smk,roq,flic,amv,ty,pva,mtv,dhav,thp,cine,jpegxl_anim"
)
"""FFmpeg's demuxers of real containers. What is not here reads other files (ffconcat, HLS, DASH, image sequences),
devices, or the network: a text file named `.mp4` would otherwise be followed to wherever it points."""

_EXPLODING = frozenset({"mjpeg"})
"""Decoders that hide damage unless told to stop at it; `docs/guides/frames.md` has the numbers."""


class UnusableFileError(Exception):
    """A file cannot be used; the text says why."""


def require_plain_file(path: Path) -> None:
    """Refuse what opening would hang on or read for ever: a pipe, a device, a socket; and a folder, an empty file.

    Raises UnusableFileError.
    """
    if (member := _member(path)) is not None:
        if member.size == 0:
            raise UnusableFileError("the file is empty")
        return
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableFileError("the file does not exist") from None
    except (OSError, ValueError) as error:  # a null character in the name is a ValueError
        raise UnusableFileError(f"not readable: {error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnusableFileError("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise UnusableFileError("not a regular file (a pipe, socket or device)")
    if status.st_size == 0:
        raise UnusableFileError("the file is empty")


def _member(path: Path) -> Member | None:
    """Where the file lies, if it is in a tar. Raises UnusableFileError where that cannot be read."""
    try:
        return member_of(path)
    except (OSError, tarfile.TarError) as error:
        raise UnusableFileError(f"its tar cannot be read: {error}") from error


@contextmanager
def open_video(path: Path) -> Generator[InputContainer]:
    """The container at `path`, read as a file. Names such as `clip:01.mp4` or `http:x.mp4` are files, not protocols."""
    member = _member(path)
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    address = f"file:{path}"
    if member is not None:
        options["protocol_whitelist"] = "file,subfile"
        address = f"subfile,,start,{member.begin},end,{member.begin + member.size},,:file:{member.tar}"
    try:
        opened = av.open(address, options=options, metadata_errors="replace")
    except ArgumentError:  # FFmpeg's answer to a format that is not on the list
        raise UnusableFileError("not readable as video: a playlist, picture or text, whatever its name says") from None
    with opened as container:
        yield container


def whole_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """Packets of the streams in the order of decoding, without a last one that is torn where the file was cut off.

    A torn packet in the middle is given: transport streams mark whole ones, too, where two recordings meet.
    """
    torn: dict[int, Packet] = {}
    for packet in container.demux(*streams):
        if packet.size and (held := torn.pop(packet.stream_index, None)) is not None:
            yield held
        if packet.size and packet.is_corrupt:
            torn[packet.stream_index] = packet
        else:
            yield packet


def set_decoder(stream: VideoStream) -> None:
    """One thread, and damage reported: slices decoded in parallel lose FFmpeg's mark of a damaged frame."""
    context = stream.codec_context
    context.thread_count = 1
    if context.name in _EXPLODING:
        context.options = {"err_detect": "explode"}
