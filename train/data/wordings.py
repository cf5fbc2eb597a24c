"""Sentences about moving digits: several ways to say each thing, and others that are kept back for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

Direction = Literal["left", "right", "up", "down"]
Speed = Literal["slow", "fast"]
Place = Literal["whole", "top", "bottom", "left", "right"]
"""Where a digit is seen: anywhere in the frame, or in one half of it."""
Wording = Literal["plain", "sentence", "words", "phrases", "all"]
"""What of a caption is new: nothing, as in training; the sentence as a whole; noun, verb and form; the phrases for
direction and speed; all of these."""
HELD_OUT: tuple[Wording, ...] = ("sentence", "words", "phrases", "all")

_Ways: TypeAlias = Sequence[str]
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Seen:
    """What is seen of one digit."""

    digit: int
    direction: Direction
    speed: Speed
    place: Place = "whole"


@dataclass(frozen=True)
class Phrases:
    """Ways to say a thing."""

    nouns: _Ways
    verbs: _Ways
    forms: _Ways
    pairs: _Ways
    directions: Mapping[Direction, _Ways]
    speeds: Mapping[Speed, _Ways]


_TRAINED = Phrases(
    nouns=("{a} {name}", "the digit {name}", "a handwritten {digit}", "the number {digit}"),
    verbs=("drifts", "moves", "slides", "glides", "travels"),
    forms=(
        "{noun} {verb} {where}, {how}",
        "{how}, {noun} {verb} {where}",
        "{noun} that {verb} {where} {how}",
        "on black, {noun} {verb} {how} {where}",
    ),
    pairs=("{first}, and {beside} {second}", "two digits: {here} {first}, {there} {second}"),
    directions={
        "left": ("to the left", "leftwards"),
        "right": ("to the right", "rightwards"),
        "up": ("to the top", "upwards"),
        "down": ("to the bottom", "downwards"),
    },
    speeds={"slow": ("slowly", "at a slow pace"), "fast": ("quickly", "at a fast pace")},
)
_KEPT_BACK = Phrases(
    nouns=("the figure {name}", "a white {digit}"),
    verbs=("floats", "heads"),
    forms=("a video of {noun}: it {verb} {where} {how}", "we see {noun} as it {verb} {how} {where}"),
    pairs=("{here} {first}, while {there} {second}",),
    directions={
        "left": ("towards the left edge", "to the left-hand side"),
        "right": ("towards the right edge", "to the right-hand side"),
        "up": ("towards the upper edge", "up the frame"),
        "down": ("towards the lower edge", "down the frame"),
    },
    speeds={"slow": ("unhurriedly", "at low speed"), "fast": ("rapidly", "at high speed")},
)
_BESIDE: Mapping[Place, str] = {"bottom": "below it", "right": "to its right"}
_THERE: Mapping[Place, str] = {
    "top": "at the top",
    "bottom": "at the bottom",
    "left": "on the left",
    "right": "on the right",
}


def phrases_of(wording: Wording) -> Phrases:
    """The ways of a wording: those of training, with what is new put in their place."""
    words = _KEPT_BACK if wording in ("words", "all") else _TRAINED
    phrases = _KEPT_BACK if wording in ("phrases", "all") else _TRAINED
    return replace(words, directions=phrases.directions, speeds=phrases.speeds)


def caption_of(seen: Sequence[Seen], wording: Wording, rng: np.random.Generator) -> str:
    """One sentence about one digit, or about two: the upper or left one first."""
    ways = phrases_of(wording)
    if len(seen) == 1:
        return _clause(seen[0], _one(ways.forms, rng), ways, rng)
    first, second = (_clause(each, "{noun} {verb} {where} {how}", ways, rng) for each in seen)
    return _one(ways.pairs, rng).format(
        first=first,
        second=second,
        here=_THERE[seen[0].place],
        there=_THERE[seen[1].place],
        beside=_BESIDE[seen[1].place],
    )


def _clause(seen: Seen, form: str, ways: Phrases, rng: np.random.Generator) -> str:
    name = _NAMES[seen.digit]
    noun = _one(ways.nouns, rng).format(a="an" if name == "eight" else "a", name=name, digit=seen.digit)
    where, how = _one(ways.directions[seen.direction], rng), _one(ways.speeds[seen.speed], rng)
    return form.format(noun=noun, verb=_one(ways.verbs, rng), where=where, how=how)


def _one(ways: _Ways, rng: np.random.Generator) -> str:
    return ways[int(rng.integers(len(ways)))]
