"""Moving digits with sentences about what is seen: which digit, in which direction, how fast; two in some clips.

Directions are four and speeds two, so that a sentence says all of the motion. A digit goes straight on for the whole
file: a slow one over about a third of its room, a fast one over nearly all of it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sora_spec import output
from sora_spec.train.data.digits import SOURCE, Split, draw, split_samples, to_frames
from sora_spec.train.data.made import MadeFolder, record_made
from sora_spec.train.data.wordings import HELD_OUT, Direction, Place, Seen, Speed, Wording, caption_of
from sora_spec.video import write_mp4

MADE_BY = "sora-spec data digits --captions"
TRUTH = "truth.json"
LISTS = {"train": "captions.csv", "test": "held-out.csv"}
FOLDERS = {"train": "clips", "test": "held-out"}
SHARE, PAIR_SHARE = 0.6875, 0.4375
"""Side of the digit in shares of the frame's: 22 of 32 pixels where it is alone, 14 in one of two halves."""
STEPS: dict[Direction, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Rows and columns that a digit goes on in a direction."""
TRAVEL: dict[Speed, tuple[float, float]] = {"slow": (0.3, 0.42), "fast": (0.85, 1.0)}
"""Way over the whole file, in shares of the room of a digit that is alone."""
_PAIRED = 0.2  # of the clips
_OWN = 3  # keeps these streams apart from those of the clips with labels
_ATTEMPTS = 100


@dataclass(frozen=True)
class CaptionedRecipe:
    """What decides clips and captions, byte for byte under one x264."""

    clips: int = 1000
    held_out: int = 200
    """Clips that are kept back, of handwriting and with captions that no other clip has."""
    frames: int = 16
    size: int = 32
    fps: float = 8.0
    seed: int = 0


@dataclass(frozen=True)
class Glyph:
    """One digit of a clip: which handwritten sample, and its path over the frame."""

    seen: Seen
    picture: NDArray[np.float64]
    """(8, 8) in [0, 1]"""
    corner: NDArray[np.float64]
    """Top and left edge in pixels, per frame: (T, 2)."""

    @property
    def speed(self) -> float:
        """Pixels a frame."""
        return float(np.abs(np.diff(self.corner, axis=0)).sum(1).mean()) if len(self.corner) > 1 else 0.0


@dataclass(frozen=True)
class CaptionedClip:
    """One clip with its sentence."""

    number: int
    split: Split
    caption: str
    wording: Wording
    glyphs: tuple[Glyph, ...]

    @property
    def path(self) -> str:
        """Where it lies below the data set's folder."""
        return f"{FOLDERS[self.split]}/{self.number:05d}.mp4"

    def frames(self, size: int) -> NDArray[np.uint8]:
        """Frames (T, size, size, 3)."""
        share = share_of(len(self.glyphs))
        return to_frames(np.sum([draw(glyph.picture, glyph.corner, size, share) for glyph in self.glyphs], axis=0))

    def truth(self) -> dict[str, object]:
        """What is seen, as `truth.json` has it."""
        digits = [asdict(glyph.seen) | {"pixels_per_frame": round(glyph.speed, 4)} for glyph in self.glyphs]
        return {"caption": self.caption, "wording": self.wording, "digits": digits}


def share_of(digits: int) -> float:
    """Side of each of so many digits, in shares of the frame's."""
    return SHARE if digits == 1 else PAIR_SHARE


def plan_captioned(recipe: CaptionedRecipe) -> Iterator[CaptionedClip]:
    """The clips to train on, then those held out, whose captions are none of the former. Digits in turn."""
    trained: set[str] = set()
    for clip in _plan(recipe, "train", recipe.clips, trained):
        trained.add(clip.caption)
        yield clip
    yield from _plan(recipe, "test", recipe.held_out, trained)


def _plan(recipe: CaptionedRecipe, split: Split, clips: int, trained: set[str]) -> Iterator[CaptionedClip]:
    images, labels = split_samples(split)
    by_class = [images[labels == label] for label in range(10)]
    for number in range(clips):
        key = (recipe.seed, _OWN, ("train", "test").index(split), number)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        seen = _draw_seen(number % 10, rng)
        glyphs = tuple(Glyph(each, _one_of(by_class[each.digit], rng), _corner(each, recipe, rng)) for each in seen)
        wording = HELD_OUT[number // 10 % len(HELD_OUT)] if split == "test" else "plain"
        yield CaptionedClip(number, split, _caption(seen, wording, trained, rng), wording, glyphs)


def _draw_seen(digit: int, rng: np.random.Generator) -> tuple[Seen, ...]:
    """One digit, or two in halves of the frame, which go along them."""
    halves: tuple[Place, Place] = ("top", "bottom") if rng.random() < 0.5 else ("left", "right")
    places: tuple[Place, ...] = halves if rng.random() < _PAIRED else ("whole",)
    directions: tuple[Direction, ...] = tuple(STEPS)
    if len(places) == 2:
        directions = ("left", "right") if halves[0] == "top" else ("up", "down")
    speeds: tuple[Speed, ...] = tuple(TRAVEL)
    return tuple(
        Seen(
            digit if place == places[0] else int(rng.integers(10)),
            directions[int(rng.integers(len(directions)))],
            speeds[int(rng.integers(len(speeds)))],
            place,
        )
        for place in places
    )


def _one_of(pictures: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return pictures[int(rng.integers(len(pictures)))]


def _corner(seen: Seen, recipe: CaptionedRecipe, rng: np.random.Generator) -> NDArray[np.float64]:
    """A straight path that stays in the digit's part of the frame."""
    size, share = recipe.size, share_of(1 if seen.place == "whole" else 2)
    top, left, bottom, right = part_of(seen.place)
    least = np.array([top, left]) * size
    room = np.array([bottom - top - share, right - left - share]) * size
    way = rng.uniform(*TRAVEL[seen.speed]) * (1 - SHARE) * size
    step = np.array(STEPS[seen.direction])
    start = rng.random(2) * (room - np.abs(step) * way) + np.where(step < 0, way, 0)
    along = np.arange(recipe.frames) / max(1, recipe.frames - 1)
    return least + start + along[:, None] * way * step


def part_of(place: Place) -> tuple[float, float, float, float]:
    """Top, left, bottom and right edge of a place, in shares of the frame's side."""
    bounds = {"top": (0, 0, 0.5, 1), "bottom": (0.5, 0, 1, 1), "left": (0, 0, 1, 0.5), "right": (0, 0.5, 1, 1)}
    return bounds.get(place, (0, 0, 1, 1))


def _caption(seen: tuple[Seen, ...], wording: Wording, trained: set[str], rng: np.random.Generator) -> str:
    """A sentence; where one is held out, a sentence that no clip to train on has."""
    for _ in range(_ATTEMPTS):
        caption = caption_of(seen, wording, rng)
        if wording == "plain" or caption not in trained:
            return caption
    raise AssertionError("every sentence about these digits is taken")  # there are hundreds about each


def write_captioned(folder: Path, recipe: CaptionedRecipe, force: bool = False) -> None:
    """Write clips with `captions.csv`, held-out ones with `held-out.csv`, `truth.json` and `dataset.json`.

    Raises UserError when the folder holds anything, unless `force` is given and this program made all of it.
    """
    with MadeFolder(folder, force).filling() as target:
        for name in FOLDERS.values():
            (target / name).mkdir()

        def write(clip: CaptionedClip) -> CaptionedClip:
            write_mp4(target / clip.path, clip.frames(recipe.size), recipe.fps, quality=10)
            return clip

        with output.progress("writing clips", recipe.clips + recipe.held_out) as advance, ThreadPoolExecutor(2) as pool:
            clips = [clip for clip in pool.map(write, plan_captioned(recipe)) if advance(1) is None]
        for split, name in LISTS.items():
            with (target / name).open("w", newline="", encoding="utf-8") as file:
                rows = [(clip.path, clip.caption) for clip in clips if clip.split == split]
                csv.writer(file, lineterminator="\n").writerows([("path", "caption"), *rows])
        truth = {clip.path: clip.truth() for clip in clips}
        (target / TRUTH).write_text(json.dumps(truth, indent=1) + "\n")
        about = "handwritten digits moving over the frame, with a sentence about each clip"
        record_made(target, MADE_BY, about, SOURCE, recipe=asdict(recipe))
