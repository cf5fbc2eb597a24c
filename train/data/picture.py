"""From decoded frames to the training picture: how large to scale, where to crop, whether to mirror."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Frames (T, Y, X, 3)."""


@dataclass(frozen=True)
class Framing:
    """How a file's frames become clips of `height` × `width`.

    `zoom` above 1 lets the scale vary: the picture is scaled to between 1 and `zoom` times what just covers the clip,
    but never blown up further than that.
    """

    height: int
    width: int
    train: bool = True
    """Start and crop at random places and mirror at random; otherwise start at 0 and crop the centre."""
    flip: bool = False
    center: bool = False
    """Crop the centre in training, too; stills are scaled as ADM does (`halved_size`)."""
    zoom: float = 1.0


def covering_size(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Smallest (height, width) of the source's aspect that covers `target`; sides are rounded up to whole pixels."""
    factor = max(target[0] / source[0], target[1] / source[1])
    height, width = (max(aim, round(side * factor)) for side, aim in zip(source, target, strict=True))
    return height, width


def halved_size(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Size of a still after ADM's halvings: while both sides are at least twice the target's, by means over 2×2 boxes.

    Source: `center_crop_arr` of guided-diffusion, on which DiT and SiT train, and Open-Sora 1.0 on images; it goes on
    with a bicubic scaling that just covers the target. The target is a square there.
    """
    height, width = source
    while height >= 2 * target[0] and width >= 2 * target[1]:
        height, width = height // 2, width // 2
    return height, width


def scaled_size(source: tuple[int, int], framing: Framing, uniform: float) -> tuple[int, int]:
    """Size to scale to, where `uniform` in [0, 1) picks the zoom, log-uniformly.

    The zoom stops at the source's own resolution: nothing is learned from blown-up pixels.
    """
    target = (framing.height, framing.width)
    cover = covering_size(source, target)
    largest = max(1.0, min(framing.zoom, source[0] / cover[0]))
    factor = math.exp(uniform * math.log(largest))
    return covering_size(source, (max(1, round(cover[0] * factor)), max(1, round(cover[1] * factor))))


def crop(frames: Pixels, framing: Framing, uniform: tuple[float, float, float]) -> Pixels:
    """Cut (T, height, width, 3) out of frames that cover it; three numbers in [0, 1) pick row, column and mirror."""
    spare_rows, spare_columns = frames.shape[1] - framing.height, frames.shape[2] - framing.width
    assert spare_rows >= 0, frames.shape
    assert spare_columns >= 0, frames.shape
    if framing.train and not framing.center:
        top, left = int(uniform[0] * (spare_rows + 1)), int(uniform[1] * (spare_columns + 1))
    else:
        top, left = spare_rows // 2, spare_columns // 2
    cut = frames[:, top : top + framing.height, left : left + framing.width]
    if framing.train and framing.flip and uniform[2] < 0.5:
        cut = cut[:, :, ::-1]
    return np.ascontiguousarray(cut)
