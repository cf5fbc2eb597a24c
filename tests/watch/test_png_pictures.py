"""The PNG reader against Pillow, and sample grids against the writer that makes them."""

from __future__ import annotations

import struct
import zlib
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sora_spec.errors import UserError
from sora_spec.video import write_contact_sheet
from sora_spec.watch.pictures import Picture, frames_of, grid_of, read_png


def rgb(picture: Picture) -> np.ndarray:
    flat = np.frombuffer(b"".join(picture.rows), np.uint8)
    return flat.reshape(picture.height, picture.width, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_every_mode_reads_as_pillow_reads_it(tmp_path: Path, mode: str) -> None:
    random = np.random.default_rng(1)
    ramp = np.add.outer(np.arange(37), 3 * np.arange(53))[..., None] + np.array([0, 5, 90, 7])
    noise = random.integers(0, 30, (37, 53, 4))
    pixels = ((ramp + noise) % 256).astype(np.uint8)
    channels = len(mode)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels[..., :channels]), mode)
    image.save(tmp_path / "a.png")
    expected = pixels[..., [0, 0, 0] if channels < 3 else [0, 1, 2]]
    assert np.array_equal(rgb(read_png(tmp_path / "a.png")), expected)


def filtered(rows: np.ndarray, kinds: list[int]) -> bytes:
    """A PNG whose rows use the given filters, written here from the specification's forward formulas."""
    height, width, _ = rows.shape
    flat = rows.reshape(height, -1).astype(int)
    out = b""
    for y, kind in zip(range(height), cycle(kinds), strict=False):
        x = flat[y]
        a = np.concatenate([np.zeros(3, int), x[:-3]])
        b = flat[y - 1] if y else np.zeros_like(x)
        c = np.concatenate([np.zeros(3, int), b[:-3]])
        p = a + b - c
        near_a, near_b, near_c = abs(p - a), abs(p - b), abs(p - c)
        paeth = np.where((near_a <= near_b) & (near_a <= near_c), a, np.where(near_b <= near_c, b, c))
        guess = [0 * x, a, b, (a + b) // 2, paeth][kind]
        out += bytes([kind]) + ((x - guess) % 256).astype(np.uint8).tobytes()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(out)) + chunk(b"IEND", b"")


@settings(deadline=None)
@given(
    kinds=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**31),
)
def test_every_filter_reads_as_pillow_reads_it(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[int], size: tuple[int, int], seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(filtered(pixels, kinds))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(expected, pixels)
    assert np.array_equal(rgb(read_png(path)), expected)


@pytest.mark.parametrize(("height", "width", "clips", "frames"), [(32, 32, 8, 9), (8, 24, 3, 5), (128, 96, 1, 1)])
def test_frames_of_a_contact_sheet_are_those_that_were_written(
    tmp_path: Path, height: int, width: int, clips: int, frames: int
) -> None:
    random = np.random.default_rng(0)
    videos = [random.integers(0, 256, (frames, height, width, 3), dtype=np.uint8) for _ in range(clips)]
    write_contact_sheet(tmp_path / "sheet.png", videos)
    found = frames_of(read_png(tmp_path / "sheet.png"), height, width)
    assert len(found) == clips
    for row, video in zip(found, videos, strict=True):
        picks = np.linspace(0, frames - 1, min(8, frames)).round().astype(int)
        assert len(row) == len(picks)
        for frame, pick in zip(row, picks, strict=True):
            assert np.array_equal(rgb(frame.scaled(width, height)), video[pick])


def test_a_picture_of_another_size_is_no_grid() -> None:
    picture = Picture(10, 10, (bytes(30),) * 10)
    assert grid_of(picture, 32, 32) is None
    assert frames_of(picture, 32, 32) == ((picture,),)


def test_scaling_down_means_the_pixels_that_are_covered() -> None:
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (12, 18, 3), dtype=np.uint8)
    picture = Picture(18, 12, tuple(row.tobytes() for row in pixels))
    small = rgb(picture.scaled(6, 4))
    assert np.array_equal(small, pixels.reshape(4, 3, 6, 3, 3).astype(int).sum((1, 3)) // 9)
    with Image.fromarray(pixels) as image:
        boxed = np.asarray(image.resize((6, 4), Image.Resampling.BOX)).astype(int)
    assert abs(boxed - small).max() <= 1  # Pillow rounds, we cut


def test_fitting_keeps_proportions_and_never_vanishes() -> None:
    picture = Picture(100, 2, (bytes(300),) * 2)
    assert (picture.fitted(10, 10).width, picture.fitted(10, 10).height) == (10, 1)


@pytest.mark.parametrize("cut", [0, 7, 20, 60, -40])
def test_a_file_that_is_not_whole_is_a_clear_error(tmp_path: Path, cut: int) -> None:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    raw = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(raw[:cut])
    with pytest.raises(UserError, match="cannot be shown"):
        read_png(tmp_path / "a.png")


def test_other_kinds_of_file_are_clear_errors(tmp_path: Path) -> None:
    Image.new("1", (8, 8)).save(tmp_path / "bits.png")
    with pytest.raises(UserError, match="1 bits"):
        read_png(tmp_path / "bits.png")
    with pytest.raises(UserError, match="cannot be shown"):
        read_png(tmp_path / "missing.png")
    huge = filtered(np.zeros((1, 1, 3)), [0]).replace(
        struct.pack(">IIB", 1, 1, 8), struct.pack(">IIB", 60_000, 60_000, 8)
    )
    (tmp_path / "huge.png").write_bytes(huge)
    with pytest.raises(UserError, match="too many"):
        read_png(tmp_path / "huge.png")
