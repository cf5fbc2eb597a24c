"""Sample grids as pixels: PNG files without an imaging library, scaled down for a terminal."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from sora_spec.errors import UserError

MOST_PIXELS = 64_000_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, and both with alpha


@dataclass(frozen=True)
class Picture:
    """Rows of RGB bytes."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    def cut(self, left: int, top: int, width: int, height: int) -> Picture:
        """The part of that size at that place."""
        rows = self.rows[top : top + height]
        return Picture(width, len(rows), tuple(row[3 * left : 3 * (left + width)] for row in rows))

    def scaled(self, width: int, height: int) -> Picture:
        """The picture at another size: each new pixel is the mean of those that it covers, or the nearest one."""
        columns = _bands(self.width, width)
        rows: list[bytes] = []
        for top, bottom in _bands(self.height, height):
            summed = [sum(column) for column in zip(*self.rows[top:bottom], strict=True)]
            count = bottom - top
            rows.append(
                bytes(
                    sum(summed[3 * left + channel : 3 * right : 3]) // (count * (right - left))
                    for left, right in columns
                    for channel in range(3)
                )
            )
        return Picture(width, height, tuple(rows))

    def fitted(self, width: int, height: int) -> Picture:
        """The picture as large as it can be within those sides, its proportions kept."""
        scale = min(width / self.width, height / self.height)
        return self.scaled(max(1, int(self.width * scale)), max(1, int(self.height * scale)))


def _bands(have: int, want: int) -> list[tuple[int, int]]:
    edges = [number * have // want for number in range(want + 1)]
    return [(low, max(high, low + 1)) for low, high in pairwise(edges)]


def grid_of(picture: Picture, height: int, width: int, gap: int = 2) -> tuple[int, int, int] | None:
    """Rows, columns and magnification of a contact sheet whose frames have `height` × `width` pixels.

    None where the picture is no such sheet. See `sora_spec.video.write_contact_sheet`.
    """
    scale = max(1, -(-64 // max(height, width)))
    rows, over = divmod(picture.height + gap * scale, (height + gap) * scale)
    columns, beside = divmod(picture.width + gap * scale, (width + gap) * scale)
    return None if over or beside or not rows or not columns else (rows, columns, scale)


def frames_of(picture: Picture, height: int, width: int, gap: int = 2) -> tuple[tuple[Picture, ...], ...]:
    """The frames of a contact sheet in their own size, one row for each clip; the whole picture if it is no sheet."""
    grid = grid_of(picture, height, width, gap)
    if grid is None:
        return ((picture,),)
    rows, columns, scale = grid
    step_y, step_x = (height + gap) * scale, (width + gap) * scale
    return tuple(
        tuple(picture.cut(x * step_x, y * step_y, width * scale, height * scale) for x in range(columns))
        for y in range(rows)
    )


def read_png(path: Path) -> Picture:
    """A PNG of 8 bits per channel, not interlaced: grey or RGB, alpha ignored.

    Raises UserError: not such a file, or one that is still being written.
    """
    try:
        return _decode(path.read_bytes())
    except (OSError, ValueError, struct.error, zlib.error, IndexError) as error:
        raise UserError(f"{path} cannot be shown: {error}", "it may still be being written") from error


def _decode(raw: bytes) -> Picture:
    if raw[:8] != _SIGNATURE:
        raise ValueError("it is not a PNG file")
    width = height = channels = 0
    packed: list[bytes] = []
    for kind, content in _chunks(raw):
        if kind == b"IHDR":
            width, height, channels = _header(content)
        elif kind == b"IDAT":
            packed.append(content)
    if not channels:
        raise ValueError("it has no header")
    stride = width * channels
    size = height * (stride + 1)
    flat = zlib.decompressobj().decompress(b"".join(packed), size)
    if len(flat) < size:
        raise ValueError(f"it holds {len(flat):,} bytes of {size:,}")
    return Picture(width, height, tuple(_rgb(row, channels) for row in _unfiltered(flat, stride, channels)))


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 8 <= len(raw):
        length, kind = struct.unpack_from(">I4s", raw, place)
        yield kind, raw[place + 8 : place + 8 + length]
        place += 12 + length


def _header(content: bytes) -> tuple[int, int, int]:
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", content)
    if depth != 8 or colour not in _CHANNELS or interlace:
        raise ValueError(f"{depth} bits, colour type {colour}, interlace {interlace} is not read here")
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"{width} × {height} pixels are too many or none")
    return width, height, _CHANNELS[colour]


def _unfiltered(flat: bytes, stride: int, channels: int) -> Iterator[bytes]:
    """Rows with the PNG filters undone (PNG specification §9.2)."""
    above = bytes(stride)
    for start in range(0, len(flat), stride + 1):
        above = _unfilter(flat[start], flat[start + 1 : start + 1 + stride], above, channels)
        yield above


def _unfilter(kind: int, row: bytes, above: bytes, channels: int) -> bytes:
    if kind == 0:
        return row
    if kind == 1:
        return _undo_sub(row, channels)
    if kind == 2:
        return bytes([(a + b) & 255 for a, b in zip(row, above, strict=True)])
    if kind == 3:
        return _undo_average(row, above, channels)
    if kind == 4:
        return _undo_paeth(row, above, channels)
    raise ValueError(f"there is no filter {kind}")


def _undo_sub(row: bytes, channels: int) -> bytes:
    found = bytearray(len(row))
    for channel in range(channels):
        found[channel::channels] = bytes([total & 255 for total in accumulate(row[channel::channels])])
    return bytes(found)


def _undo_average(row: bytes, above: bytes, channels: int) -> bytes:
    found = bytearray(channels) + bytearray(len(row))
    for place, (value, up) in enumerate(zip(row, above, strict=True)):
        found[place + channels] = (value + (found[place] + up) // 2) & 255
    return bytes(found[channels:])


def _undo_paeth(row: bytes, above: bytes, channels: int) -> bytes:
    found = bytearray(channels) + bytearray(len(row))
    corners = bytes(channels) + above
    for place, (value, up, corner) in enumerate(zip(row, above, corners, strict=False)):
        left = found[place]
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        second = up if to_up <= to_corner else corner
        nearest = left if to_left <= to_up and to_left <= to_corner else second
        found[place + channels] = (value + nearest) & 255
    return bytes(found[channels:])


def _rgb(row: bytes, channels: int) -> bytes:
    if channels == 3:
        return row
    found = bytearray(len(row) // channels * 3)
    for channel in range(3):
        found[channel::3] = row[channel if channels == 4 else 0 :: channels]
    return bytes(found)
