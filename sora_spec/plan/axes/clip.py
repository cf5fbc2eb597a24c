"""Axes of the clip: its size, its length, its frame rate; and the crops on which a VAE is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.language.facts import temporal_facts, vae_facts
from sora_spec.language.rules.problem import counted
from sora_spec.language.shapes import frame_unit, latent_frames, pixel_frames
from sora_spec.plan.axes.axis import Axis, Change, Ease, Solved, nearest, put, trains_vae, whole_number
from sora_spec.recipe.training import vae_crop

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.plan.job import Job

SIDES = (64, 96, 128, 160, 192, 224, 256, 320, 360, 384, 432, 480, 512, 576, 640, 720, 768, 1024, 1080, 1440, 2160)
SECONDS = (0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60)
RATES = (8, 10, 12, 15, 16, 24, 25, 30, 50, 60)
CROPS = (512, 384, 256, 192, 128, 64, 32)
"""Sides of a VAE's training crops, in pixels."""
MOST_POINTS = 12
"""Of a curve."""
_MOST_FRAMES = 4096
_LARGEST, _REACH = 8.0, 2.0
"""How much longer and larger than the spec's clip others are tried, and drawn in a curve."""

Size = tuple[int, int]


def frame_counts(spec: Spec, most: int) -> list[int]:
    """Numbers of frames up to `most` that make whole tokens, ascending."""
    limit, unit = latent_frames(spec, most), frame_unit(spec)
    counts = [pixel_frames(spec, count) for count in range(unit, limit + 1, unit)]
    if not temporal_facts(spec.temporal).moves:
        return [count for count in counts if count == spec.clip.frames]
    return [count for count in counts if _shares_tokens(spec, latent_frames(spec, count) // spec.patch.time, None)]


def sizes(spec: Spec, largest: float = 1.0) -> list[Size]:
    """Heights and widths of nearly the clip's aspect, ascending, up to `largest` times its own sides."""
    step = spec.vae.compression.space * spec.patch.space
    rows, columns = spec.clip.height // step, spec.clip.width // step
    short, window = min(rows, columns), temporal_facts(spec.temporal).multiples
    found: list[Size] = []
    for side in range(1, int(short * largest) + 1):
        scale = side / short
        size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
        if not (size[0] % window[1] or size[1] % window[2]) and _shares_tokens(spec, None, size):
            found.append((size[0] * step, size[1] * step))
    return found


def _shares_tokens(spec: Spec, frames: int | None, size: Size | None) -> bool:
    """Whether the ranks of a sequence group can share the tokens evenly."""
    if spec.parallel.sequence == 1:
        return True
    step = spec.vae.compression.space * spec.patch.space
    frames = frames or latent_frames(spec, spec.clip.frames) // spec.patch.time
    rows, columns = size or (spec.clip.height // step, spec.clip.width // step)
    return frames * rows * columns % spec.parallel.sequence == 0


def _moves(job: Job) -> bool:
    return temporal_facts(job.spec.temporal).moves


def spread(values: Sequence[int], own: int) -> list[int]:
    """At most `MOST_POINTS` of ascending values, evenly spaced, with both ends and the one that was asked for."""
    if len(values) > MOST_POINTS:
        last = len(values) - 1
        values = [values[round(number * last / (MOST_POINTS - 1))] for number in range(MOST_POINTS)]
    return sorted({*values, own})


def _own_size(job: Job) -> Size:
    return job.spec.clip.height, job.spec.clip.width


def _usual_sizes(job: Job) -> list[Size]:
    """Sizes of nearly the same aspect whose short side is near a usual one."""
    workable = sizes(job.spec, max(1.0, SIDES[-1] / min(_own_size(job))))
    near = {min(workable, key=lambda size: abs(min(size) - side)) for side in SIDES if workable}
    return sorted(near, key=lambda size: size[0] * size[1])


def _read_size(job: Job, text: str) -> Size:
    both = re.fullmatch(r"(\d{1,5})\s*[x×X*, ]\s*(\d{1,5})", text)
    if both:
        return int(both[1]), int(both[2])
    short = re.fullmatch(r"(\d{1,5})\s*p?", text)
    if not short:
        raise UserError(f"{text!r} is no size", "height×width such as 480x848, or a short side such as 480p")
    side = int(short[1])
    workable = sizes(job.spec, max(1.0, 1.2 * side / min(_own_size(job))))
    if not workable:
        raise UserError(f"no size near {side} suits the VAE and the patches")
    return min(workable, key=lambda size: abs(min(size) - side))


def _few_sizes(job: Job) -> list[Size]:
    widths = dict(sizes(job.spec, _REACH))
    return [(height, widths[height]) for height in spread(sorted(widths), job.spec.clip.height)]


def _smaller_sizes(job: Job) -> Ease | None:
    height, width = _own_size(job)
    widths = dict(size for size in reversed(sizes(job.spec)) if size[0] < height and size[1] <= width)
    near = nearest(sorted(widths), [height * share for share in (0.75, 0.5, 0.25)])
    settings = [(f"{h}x{widths[h]} instead of {height}x{width}", _sized(job, (h, widths[h]))) for h in near]
    return None if trains_vae(job) else Ease(11, 4.0, settings)


def _sized(_: Job, size: Size) -> Change:
    return Change({"clip.height": size[0], "clip.width": size[1]})


def _usual_frames(job: Job) -> list[int]:
    wanted = [seconds * job.spec.clip.fps for seconds in SECONDS]
    workable = frame_counts(job.spec, max(1, int(wanted[-1])))
    return sorted({*nearest(workable, wanted), *workable[:1]})


def _read_frames(job: Job, text: str) -> int:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d{1,3})?)\s*(s|sec|seconds|f|frames?)?", text)
    if not found:
        raise UserError(f"{text!r} is no length", "frames such as 81, or seconds such as 5s")
    if not (found[2] or "").startswith("s"):
        return int(float(found[1]))
    wanted = float(found[1]) * job.spec.clip.fps
    workable = frame_counts(job.spec, max(1, int(2 * wanted + 16)))
    if not workable:
        raise UserError("the VAE and the patches leave the length no choice")
    return nearest(workable, [wanted])[0]


def _lengthened(job: Job, frames: int) -> Change:
    """Another length; the exported range follows."""
    exported = job.spec.export.frames
    if exported is None or exported[0] <= frames <= exported[1]:
        return Change({"clip.frames": frames})
    return Change({"clip.frames": frames, "export.frames": (min(exported[0], frames), max(exported[1], frames))})


def _every_frames(job: Job) -> list[int]:
    counts, exported = frame_counts(job.spec, _MOST_FRAMES), job.spec.export.frames
    if exported is not None and "export.frames" in job.typed:
        counts = [count for count in counts if exported[0] <= count <= exported[1]]
    if len(counts) < 2 and not _moves(job):
        raise UserError(f"{job.spec.name} sees every frame on its own: its clip has no length to solve for")
    return counts


def _few_frames(job: Job) -> list[int]:
    own = job.spec.clip.frames
    return spread(frame_counts(job.spec, max(2, int(own * _REACH))), own) if _moves(job) else []


def _fewer_frames(job: Job) -> Ease | None:
    have = job.spec.clip.frames
    counts = [count for count in frame_counts(job.spec, have) if count < have]
    near = nearest(counts, [have * share for share in (0.75, 0.5, 0.25, 0.1)])
    settings = [(f"{count} frames instead of {have}", _lengthened(job, count)) for count in near]
    return None if trains_vae(job) else Ease(10, 4.0, settings)


def _read_rate(_: Job, text: str) -> float:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text) or not 0 < float(text) <= 1000:
        raise UserError(f"{text!r} is no frame rate", "frames a second, such as 16 or 23.976")
    return float(text) if "." in text else int(text)


def _crops(job: Job) -> list[int]:
    """Smaller squares of the clip, in steps of the VAE's compression."""
    clip, step = job.spec.clip, job.spec.vae.compression.space
    return [side for side in reversed(CROPS) if side <= min(clip.height, clip.width) and side % step == 0]


def _smaller_crops(job: Job) -> Ease | None:
    if not trains_vae(job):
        return None
    crop = vae_crop(job.spec)
    low, high = sorted((crop.height, crop.width))
    sides = [side for side in reversed(_crops(job)) if side <= low and side < high]
    words = f"pixels instead of {crop.height}x{crop.width}"
    return Ease(12, 1.5, [(f"crops of {side}x{side} {words}", put("vae.training.crop")(job, side)) for side in sides])


def _crop_frames(job: Job, most: int) -> list[int]:
    """Fewer frames of the clip."""
    least = 2 if vae_facts(job.spec.vae).causal else 1  # such a VAE is there for time
    return [pixel_frames(job.spec, count) for count in range(least, latent_frames(job.spec, most))]


def _shorter_crops(job: Job) -> Ease | None:
    if not trains_vae(job):
        return None
    have = vae_crop(job.spec).frames
    near = nearest(_crop_frames(job, have), [have * share for share in (0.5, 0.25, 0.1, 0.01)])
    settings = [(f"crops of {n} frames instead of {have}", put("vae.training.frames")(job, n)) for n in near]
    return Ease(13, 1.6, settings)


CLIP_AXES = (
    Axis(
        *("resolution", "size", "Height and width of the clip in pixels. Type 480x848, or 480p for the same aspect."),
        own=_own_size,
        usual=_usual_sizes,
        change=_sized,
        words=lambda _, size: f"{size[0]}×{size[1]}",
        scale=lambda size: size[0] * size[1],
        read=_read_size,
        results=True,
        ease=_smaller_sizes,
        solved=Solved(
            every=lambda job: sizes(job.spec, _LARGEST),
            few=_few_sizes,
            words=lambda _, size: f"{size[0]}x{size[1]}",
            x=lambda _, size: size[0],
        ),
    ),
    Axis(
        *("frames", "length", "Frames of the clip. Type 81, or 5s for seconds at the clip's frame rate."),
        own=lambda job: job.spec.clip.frames,
        usual=_usual_frames,
        change=_lengthened,
        words=lambda _, frames: counted(frames, "frame"),
        scale=float,
        read=_read_frames,
        applies=_moves,
        results=True,
        ease=_fewer_frames,
        solved=Solved(every=_every_frames, few=_few_frames, words=lambda _, frames: counted(frames, "frame")),
    ),
    Axis(
        *("fps", "frames a second", "clip.fps"),
        own=lambda job: job.spec.clip.fps,
        usual=lambda _: RATES,
        change=put("clip.fps"),
        words=lambda _, rate: f"{rate:g}",
        scale=float,
        read=_read_rate,
        applies=_moves,
        results=True,
    ),
    Axis(
        *("crop", "crop", "vae.training.crop"),
        own=lambda job: job.vae_training.crop,
        usual=lambda job: [*_crops(job), None],
        change=put("vae.training.crop"),
        words=lambda _, side: str(side or "the clip"),
        read=whole_number(8192),
        applies=trains_vae,
        results=True,
        ease=_smaller_crops,
    ),
    Axis(
        *("crop_frames", "crop's frames", "vae.training.frames"),
        own=lambda job: vae_crop(job.spec).frames,
        usual=lambda job: spread(_crop_frames(job, job.spec.clip.frames), job.spec.clip.frames),
        change=put("vae.training.frames"),
        scale=float,
        read=whole_number(4096),
        applies=lambda job: trains_vae(job) and job.spec.clip.frames > 1,
        results=True,
        ease=_shorter_crops,
    ),
)
