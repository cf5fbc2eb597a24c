"""Videos in many containers, orientations, rates and streams, each with the frames that must come out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sora_spec.train.data.decode import clip_ticks, decode_frames
from sora_spec.train.data.probe import probe
from sora_spec.train.data.sources import Entry
from tests.hostile.case import Case
from tests.hostile.films import (
    Picture,
    corner_names,
    corners,
    images,
    misread,
    shown,
    write_film,
)

NTSC = Fraction(30000, 1001)
B_FRAMES = {"bf": "3", "g": "12", "x264-params": "b-adapt=0"}
SHARP = {"b": "9000000", "qmax": "2", "qmin": "1"}
MPEG_B = {"bf": "2", "g": "12", "mbd": "rd", "cmp": "rd", **SHARP}

FILMS: dict[str, dict[str, Any]] = {
    "b-frames.avi": {"options": B_FRAMES},
    "mpeg4-b.avi": {"codec": "mpeg4", "options": MPEG_B},
    "plain.avi": {"options": {"bf": "0"}},
    "open-gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=6:min-keyint=6:bframes=3"}},
    "sliced.mp4": {"options": {"x264-params": "slices=2:bframes=2"}},
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=8"}},
    "a.hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=8"}},
    "av1.mp4": {"codec": "libsvtav1"},
    "a.m4v": {"codec": "mpeg4", "options": SHARP},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "UPPER.MOV": {"options": B_FRAMES},
    "b-frames.mkv": {"options": B_FRAMES},
    "ffv1.mkv": {"codec": "ffv1"},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "2000000"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "b": "2000000"}},
    "b-frames.ts": {"options": B_FRAMES},
    "CAMERA.MTS": {"options": B_FRAMES, "container": {"format": "mpegts"}},
    "a.m2ts": {"options": B_FRAMES},
    "phone.3gp": {"codec": "mpeg4", "options": SHARP},
    "phone.3g2": {"options": {"bf": "0"}},
    "dvd.vob": {"codec": "mpeg2video", "rate": 25, "options": MPEG_B},
    "a.mpg": {"codec": "mpeg1video", "rate": 25, "options": MPEG_B},
    "a.MPEG": {"codec": "mpeg2video", "rate": 25, "options": MPEG_B, "container": {"format": "mpeg"}},
    "raw.m2v": {"codec": "mpeg2video", "rate": 25, "options": MPEG_B},
    "a.wmv": {"codec": "wmv2", "options": {"g": "1", **SHARP}},
    "a.asf": {"codec": "wmv1", "options": {"g": "1", **SHARP}},
    "a.flv": {"options": B_FRAMES},
    "a.nut": {"options": B_FRAMES},
    "a.mxf": {"codec": "mpeg2video", "rate": 25, "options": MPEG_B},
    "a.y4m": {"codec": "wrapped_avframe"},
    "a.ivf": {"codec": "libvpx", "options": SHARP},
    "a.swf": {"codec": "flv1", "options": SHARP},
    "a.rm": {"codec": "rv20", "options": {"g": "1", **SHARP}},
    "a.dv": {"codec": "dvvideo", "rate": 25, "size": (576, 720)},
    "sixteen.h264": {"options": B_FRAMES},
    "twenty-four.h264": {"options": B_FRAMES, "rate": 24},
    "ntsc.264": {"options": B_FRAMES, "rate": NTSC, "container": {"format": "h264"}},
    "sixteen.hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "film.m2v": {"codec": "mpeg2video", "rate": 24, "options": MPEG_B},
    "raw.m4v": {"codec": "mpeg4", "options": SHARP, "container": {"format": "m4v"}},
    "no-rate.mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "rate": 25},
}


def _film(name: str, settings: dict[str, Any], folder: Path) -> str | None:
    return misread(write_film(folder / name, **settings), rate=settings.get("rate", 16))


def _named(name: str, folder: Path) -> str | None:
    """A name that FFmpeg takes for a protocol or a pattern; beside it a decoy that it would lead to."""
    write_film(folder / "decoy.mp4", frames=8)
    plain = write_film(folder / "plain.mp4")
    with chdir(folder):
        os.rename(plain, name)
        return misread(Path(name)) or misread(folder / name)


NAMES = (
    "clip:01.mp4", "http:x.mp4", "concat:decoy.mp4|decoy.mp4", "file:x.mp4", "data:x.mp4", "-i.mp4", "%03d.mp4",
    "a b'c\"d.mp4", "line\nbreak.mp4", "caf\udce9.mp4", "ünï.mp4", "async:cache:x.mp4", "x.mp4?y=1#z.mp4",
)  # fmt: skip

_ONE = 65536
_DISPLAY = {
    f"{a}{b}{c}{d}": (a, b, c, d)
    for a, b, c, d in [
        (1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1),
        (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0),
    ]
}  # fmt: skip


def _displayed(stored: Picture, a: int, b: int, c: int, d: int) -> Picture:
    """The definition: the pixel stored at (x, y) is displayed at (a·x + c·y, b·x + d·y), moved to start at 0."""
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    out = np.zeros((down.max() + 1, across.max() + 1, 3), np.uint8)
    out[down, across] = stored
    return out


def _oriented(suffix: str, turn: tuple[int, int, int, int], folder: Path) -> str | None:
    a, b, c, d = turn
    matrix = (a * _ONE, b * _ONE, 0, c * _ONE, d * _ONE, 0, 0, 0, 1 << 30)
    path = write_film(
        folder / f"a{suffix}", frames=3, size=(32, 64), matrix=matrix, pictures=[corners()] * 3, options={"bf": "0"}
    )
    return _looks_like(path, _displayed(corners(), *turn))


def _looks_like(path: Path, want: Picture) -> str | None:
    info = probe(Entry(path))
    if (info.height, info.width) != want.shape[:2]:
        return f"{info.width}x{info.height} instead of {want.shape[1]}x{want.shape[0]}"
    for size in (None, (want.shape[0] // 2, want.shape[1] // 2)):
        got = decode_frames(info, clip_ticks(info, 0, 1, Fraction(1)), size)[0]
        if corner_names(got) != corner_names(want):
            return f"corners {corner_names(got)} instead of {corner_names(want)}"
    return None


_EXIF: dict[int, Callable[[Picture], Picture]] = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: np.rot90,
}
"""What a viewer does for each EXIF orientation (TIFF 6.0, tag 274)."""


def _exif(number: int, folder: Path) -> str | None:
    exif = Image.Exif()
    exif[274] = number
    path = folder / "a.JPG"
    Image.fromarray(corners()).save(path, "JPEG", exif=exif, quality=95)
    return _looks_like(path, _EXIF[number](corners()))


DELAYS_MS = [100, 200, 100, 50, 400, 100]
"""Of the six frames of a moving picture."""


def _moving(name: str, options: dict[str, Any], folder: Path) -> str | None:
    first, *rest = images(len(DELAYS_MS))
    path = folder / name
    first.save(path, save_all=True, append_images=rest, duration=DELAYS_MS, **options)
    info = probe(Entry(path))
    if info.still or info.frames != len(DELAYS_MS):
        return f"{info.frames} frames, still: {info.still}"
    times = np.cumsum([0, *DELAYS_MS])
    want = [int(np.searchsorted(times, 50 * k + 1, side="right")) - 1 for k in range(19)]
    got = shown(info, 0, 19, Fraction(20))
    return None if got == want else f"read {got} instead of {want}"


MOVING: dict[str, dict[str, Any]] = {
    "lossless.webp": {"lossless": True},
    "lossy.webp": {"quality": 90},
    "a.apng": {"format": "PNG"},
    "apng-named.png": {},
    "a.gif": {},
    "GIF-named.png": {"format": "GIF"},
    "a.avif": {"quality": 95},
}


def _default_image(folder: Path) -> str | None:
    """The picture that viewers without APNG show is no frame of the animation."""
    first, *rest = images(6)
    first.save(folder / "a.png", save_all=True, default_image=True, append_images=rest, duration=100)
    info = probe(Entry(folder / "a.png"))
    got = shown(info, 0, 5, Fraction(10))
    return None if got == [1, 2, 3, 4, 5] else f"read {got}"


def _no_delays(folder: Path) -> str | None:
    first, *rest = images(6)
    first.save(folder / "a.webp", save_all=True, append_images=rest, duration=0, lossless=True)
    info = probe(Entry(folder / "a.webp"))
    return None if (got := shown(info, 0, 6, Fraction(10))) == list(range(6)) else f"read {got}"


def _one_picture(name: str, folder: Path) -> str | None:
    images(1)[0].save(folder / name)
    return None if probe(Entry(folder / name)).still else "one picture is no still"


def _thumbnails(folder: Path) -> str | None:
    from sora_spec.train.data.sources import find_entries

    write_film(folder / "a.mp4", frames=4)
    images(1)[0].save(folder / "a.jpg")
    images(1)[0].save(folder / "a.mp4.png")
    images(1)[0].save(folder / "b.jpg")
    names = sorted(entry.path.name for entry in find_entries(folder))
    return None if names == ["a.mp4", "b.jpg"] else f"entries {names}"


def _every_suffix_is_scanned(folder: Path) -> str | None:
    from sora_spec.train.data.sources import find_entries

    data = write_film(folder / "plain.mp4", frames=2).read_bytes()
    (folder / "plain.mp4").unlink()
    endings = "MTS m2ts 3gp 3g2 VOB mpg mpeg ts wmv flv ogv mxf y4m h264 hevc M2V mod qt f4v divx webm apng avif"
    for number, ending in enumerate(endings.split()):
        (folder / f"{number:02d}.{ending}").write_bytes(data)
    found = {entry.path.suffix[1:] for entry in find_entries(folder)}
    return None if found == set(endings.split()) else f"not scanned: {set(endings.split()) - found}"


def _repeated_header(folder: Path) -> str | None:
    """A film under the name of another container is read by its content."""
    shutil.copyfile(write_film(folder / "a.mkv", options=B_FRAMES), folder / "a.mp4")
    return misread(folder / "a.mp4")


def cases() -> Iterator[Case]:
    """See the module."""
    for name, settings in FILMS.items():
        yield Case(name, partial(_film, name, settings))
    for name in NAMES:
        yield Case(f"named {name!r}", partial(_named, name))
    for word, turn in _DISPLAY.items():
        yield Case(f"display matrix {word}", partial(_oriented, ".mp4", turn))
    yield Case("display matrix in Matroska", partial(_oriented, ".mkv", (0, 1, 1, 0)))
    for number in _EXIF:
        yield Case(f"EXIF orientation {number}", partial(_exif, number))
    for name, options in MOVING.items():
        yield Case(f"moving {name}", partial(_moving, name, options))
    for name in ("a.webp", "a.gif", "a.png", "a.avif"):
        yield Case(f"one picture in {name}", partial(_one_picture, name))
    for function in (
        _default_image, _no_delays, _thumbnails, _every_suffix_is_scanned, _repeated_header,
    ):  # fmt: skip
        yield Case(function.__name__.strip("_").replace("_", " "), function)
