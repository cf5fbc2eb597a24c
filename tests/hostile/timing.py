"""Times of frames: late and negative starts, edit lists, variable rates, joined and cut recordings."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

from sora_spec.train.data.decode import clip_ticks, decode_file, decode_frames
from sora_spec.train.data.probe import UnusableFileError, probe
from sora_spec.train.data.sources import Entry
from tests.hostile.case import Case
from tests.hostile.films import misread, number_of, picture, refused, shown, write_film

B_FRAMES = {"bf": "3", "g": "12", "x264-params": "b-adapt=0"}
FRAME = 1024
"""Ticks of one frame in a film of 16 frames a second, in mp4's time base of 1/16384."""


def _late_start(folder: Path) -> str | None:
    base = Fraction(1, 1000)
    pts = [5000 + 40 * k for k in range(32)]
    return misread(write_film(folder / "a.mkv", rate=25, pts=pts, time_base=base, options=B_FRAMES), rate=25)


def _negative_times(folder: Path) -> str | None:
    pts, base = list(range(-10, 22)), Fraction(1, 16)
    flags = {"options": {"avoid_negative_ts": "disabled"}}
    path = write_film(folder / "a.mkv", pts=pts, time_base=base, options={"bf": "0"}, container=flags)
    return misread(path)


def _variable_rate(folder: Path) -> str | None:
    pts = [0, 40, 50, 60, 200, 240, 500, 520, 900, 940]
    path = write_film(folder / "a.mkv", frames=10, pts=pts, time_base=Fraction(1, 1000), options=B_FRAMES)
    want = [max(k for k in range(10) if pts[k] <= 50 * step) for step in range(18)]
    got = shown(probe(Entry(path)), 0, 18, Fraction(20))
    return None if got == want else f"read {got} instead of {want}"


def _dropped_in_avi(folder: Path) -> str | None:
    """Frames that a recorder left out are shown longer; with B-frames nobody can say which."""
    pts = [0, 1, 2, 3, 8, 9, 10, 20, 21, 22, 23, 24, 30, 31, 40, 41]
    dropped = {"frames": 16, "pts": pts, "time_base": Fraction(1, 16)}
    path = write_film(folder / "a.avi", codec="mpeg4", options={"b": "2000000"}, **dropped)
    info = probe(Entry(path))
    want = [max(k for k in range(16) if pts[k] <= step) for step in range(42)]
    if (got := shown(info, 0, 42, Fraction(16))) != want or info.remarks:
        return f"read {got} instead of {want}; {info.remarks}"
    return refused(write_film(folder / "b.avi", options=B_FRAMES, **dropped), "dropped", "B-frames")


def _half_rate(folder: Path) -> str | None:
    got = shown(probe(Entry(write_film(folder / "a.h264", options=B_FRAMES))), 4, 8, Fraction(8))
    return None if got == list(range(4, 20, 2)) else f"at 8 of 16 frames a second: {got}"


def _no_rate(folder: Path) -> str | None:
    """A bare stream that states no rate: 25 frames a second are assumed, and that is said."""
    options = {"x265-params": "log-level=none:vui-timing-info=0"}
    path = write_film(folder / "a.hevc", codec="libx265", options=options)
    said = any("no frame rate" in remark for remark in probe(Entry(path)).remarks)
    return misread(path, rate=25) if said else "nothing said"


def _sizes_change(folder: Path) -> str | None:
    """A bare stream whose second half is larger: every frame comes out at the size asked for."""
    small = write_film(folder / "a.h264", options={"bf": "0"}, frames=16)
    pictures = [picture(k + 16, 96, 128) for k in range(16)]
    large = write_film(folder / "b.h264", options={"bf": "0"}, frames=16, size=(96, 128), pictures=pictures)
    small.write_bytes(small.read_bytes() + large.read_bytes())
    info = probe(Entry(small))
    got = [number_of(frame) for frame in decode_frames(info, clip_ticks(info, 0, 32, info.rate), (48, 64))]
    return None if got == list(range(32)) else f"read {got}"


def _shape_changes(folder: Path) -> str | None:
    """A call recorded while the phone was turned: nothing is squeezed, and what lies before it can be read."""
    wide = write_film(folder / "a.h264", options={"bf": "0"}, frames=16)
    pictures = [picture(k, 64, 48) for k in range(16)]
    high = write_film(folder / "b.h264", options={"bf": "0"}, frames=16, size=(64, 48), pictures=pictures)
    wide.write_bytes(wide.read_bytes() + high.read_bytes())
    info = probe(Entry(wide))
    if (got := shown(info, 2, 8)) != list(range(2, 10)):
        return f"before the change: {got}"
    try:
        got = shown(info, 8, 16)
    except UnusableFileError as error:
        words = ("a.h264", "shape", "1.000 s", "48x64")
        return None if all(word in str(error) for word in words) else str(error)
    return f"over the change: {got}"


def _joined(folder: Path) -> str | None:
    """Two recordings in one transport stream, whose times start anew."""
    one = write_film(folder / "one.ts", frames=48, options=B_FRAMES)
    joined = folder / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    info = probe(Entry(joined))
    got = shown(info, 0, 96, info.rate)
    want = [*range(48), *range(48)]
    return (
        None if got == want and info.frames == 96 and info.remarks else f"{info.frames} frames, {got}, {info.remarks}"
    )


def _starts_in_the_middle(folder: Path) -> str | None:
    """A transport stream cut before its second key frame: only what can be decoded is a frame."""
    path = write_film(folder / "a.ts", options={"g": "12", "bf": "0", "sc_threshold": "0"})
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 3] + data[188 * 6 :])
    info = probe(Entry(path))
    got = shown(info, 0, 4, info.rate)
    return None if -1 not in got and got == list(range(got[0], got[0] + 4)) else f"read {got}"


def _with_edits(path: Path, edits: list[tuple[int, int]]) -> None:
    """Replace the edit list of an mp4 whose index stands at its end. An edit: frames shown, and from which on."""
    data = path.read_bytes()
    at = data.index(b"elst") - 4
    old = data[at : at + struct.unpack(">I", data[at : at + 4])[0]]
    delay = struct.unpack(">i", old[20:24])[0]  # of B-frames
    body = b"".join(
        struct.pack(">IiI", frames * 1000 // 16, delay + begin * FRAME if begin >= 0 else -1, 65536)
        for frames, begin in edits
    )
    new = struct.pack(">I4sII", 16 + len(body), b"elst", 0, len(edits)) + body
    grown = bytearray(data[:at] + new + data[at + len(old) :])
    for box in (b"edts", b"trak", b"moov"):
        place = grown.index(box, grown.index(b"moov")) - 4
        (size,) = struct.unpack_from(">I", grown, place)
        struct.pack_into(">I", grown, place, size + len(new) - len(old))
    path.write_bytes(grown)


EDITS: dict[str, tuple[list[tuple[int, int]], list[int]]] = {
    "cuts the start": ([(27, 5)], list(range(5, 32))),
    "cuts both ends": ([(20, 6)], list(range(6, 26))),
    "shows the end first": ([(8, 16), (8, 0)], [*range(16, 24), *range(8)]),
    "shows a part twice": ([(8, 0), (8, 0)], [*range(8), *range(8)]),
    "starts late": ([(8, -1), (32, 0)], list(range(32))),
}


def _edited(edits: list[tuple[int, int]], want: list[int], b_frames: bool, folder: Path) -> str | None:
    path = write_film(folder / "a.mp4", options=B_FRAMES if b_frames else {"bf": "0", "g": "8"})
    _with_edits(path, edits)
    info = probe(Entry(path))
    got = [number_of(frame) for frame in decode_file(info)[1]]
    if got != want or info.frames != len(want):
        return f"{info.frames} frames: {got}"
    tail = shown(info, len(want) - 4, 4)
    return None if tail == want[-4:] else f"from the fourth last on: {tail}"


def cases() -> Iterator[Case]:
    """See the module."""
    for function in (
        _no_rate, _sizes_change, _shape_changes, _late_start, _negative_times, _variable_rate, _dropped_in_avi,
        _half_rate, _joined, _starts_in_the_middle,
    ):  # fmt: skip
        yield Case(function.__name__.strip("_").replace("_", " "), function)
    for name, (edits, want) in EDITS.items():
        for b_frames in (False, True):
            yield Case(f"edit list {name}{', B-frames' * b_frames}", partial(_edited, edits, want, b_frames))
