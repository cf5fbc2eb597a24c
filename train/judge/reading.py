"""Judges of moving digits, which know real handwriting and the way clips are drawn, and no generated clip.

Which digit: a support-vector machine that has seen the real pictures of scikit-learn's training split. In every frame
the digit is looked for where the most light is; the frames of a clip vote with their decision values. Whereto and how
fast: the centre of light, frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora_spec.train.data.digits import draw, split_samples, to_frames
from sora_spec.train.judge.asked import Asked, Digit

Grey = NDArray[np.float64]
"""(T, Y, X) in [0, 1]"""
_DRAWN = 2  # times that each handwritten picture is drawn to learn from
_NOISE = 0.04  # deviation of what is added to these, in place of what encoding leaves
READER = (
    "SVC(gamma=0.001, C=10) on the pictures of load_digits' training split, "
    f"each drawn {_DRAWN} times with noise of {_NOISE} and cut out to 8x8"
)
_DARK = 0.15  # light below it is the background


@dataclass(frozen=True)
class Verdict:
    """What is seen in the place of one digit."""

    digit: int
    direction: str
    velocity: float
    """Pixels a frame along the direction: the slope of a straight line through the centres of light."""
    speed: float
    """Pixels a frame, the mean over all steps whatever their direction."""
    picture: NDArray[np.float64]
    """Of the middle frame: (64,), values 0 to 16."""


def see(clip: Grey, asked: Asked) -> list[Verdict]:
    """One verdict for each digit that was asked for, looked at in its part of the frame."""
    size = clip.shape[1]
    return [
        _see(part_of_clip(clip, digit), round(digit.share * size), machine(digit.share, size)) for digit in asked.digits
    ]


def _see(part: Grey, side: int, reader: Any) -> Verdict:
    pictures = np.stack([picture_of(frame, side) for frame in part])
    votes = reader.decision_function(pictures).sum(0)
    centres = centres_of_light(part)
    slope = _slope(centres)
    axis = int(np.abs(slope).argmax())
    direction = (("up", "down"), ("left", "right"))[axis][int(slope[axis] > 0)]
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    speed = float(steps.mean()) if len(steps) else 0.0
    return Verdict(int(votes.argmax()), direction, float(abs(slope[axis])), speed, pictures[len(part) // 2])


@lru_cache(maxsize=8)
def machine(share: float, size: int) -> Any:
    """One that has learnt real handwriting, each picture drawn at several places and cut out as from a clip."""
    from sklearn.svm import SVC

    images, labels = split_samples("train")
    rng = np.random.default_rng(0)
    places = rng.random((_DRAWN, len(images), 1, 2)) * (1 - share) * size
    frames = [
        to_frames(draw(image, place, size, share))[0, ..., 0] / 255
        for once in places
        for image, place in zip(images, once, strict=True)
    ]
    pictures = [
        picture_of(np.clip(frame + rng.normal(0, _NOISE, frame.shape), 0, 1), round(share * size)) for frame in frames
    ]
    learnt: Any = SVC(C=10).set_params(gamma=0.001)
    return learnt.fit(np.stack(pictures), np.tile(labels, _DRAWN))


def part_of_clip(clip: Grey, digit: Digit) -> Grey:
    """The half of the frame in which a digit is asked for, or all of it."""
    top, left, bottom, right = digit.part
    height, width = clip.shape[1:]
    return clip[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def picture_of(frame: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The brightest box of the digit's size, averaged down to 8×8 with values 0 to 16, as the machine knows them."""
    from PIL import Image

    sums = np.pad(frame, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    light = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(light.argmax(), light.shape)
    box = Image.fromarray((frame[top : top + side, left : left + side] * 16).astype(np.float32))
    return np.asarray(box.resize((8, 8), Image.Resampling.BOX), np.float64).ravel()


def centres_of_light(clip: Grey) -> NDArray[np.float64]:
    """Row and column of the centre of light in every frame, in pixels: (T, 2). The middle where all is dark."""
    light = np.clip(clip - _DARK, 0, None) + 1e-9
    mass = light.sum((1, 2))
    rows, columns = (np.arange(side) + 0.5 for side in clip.shape[1:])
    return np.stack([light.sum(2) @ rows / mass, light.sum(1) @ columns / mass], axis=1)


def _slope(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels a frame in rows and columns, by least squares."""
    time = np.arange(len(centres)) - (len(centres) - 1) / 2
    return time @ centres / max(float(time @ time), 1.0)
