"""Knobs of the clip: its size, its length, its frame rate."""

from __future__ import annotations

import re

from sora_spec.errors import UserError
from sora_spec.language.changes import flow
from sora_spec.language.facts import temporal_facts
from sora_spec.plan.job import Question
from sora_spec.plan.knobs.field_knobs import help_at
from sora_spec.plan.knobs.knob import Knob, Setting, Situation
from sora_spec.plan.search.clip_sizes import frame_counts, sizes, with_frames

SIDES = (64, 96, 128, 160, 192, 224, 256, 320, 360, 384, 432, 480, 512, 576, 640, 720, 768, 1024, 1080, 1440, 2160)
SECONDS = (0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60)
RATES = (8, 10, 12, 15, 16, 24, 25, 30, 50, 60)


def _size_shown(at: Situation) -> str:
    return f"{at.spec.clip.height}×{at.spec.clip.width}"


def _sized(at: Situation, size: tuple[int, int]) -> Question:
    return at.question.having("clip.height", str(size[0])).having("clip.width", str(size[1]))


def _size_settings(at: Situation) -> list[Setting]:
    """Sizes of nearly the same aspect whose short side is near a usual one."""
    clip = at.spec.clip
    workable = sizes(at.spec, max(1.0, SIDES[-1] / min(clip.height, clip.width)))
    near = (min(workable, key=lambda size, side=side: abs(min(size) - side)) for side in SIDES if workable)
    return [Setting(f"{h}×{w}", _sized(at, (h, w)), h * w) for h, w in sorted(set(near), key=lambda s: s[0] * s[1])]


def _size_typed(at: Situation, text: str) -> Question:
    both = re.fullmatch(r"(\d{1,5})\s*[x×X*, ]\s*(\d{1,5})", text)
    if both:
        return _sized(at, (int(both[1]), int(both[2])))
    short = re.fullmatch(r"(\d{1,5})\s*p?", text)
    if not short:
        raise UserError(f"{text!r} is no size", "height×width such as 480x848, or a short side such as 480p")
    clip, side = at.spec.clip, int(short[1])
    workable = sizes(at.spec, max(1.0, 1.2 * side / min(clip.height, clip.width)))
    if not workable:
        raise UserError(f"no size near {side} suits the VAE and the patches")
    return _sized(at, min(workable, key=lambda size: abs(min(size) - side)))


def _length_shown(at: Situation) -> str:
    clip = at.spec.clip
    return f"{clip.frames} frames" if clip.frames != 1 else "1 frame"


def _length(at: Situation, frames: int) -> Question:
    changed = at.question
    for path, value in with_frames(at.spec, frames).items():
        changed = changed.having(path, flow(value))
    return changed


def _workable_frames(at: Situation, most: float) -> list[int]:
    return frame_counts(at.spec, max(1, int(most)))


def _length_settings(at: Situation) -> list[Setting]:
    fps = at.spec.clip.fps
    workable = _workable_frames(at, SECONDS[-1] * fps)
    chosen = {min(workable, key=lambda n, wanted=s * fps: abs(n - wanted)) for s in SECONDS if workable}
    chosen |= set(workable[:1])
    return [Setting(f"{n} frames" if n != 1 else "1 frame", _length(at, n), n) for n in sorted(chosen)]


def _length_typed(at: Situation, text: str) -> Question:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d{1,3})?)\s*(s|sec|seconds|f|frames?)?", text)
    if not found:
        raise UserError(f"{text!r} is no length", "frames such as 81, or seconds such as 5s")
    number, unit = float(found[1]), found[2] or ""
    if not unit.startswith("s"):
        return _length(at, int(number))
    wanted = number * at.spec.clip.fps
    workable = _workable_frames(at, 2 * wanted + 16)
    if not workable:
        raise UserError("the VAE and the patches leave the length no choice")
    return _length(at, min(workable, key=lambda n: abs(n - wanted)))


def _rate_shown(at: Situation) -> str:
    return f"{at.spec.clip.fps:g}"


def _rate_typed(at: Situation, text: str) -> Question:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text) or not 0 < float(text) <= 1000:
        raise UserError(f"{text!r} is no frame rate", "frames a second, such as 16 or 23.976")
    return at.question.having("clip.fps", text)


CLIP_KNOBS: tuple[Knob, ...] = (
    Knob(
        *("size", "size", "Height and width of the clip in pixels. Type 480x848, or 480p for the same aspect."),
        shown=_size_shown,
        settings=_size_settings,
        place=lambda at: at.spec.clip.height * at.spec.clip.width,
        typed=_size_typed,
    ),
    Knob(
        *("length", "length", "Frames of the clip. Type 81, or 5s for seconds at the clip's frame rate."),
        shown=_length_shown,
        settings=_length_settings,
        place=lambda at: at.spec.clip.frames,
        typed=_length_typed,
        applies=lambda at: temporal_facts(at.spec.temporal).moves,
    ),
    Knob(
        *("fps", "frames a second", help_at("clip.fps")),
        shown=_rate_shown,
        settings=lambda at: [Setting(f"{n}", at.question.having("clip.fps", str(n)), n) for n in RATES],
        place=lambda at: at.spec.clip.fps,
        typed=_rate_typed,
        applies=lambda at: temporal_facts(at.spec.temporal).moves,
    ),
)
