"""Pictures through Pillow: stills, and the moving ones that FFmpeg does not read (WebP, AVIF) or reads as one frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_spec.train.data.container import UnusableFileError
from sora_spec.train.data.display import MAX_PIXELS, Pixels, check_size
from sora_spec.train.data.members import member_of

if TYPE_CHECKING:
    from PIL.Image import Image

TICKS_PER_SECOND = 1_000_000
"""Of a moving picture: microseconds."""
_HEIC = {".heic", ".heif"}
_MOVING = {"WEBP", "PNG", "GIF", "AVIF"}  # the pages of a TIFF and the views of an MPO are no clip
_UNSAID_MS = 100.0  # how long a frame of no stated duration is shown: browsers' custom


@cache
def _image_module() -> Any:
    """Pillow, whose warnings about odd files are silenced once: such files are refused by name, or are fine."""
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def open_picture(path: Path) -> Image:
    """The picture at `path`, not yet decoded. Raises UnusableFileError when it is too large."""
    image = _image_module()
    try:
        member = member_of(path)
        opened = image.open(path if member is None else BytesIO(member.read()))
    except image.DecompressionBombError:
        raise UnusableFileError(f"a decompression bomb: more than {MAX_PIXELS:,} pixels") from None
    except image.UnidentifiedImageError:
        heic = ": HEIC is not among them, convert it to JPEG or PNG" if path.suffix.lower() in _HEIC else ""
        raise UnusableFileError(f"not readable: not a picture that Pillow knows{heic}") from None
    check_size(*opened.size)
    return opened


def is_moving(image: Image) -> bool:
    """Whether the picture has frames to show one after another."""
    return image.format in _MOVING and _frame_numbers(image).stop - _frame_numbers(image).start > 1


def _frame_numbers(image: Image) -> range:
    """An APNG's default image, where it is no part of the animation, is left out."""
    frames = int(getattr(image, "n_frames", 1))
    return range(1 if image.info.get("default_image") and frames > 1 else 0, frames)


def upright(image: Image) -> Image:
    """RGB with the EXIF orientation applied. Grey of 16 bits keeps its upper 8."""
    from PIL import Image as Module
    from PIL import ImageOps

    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        return Module.fromarray((np.asarray(turned).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if turned.mode in {"I", "F"}:
        raise UnusableFileError(f"pixels of mode {turned.mode}: the range they span is not stated")
    return turned.convert("RGB")


def moving_frames(path: Path) -> Iterator[tuple[int, int, Image]]:
    """Start, end (in ticks) and picture of every frame, in order."""
    with open_picture(path) as image:
        time_ms = 0.0
        for number in _frame_numbers(image):
            image.seek(number)
            image.load()  # WebP knows a frame's duration only then
            frame = upright(image)
            begin_ms, time_ms = time_ms, time_ms + (float(image.info.get("duration") or 0) or _UNSAID_MS)
            yield round(begin_ms * 1000), round(time_ms * 1000), frame


def resized(image: Image, size: tuple[int, int] | None, halved: tuple[int, int] | None = None) -> Pixels:
    """Pixels (Y, X, 3) at `size` (height, width): halved by box means down to `halved` if given, then bicubic."""
    module = _image_module()
    while halved is not None and (image.height, image.width) != halved:
        image = image.resize((image.width // 2, image.height // 2), module.Resampling.BOX)
    if size is not None:
        image = image.resize((size[1], size[0]), module.Resampling.BICUBIC)
    return np.asarray(image)


def read_still(path: Path, size: tuple[int, int] | None, halved: tuple[int, int] | None = None) -> Pixels:
    """The picture (Y, X, 3) at `path`, upright."""
    with open_picture(path) as image:
        return resized(upright(image), size, halved)
