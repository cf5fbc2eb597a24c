"""What a clip was asked to show, and real clips that show the same: a data set of digits, drawn anew by its recipe.

A data set that `data digits` made says in `dataset.json` how. So the judges need that file alone, not the clips.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora_spec.errors import UserError
from sora_spec.train.data import captioned_digits, digits
from sora_spec.train.data.captioned_digits import CaptionedClip, CaptionedRecipe, plan_captioned
from sora_spec.train.data.digits import DigitsRecipe, Split, plan_clips, render
from sora_spec.train.data.made import RECORD

_HOW = "name a data set that `sora-spec data digits` made: --data FOLDER"


@dataclass(frozen=True)
class Digit:
    """One digit that is asked for; direction and speed None where they are not."""

    digit: int
    direction: str | None = None
    speed: str | None = None
    part: tuple[float, float, float, float] = (0, 0, 1, 1)
    """Top, left, bottom and right edge of the part of the frame that it is in, in shares."""
    share: float = digits.SHARE
    """Of the frame's height that the digit takes."""


@dataclass(frozen=True)
class Asked:
    """What one clip was asked to show. `prompt`: a class number as text, or a caption."""

    prompt: str
    digits: tuple[Digit, ...]
    wording: str | None = None
    """Which of the caption's words were never trained on."""


@dataclass(frozen=True)
class Drawn:
    """A real clip before it is encoded: frames (T, Y, X, 3), and what it shows."""

    frames: NDArray[np.uint8]
    shows: Asked


@dataclass(frozen=True)
class DigitsData:
    """A data set of moving digits by its recipe."""

    recipe: DigitsRecipe | CaptionedRecipe

    @property
    def captioned(self) -> bool:
        """Whether clips are asked for by sentences."""
        return isinstance(self.recipe, CaptionedRecipe)

    @property
    def threshold(self) -> float | None:
        """Pixels between two frames of a file, at the recipe's size, that separate slow from fast."""
        if isinstance(self.recipe, DigitsRecipe) or self.recipe.frames < 2:
            return None
        travel = (captioned_digits.TRAVEL["slow"][1] + captioned_digits.TRAVEL["fast"][0]) / 2
        return travel * (1 - captioned_digits.SHARE) * self.recipe.size / (self.recipe.frames - 1)

    def clips(self, split: Split, count: int) -> Iterator[Drawn]:
        """The first clips of a split, as the data set has them, and more of the same where it has fewer."""
        if isinstance(self.recipe, DigitsRecipe):
            for clip in plan_clips(replace(self.recipe, split=split, clips=count)):
                yield Drawn(render(clip, self.recipe.size), asked_class(clip.label))
            return
        for clip in self._captioned(split, count):
            yield Drawn(clip.frames(self.recipe.size), asked_caption(clip))

    def _captioned(self, split: Split, count: int) -> Iterator[CaptionedClip]:
        """Held-out captions are those that no clip to train on has, hence all of these are planned, too."""
        assert isinstance(self.recipe, CaptionedRecipe)
        trained, kept = self.recipe.clips, self.recipe.held_out
        wider = replace(self.recipe, held_out=max(kept, count))
        if split == "train":
            wider = replace(self.recipe, clips=max(trained, count))
        yield from islice((clip for clip in plan_captioned(wider) if clip.split == split), count)

    def asked(self, count: int) -> list[Asked]:
        """What a model is asked for: classes in turn, or the captions of held-out clips."""
        if isinstance(self.recipe, DigitsRecipe):
            return [asked_class(number % 10) for number in range(count)]
        return [asked_caption(clip) for clip in self._captioned("test", count)]

    def known(self, prompts: Sequence[str]) -> list[Asked]:
        """What each label or caption asks for. Raises UserError for one that the data set does not know."""
        if isinstance(self.recipe, DigitsRecipe):
            every = {str(label): asked_class(label) for label in range(10)}
        else:
            wider = replace(self.recipe, held_out=max(self.recipe.held_out, len(prompts)))
            every = {clip.caption: asked_caption(clip) for clip in plan_captioned(wider)}
        strange = next((prompt for prompt in prompts if prompt not in every), None)
        if strange is not None:
            raise UserError(f"no clip of the data set shows {strange!r}: the judges cannot tell what is right", _HOW)
        return [every[prompt] for prompt in prompts]


def asked_class(label: int) -> Asked:
    """A clip of a class."""
    return Asked(str(label), (Digit(label),))


def asked_caption(clip: CaptionedClip) -> Asked:
    """A clip of a caption."""
    share = captioned_digits.share_of(len(clip.glyphs))
    seen = (glyph.seen for glyph in clip.glyphs)
    shown = tuple(
        Digit(each.digit, each.direction, each.speed, captioned_digits.part_of(each.place), share) for each in seen
    )
    return Asked(clip.caption, shown, clip.wording)


def find_digits(source: str | Path) -> DigitsData:
    """The data set at `source`, a folder or a list in it. Raises UserError where it is no such data set."""
    folder = Path(source).expanduser()
    folder = folder if folder.is_dir() else folder.parent
    path = folder / RECORD
    try:
        about: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", _HOW) from None
    except ValueError:
        raise UserError(f"{path} is no JSON", _HOW) from None
    recipes: dict[Any, Any] = {"sora-spec data digits": DigitsRecipe, captioned_digits.MADE_BY: CaptionedRecipe}
    try:
        return DigitsData(recipes[about["made_by"]](**about["recipe"]))
    except (KeyError, TypeError):
        raise UserError(f"{path} is not of a data set of moving digits: the judges know no other", _HOW) from None
