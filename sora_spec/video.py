# pyright: standard
# PyAV's types are only partly known.
"""Videos and contact sheets on disk. PyAV, Pillow and numpy are imported when first needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_spec.disk.atomic import replacing_file
from sora_spec.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]
    """(T, Y, X, 3)"""

_TEXT_HEIGHT = 16  # pixels of the line of text below a row of a contact sheet
_BT709, _LIMITED = 1, 1  # FFmpeg's numbers; those of the colour tags are H.273's
_SMALL = 256 * 256
"""Pixels of a frame up to which x264 looks after no macroblock tree: of 32×32 pixels it gave other bytes every time."""


def to_uint8(video: NDArray[np.floating[Any]]) -> Frames:
    """Frames (T, Y, X, 3) in 0..255 from a video (3, T, Y, X) in [-1, 1].

    Values outside are clamped; halves round to even.
    """
    import numpy as np

    scaled = np.rint((np.clip(video, -1.0, 1.0) + 1.0) * 127.5)
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(1, 2, 3, 0))


def write_mp4(path: Path | str, frames: Frames, fps: float, quality: int = 12, comment: str | None = None) -> None:
    """Write `frames` (T, Y, X, 3) as H.264 in yuv420p, which every player takes, whole or not at all.

    Converted by BT.709 in limited range and tagged so: players need not guess, and guess by size if they do.

    An odd height or width is padded by repeating the last row or column, since yuv420p needs even sides.
    `quality` is x264's constant rate factor: 0 lossless, 51 worst. `comment` goes to the file's metadata.

    Raises UserError when this PyAV has no H.264 encoder.
    """
    import av
    import numpy as np
    from av.error import FFmpegError

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # As a file, whatever its name: `clip:01.mp4` would be taken for a protocol.
    with (
        replacing_file(path) as temporary,
        av.open(f"file:{temporary}", "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        try:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(60_000))
        except (ValueError, FFmpegError) as error:
            raise UserError(
                f"this PyAV ({av.__version__}) cannot encode H.264: {error}",
                "install PyAV from its wheel: pip install av",
            ) from error
        if comment is not None:
            container.metadata["comment"] = comment
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(quality), "preset": "medium"}
        if height * width <= _SMALL:
            stream.options |= {"x264-params": "mbtree=0"}
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        for image in frames:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(
                stream.encode(rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"))
            )
        container.mux(stream.encode())


def write_png(path: Path | str, image: NDArray[np.uint8], comment: str | None = None) -> None:
    """Write one frame (Y, X, 3) without loss, whole or not at all. `comment` goes to the file's metadata."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = PngInfo()
    if comment is not None:
        written.add_itxt("comment", comment)
    with replacing_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=written)


def write_contact_sheet(
    path: Path | str, clips: Sequence[Frames], columns: int = 8, gap: int = 2, texts: Sequence[str] = ()
) -> None:
    """Write a PNG with one row per clip and up to `columns` frames of it, evenly spaced from first to last.

    `texts`: what stands below each row, such as its prompt.
    """
    import numpy as np
    from PIL import Image

    assert clips, "a contact sheet needs a clip"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = clips[0].shape[1:3]
    columns = min(columns, max(len(clip) for clip in clips))
    scale = max(1, math.ceil(64 / max(height, width)))
    below = -(-_TEXT_HEIGHT // scale) if texts else 0
    step = height + below + gap
    sheet = np.full((len(clips) * step - gap, columns * (width + gap) - gap, 3), 128, np.uint8)
    for row, clip in enumerate(clips):
        picks = np.linspace(0, len(clip) - 1, min(columns, len(clip))).round().astype(int)
        for column, pick in enumerate(picks):
            top, left = row * step, column * (width + gap)
            sheet[top : top + height, left : left + width] = clip[pick]
    image = Image.fromarray(sheet)
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    for row, text in enumerate(texts):
        _write_line(image, (row * step + height) * scale, text)
    with replacing_file(path) as temporary:
        image.save(temporary, format="PNG")


def _write_line(image: Any, top: int, text: str) -> None:
    """One line of text at `top`, black on a picture, cut where the picture ends."""
    from PIL import ImageDraw, ImageFont

    draw, font, line = ImageDraw.Draw(image), ImageFont.load_default(_TEXT_HEIGHT - 4), " ".join(text.split())
    while line and draw.textlength(line, font=font) > image.width - 4:
        line = line[:-2].rstrip("…") + "…" if len(line) > 2 else ""
    draw.text((2, top + 1), line, fill=(0, 0, 0), font=font)
