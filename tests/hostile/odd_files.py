"""Files that are no clip, or hold more than one film: refused by name with the reason, or read rightly."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from sora_spec.train.data.decode import clip_ticks, decode_frames
from sora_spec.train.data.probe import probe, scan
from sora_spec.train.data.sources import Entry
from tests.hostile.case import Case
from tests.hostile.films import HEIGHT, WIDTH, images, misread, picture, refused, shown, write_film

B_FRAMES = {"bf": "3", "g": "12", "x264-params": "b-adapt=0"}

PLAYLISTS: dict[str, tuple[str, str]] = {
    "ffconcat": ("list.mp4", "ffconcat version 1.0\nfile 'real.mp4'\n"),
    "HLS": ("list.ts", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.mp4\n#EXT-X-ENDLIST\n"),
    "DASH": ("list.mkv", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>'),
    "SDP": ("list.mov", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    "ASX": ("list.wmv", '<asx version="3.0"><entry><ref href="real.mp4"/></entry></asx>'),
    "concatf": ("list.avi", "real.mp4\n"),
    "RealMedia": ("list.rm", "rtsp://127.0.0.1/x.rm\n"),
    "SubRip": ("list.3gp", "1\n00:00:00,000 --> 00:00:01,000\nhello\n"),
    "ffmetadata": ("list.flv", ";FFMETADATA1\ntitle=x\n"),
    "script": ("code.ts", "export const answer: number = 42;\n" * 50),
    "page": ("page.mp4", "<!doctype html><title>404 Not Found</title>" * 20),
}


def _playlist(name: str, text: str, folder: Path) -> str | None:
    write_film(folder / "real.mp4", frames=8)
    (folder / name).write_text(text)
    return refused(folder / name, "not readable as video")


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _bytes(name: str, content: bytes, words: tuple[str, ...], folder: Path) -> str | None:
    (folder / name).write_bytes(content)
    return refused(folder / name, *words)


BYTES: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "nothing": ("a.mp4", b"", ("empty",)),
    "a picture of nothing": ("a.png", b"", ("empty",)),
    "zeros": ("a.mp4", bytes(100_000), ("not readable as video",)),
    "noise": ("a.mkv", np.random.default_rng(0).bytes(50_000), ()),
    "noise in a picture": ("a.webp", np.random.default_rng(1).bytes(5_000), ("not readable",)),
    "a bomb of 60000 x 60000": ("a.png", _png(60_000, 60_000), ("bomb",)),
    "a picture of 15000 x 10000 cut off": ("a.png", _png(15_000, 10_000), ("not readable",)),
    "a picture of no width": ("a.png", _png(0, 10), ("not readable",)),
    "a thread": ("a.png", _png(10_000, 2, bytes(30_001 * 2)), ("64 times",)),
    "a cut PNG": ("a.png", _png(64, 64, bytes(100)), ("not readable",)),
    "a JPEG's head": ("a.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF", ("not readable",)),
    "an SVG": ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", ("not readable",)),
    "a zip": ("a.mov", b"PK\x03\x04" + bytes(200), ("not readable as video",)),
    "ftyp alone": ("a.mp4", b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", ()),
    "a box longer than the file": ("a.mp4", b"\x00\x00\x00\x10ftypmp42\x00\x00\x00\x00\x7f\xff\xff\xffmoov", ()),
    "a picture as video": ("a.mp4", _png(64, 64, bytes(193 * 64)), ("not readable as video",)),
}  # fmt: skip


def _pipe(folder: Path) -> str | None:
    os.mkfifo(folder / "a.mp4")
    return refused(folder / "a.mp4", "not a regular file")


def _device(folder: Path) -> str | None:
    (folder / "a.mp4").symlink_to("/dev/zero")
    return refused(folder / "a.mp4", "not a regular file")


def _directory(folder: Path) -> str | None:
    (folder / "a.mp4").mkdir()
    return refused(folder / "a.mp4", "folder")


def _dead_link(folder: Path) -> str | None:
    (folder / "a.mp4").symlink_to(folder / "none.mp4")
    return refused(folder / "a.mp4", "does not exist")


def _null_in_the_name(folder: Path) -> str | None:
    return refused(folder / "a\0b.mp4", "not readable")


def _patched(folder: Path, old: bytes, new: bytes, **film: Any) -> Path:
    path = write_film(folder / "a.mp4", **film)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def _unknown_codec(folder: Path) -> str | None:
    return refused(_patched(folder, b"avc1", b"zzzz"), "codec")


def _unknown_codec_beside_good_files(folder: Path) -> str | None:
    """One odd file among good ones is skipped; the others are read."""
    _patched(folder, b"avc1", b"zzzz")
    write_film(folder / "b.mp4")
    (folder / "c.png").write_bytes(_png(60_000, 60_000))
    found = scan([Entry(folder / name) for name in ("a.mp4", "b.mp4", "c.png")], 8, Fraction(16))
    names = [file.path.name for file in found.files], [path.name for path, _ in found.skipped]
    return None if names == (["b.mp4"], ["a.mp4", "c.png"]) else f"{names}"


def _all_at_once(folder: Path) -> str | None:
    """`data check` over a folder of nothing but oddities and one film: each by name, with its reason."""
    from sora_spec.train.data.check import check_source, table

    write_film(folder / "good.mp4")
    for number, (name, content, _) in enumerate(BYTES.values()):
        (folder / f"{number:02d}-{name}").write_bytes(content)
    for number, (name, text) in enumerate(PLAYLISTS.values()):
        (folder / f"text-{number:02d}-{name}").write_text(text)
    check = check_source(str(folder), None)
    usable = [row["path"] for row in check.rows if row["problem"] is None]
    unnamed = [path.name for path in folder.iterdir() if path.name not in table(check)]
    if len(check.rows) != len(BYTES) + len(PLAYLISTS) + 1 or unnamed:
        return f"{len(check.rows)} rows, not named: {unnamed}"
    return None if usable == [str(folder / "good.mp4")] else f"taken: {usable}"


def _headers_size(folder: Path) -> str | None:
    """The container's header promises 65535 x 65535; the stream itself says what is there."""
    size = struct.pack(">HH", WIDTH, HEIGHT)
    path = _patched(folder, b"\x00\x00" + size + b"\x00\x48\x00\x00", b"\x00\x00\xff\xff\xff\xff\x00\x48\x00\x00")
    return misread(path)


def _no_video(folder: Path) -> str | None:
    with av.open(str(folder / "a.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return refused(folder / "a.mp4", "no video stream")


def _with_cover(folder: Path, name: str, flagged: bool, film: bool = True) -> Path:
    """A large picture as the first video stream, the film as the second."""
    with av.open(str(folder / name), "w") as out:
        cover: Any = out.add_stream("mjpeg", rate=16)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "yuvj420p"
        if flagged:
            cover.disposition = av.stream.Disposition.attached_pic
        main: Any = None
        if film:
            main = out.add_stream("libx264", rate=16, options=B_FRAMES)
            main.width, main.height, main.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        out.mux(cover.encode(av.VideoFrame.from_ndarray(picture(255, 480, 640), format="rgb24")))
        out.mux(cover.encode())
        for k in range(32 if film else 0):
            out.mux(main.encode(av.VideoFrame.from_ndarray(picture(k), format="rgb24")))
        if film:
            out.mux(main.encode())
    return folder / name


def _cover(name: str, flagged: bool, folder: Path) -> str | None:
    return misread(_with_cover(folder, name, flagged))


def _cover_alone(folder: Path) -> str | None:
    path = _with_cover(folder, "a.mp4", flagged=True, film=False)
    return refused(path, "cover art")


def _two_films(folder: Path) -> str | None:
    """A small film first, the large one second: the large one is read."""
    with av.open(str(folder / "a.mkv"), "w") as out:
        streams: list[Any] = [out.add_stream("libx264", rate=16, options=B_FRAMES) for _ in range(2)]
        for stream, factor in zip(streams, (1, 2), strict=True):
            stream.height, stream.width, stream.pix_fmt = HEIGHT * factor, WIDTH * factor, "yuv420p"
        for k in range(32):
            for stream, shift in zip(streams, (100, 0), strict=True):
                frame = picture(k + shift, stream.height, stream.width)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for stream in streams:
            out.mux(stream.encode())
    return misread(folder / "a.mkv")


def _metadata_not_utf8(folder: Path) -> str | None:
    path = write_film(folder / "a.mp4", options={"bf": "0"})
    with av.open(str(path)) as source, av.open(str(folder / "b.mkv"), "w") as out:
        out.metadata["title"] = "XXXXXXXX"
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    data = (folder / "b.mkv").read_bytes()
    (folder / "b.mkv").write_bytes(data.replace(b"XXXXXXXX", b"caf\xe9 \xff\xfe!"))
    return misread(folder / "b.mkv")


def _cut_off(folder: Path) -> str | None:
    """A fast-start mp4 cut at two thirds: what is whole is read, and the file says that it was cut."""
    path = write_film(folder / "a.mp4", container={"options": {"movflags": "+faststart"}}, options={"g": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    info = probe(Entry(path))
    if not any("cut off" in remark and "32" in remark for remark in info.remarks):
        return f"{info.frames} frames, remarks {info.remarks}"
    got = shown(info, 0, info.frames)
    return None if got == list(range(info.frames)) and info.frames > 8 else f"read {got}"


def _cut_without_a_count(folder: Path) -> str | None:
    """Matroska's header holds a duration, no number of frames."""
    path = write_film(folder / "a.mkv", options={"g": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    info = probe(Entry(path))
    got = shown(info, 0, info.frames)
    if not any("cut off" in remark and "2 s" in remark for remark in info.remarks):
        return f"{info.frames} frames, remarks {info.remarks}"
    return None if got == list(range(info.frames)) and info.frames > 8 else f"read {got}"


def _still_for_a_clip(folder: Path) -> str | None:
    images(1)[0].save(folder / "a.png")
    found = scan([Entry(folder / "a.png")], 8, Fraction(16))
    return None if found.skipped and "train.stills=repeat" in found.skipped[0][1] else f"taken: {found.files}"


def _sixteen_bits(folder: Path) -> str | None:
    """Grey of 16 bits keeps its upper 8; it is not clipped to white."""
    Image.fromarray(np.full((32, 32), 0x8000, np.uint16)).save(folder / "a.png")
    info = probe(Entry(folder / "a.png"))
    level = int(decode_frames(info, clip_ticks(info, 0, 1, Fraction(1)))[0, 8, 8, 0])
    return None if level == 0x80 else f"level {level}"


def _squashed(folder: Path) -> str | None:
    """Pixels twice as wide as high."""
    info = probe(Entry(write_film(folder / "a.mp4", sample_aspect_ratio=Fraction(2, 1))))
    return None if (info.width, info.height) == (2 * WIDTH, HEIGHT) else f"{info.width}x{info.height}"


def _a_strip(folder: Path) -> str | None:
    return refused(write_film(folder / "a.mp4", frames=2, size=(16, 1200)), "64 times")


def cases() -> Iterator[Case]:
    """See the module."""
    for name, (file, text) in PLAYLISTS.items():
        yield Case(f"text: {name}", partial(_playlist, file, text))
    for name, (file, content, words) in BYTES.items():
        yield Case(f"bytes: {name}", partial(_bytes, file, content, words))
    for name, flagged in (("flagged.mp4", True), ("flagged.mkv", True), ("bare.mp4", False), ("bare.mkv", False)):
        yield Case(f"cover first, {name}", partial(_cover, name, flagged))
    functions: list[Callable[[Path], str | None]] = [
        _pipe, _device, _directory, _dead_link, _null_in_the_name, _unknown_codec, _unknown_codec_beside_good_files,
        _all_at_once,
        _headers_size, _no_video, _cover_alone, _two_films, _metadata_not_utf8, _cut_off,
        _cut_without_a_count, _still_for_a_clip, _sixteen_bits, _squashed, _a_strip,
    ]  # fmt: skip
    for function in functions:
        yield Case(function.__name__.strip("_").replace("_", " "), function)
