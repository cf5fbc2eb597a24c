"""Real handwritten digits that move over the frame, written to disk as labelled video.

The pictures are the 1,797 samples of scikit-learn's `load_digits` (UCI optical recognition of handwritten digits, 8×8
pixels, 17 grey levels). Every fifth sample of a class is held out: the clips of the `test` split show handwriting that
no clip of the `train` split shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sora_spec import output
from sora_spec.train.data.made import MadeFolder, record_made
from sora_spec.video import write_mp4

Split = Literal["train", "test"]
_HELD_OUT = 5
_PICTURE = 8  # side of a handwritten sample in pixels
SHARE = 0.8125
"""Of the frame's side that the digit takes: 26 of 32 pixels."""
SOURCE = "scikit-learn load_digits: UCI Optical Recognition of Handwritten Digits (CC BY 4.0)"
_DIRECTIONS = ("right", "down and right", "down", "down and left", "left", "up and left", "up", "up and right")


@dataclass(frozen=True)
class DigitsRecipe:
    """What decides the clips, byte for byte under one x264."""

    clips: int = 1000
    frames: int = 16
    size: int = 32
    fps: float = 8.0
    split: Split = "train"
    seed: int = 0


@dataclass(frozen=True)
class DigitClip:
    """One clip: which handwritten sample, and its path over the frame."""

    number: int
    label: int
    picture: NDArray[np.float64]
    """(8, 8) in [0, 1]"""
    corner: NDArray[np.float64]
    """Top and left edge of the digit in pixels, per frame: (T, 2)."""
    direction: str
    """Of the motion at the start."""

    @property
    def path(self) -> str:
        """Where it lies below the data set's folder."""
        return f"{self.label}/{self.number:05d}.mp4"


@lru_cache(maxsize=2)
def split_samples(split: Split) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pictures (N, 8, 8) in [0, 1] and labels (N,) of a split; the splits share no sample."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images, labels = np.asarray(digits.images) / 16.0, np.asarray(digits.target).astype(np.int64)
    rank = np.zeros(len(labels), np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    chosen = (rank % _HELD_OUT == 0) == (split == "test")
    return images[chosen], labels[chosen]


def plan_clips(recipe: DigitsRecipe) -> Iterator[DigitClip]:
    """The clips of a recipe, classes in turn. Clip k depends on (seed, split, k) only."""
    images, labels = split_samples(recipe.split)
    by_class = [np.flatnonzero(labels == label) for label in range(10)]
    for number in range(recipe.clips):
        key = (recipe.seed, ("train", "test").index(recipe.split), number)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        label = number % 10
        picture = images[rng.choice(by_class[label])]
        start, angle = rng.random(2), rng.random() * 2 * np.pi
        speed = (0.5 + rng.random()) * recipe.size / 32
        room = recipe.size * (1 - SHARE)
        velocity = speed * np.array([np.sin(angle), np.cos(angle)])
        corner = bounce(start * room + np.arange(recipe.frames)[:, None] * velocity, room)
        yield DigitClip(number, label, picture, corner, _DIRECTIONS[round(angle / (np.pi / 4)) % 8])


def bounce(position: NDArray[np.float64], room: float) -> NDArray[np.float64]:
    """Fold straight motion into [0, room], as a ball between two walls moves: a triangle wave of period 2·room."""
    return room - np.abs(position % (2 * room) - room)


def render(clip: DigitClip, size: int) -> NDArray[np.uint8]:
    """Frames (T, size, size, 3): white on black, placed to a fraction of a pixel."""
    return to_frames(draw(clip.picture, clip.corner, size, SHARE))


def draw(picture: NDArray[np.float64], corner: NDArray[np.float64], size: int, share: float) -> NDArray[np.float64]:
    """Light (T, size, size) of a picture (8, 8) with its corner (T, 2) in pixels; its side is a `share` of `size`."""
    rows, columns = (_resampling(corner[:, axis], size, share) for axis in (0, 1))
    return np.einsum("tyi,ij,txj->tyx", rows, picture, columns)


def to_frames(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Frames (T, Y, X, 3) of light (T, Y, X), 1 being white."""
    frames = np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)
    return np.repeat(frames[..., None], 3, axis=-1)


def _resampling(edges: NDArray[np.float64], size: int, share: float) -> NDArray[np.float64]:
    """Weights (T, size, 8) that draw 8 samples as a `share` of `size` pixels from each edge on."""
    scale = size * share / _PICTURE
    centres = (np.arange(size)[None, :] + 0.5 - edges[:, None]) / scale - 0.5
    return _catmull_rom(centres[..., None] - np.arange(_PICTURE))


def _catmull_rom(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = −1/2 (IEEE TASSP 29, 1981)."""
    x = np.abs(x)
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def write_digits(folder: Path, recipe: DigitsRecipe, force: bool = False) -> None:
    """Write the clips of `recipe` below `folder`, one sub-folder per class, with `clips.jsonl` and `dataset.json`.

    Raises UserError when the folder holds anything, unless `force` is given and this program made all of it.
    """
    with MadeFolder(folder, force).filling() as target:
        for label in range(10):
            (target / str(label)).mkdir()

        def write(clip: DigitClip) -> str:
            write_mp4(target / clip.path, render(clip, recipe.size), recipe.fps, quality=10)
            caption = f"a handwritten {clip.label} moving {clip.direction}"
            return json.dumps({"path": clip.path, "label": clip.label, "caption": caption})

        with output.progress("writing clips", recipe.clips) as advance, ThreadPoolExecutor(2) as pool:
            lines = [line for line in pool.map(write, plan_clips(recipe)) if advance(1) is None]
        (target / "clips.jsonl").write_text("\n".join(lines) + "\n")
        record_made(
            target,
            "sora-spec data digits",
            "handwritten digits moving over the frame; labels are the sub-folders' names",
            SOURCE,
            recipe=asdict(recipe),
        )
