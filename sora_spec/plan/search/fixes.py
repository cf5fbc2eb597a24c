"""What would make a job fit: the smallest sets of changes, each with its price in time.

Every knob has settings from mild to strong. Sets of one, two and three knobs are tried, cheap ones first; a set is left
out when a part of it does the job. In a set the mildest settings that fit are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, NamedTuple

from sora_spec.errors import UserError
from sora_spec.language.facts import can_stream, is_trainable, vae_facts
from sora_spec.language.shapes import latent_frames, pixel_frames
from sora_spec.plan.job import Job
from sora_spec.plan.memory.train_phases import LATENTS
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.axes import AXES, Field, with_values
from sora_spec.plan.search.changes import overrides_for
from sora_spec.plan.search.clip_sizes import frame_counts, sizes
from sora_spec.recipe.sampling import frames_per_decode
from sora_spec.recipe.training import vae_crop

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

Move = Callable[[Job], Job]

ENOUGH = 3
"""Fixes after which none is sought that asks for other clips or more devices."""
_DISTURBING = 3.0
TILES = (512, 256, 128)
"""Sides of tiles that are tried, in pixels."""
CROPS = (512, 384, 256, 192, 128, 64, 32)
"""Sides of a VAE's training crops that are tried, in pixels."""
VAE_PHASES = ("encode", "decode", "sample grid: decode", LATENTS)


class Setting(NamedTuple):
    """One setting of a knob."""

    words: str
    move: Move


class Knob(NamedTuple):
    """Something that can be changed."""

    name: str
    weight: float
    """How much it disturbs the user's intent: 1 changes only how the work is done."""
    settings: tuple[Setting, ...]
    """From mild to strong: each needs no more memory than the one before."""


@dataclass(frozen=True)
class Fix:
    """A set of changes that fits."""

    words: tuple[str, ...]
    overrides: tuple[str, ...]
    """Arguments for the same command."""
    count: int
    """Devices; the job's own unless more are part of the fix."""
    plan: Plan


def find_fixes(job: Job, original: Spec | None = None, limit: int = 6) -> list[Fix]:
    """Smallest sets of changes that make the job fit, least disturbing first. Overrides start from `original`."""
    knobs = [knob for knob in knobs_of(job) if knob.settings]
    found: list[tuple[frozenset[str], float, Fix]] = []
    for size in (1, 2, 3):
        for chosen in sorted(combinations(knobs, size), key=lambda group: sum(knob.weight for knob in group)):
            names = frozenset(knob.name for knob in chosen)
            enough = limit if all(knob.weight < _DISTURBING for knob in chosen) else ENOUGH
            if len(found) < enough and not any(smaller <= names for smaller, _, _ in found):
                fix = _mildest(job, chosen, original or job.spec)
                if fix is not None:
                    found.append((names, sum(knob.weight for knob in chosen), fix))
    found.sort(key=lambda entry: (entry[1], entry[2].plan.times.total_seconds.likely))
    return [fix for _, _, fix in found]


def _mildest(job: Job, knobs: tuple[Knob, ...], original: Spec) -> Fix | None:
    """The first combination of settings that fits. Where the strongest does not, nothing else is tried."""
    ranges = [range(len(knob.settings)) for knob in knobs]
    order = sorted(product(*ranges), key=lambda places: (sum(places), places))
    sets = [tuple(knob.settings[place] for knob, place in zip(knobs, places, strict=True)) for places in order]
    plan, chosen = _planned(job, sets[0]), sets[0]
    if plan is None or not plan.fits:
        strongest = next((plan for plan in (_planned(job, each) for each in reversed(sets[1:])) if plan), None)
        if strongest is None or not strongest.fits:
            return None
        found = ((_planned(job, each), each) for each in sets[1:])
        plan, chosen = next((plan, each) for plan, each in found if plan is not None and plan.fits)
    overrides = overrides_for(original, plan.job)
    return Fix(tuple(setting.words for setting in chosen), overrides, plan.job.count, plan)


def _planned(job: Job, settings: tuple[Setting, ...]) -> Plan | None:
    """The plan with these settings, or None if there can be none."""
    try:
        for setting in settings:
            job = setting.move(job)
        return make_plan(job)
    except UserError:
        return None


def knobs_of(job: Job) -> list[Knob]:
    """What can be changed about a job."""
    if job.mode == "generate":
        rows = (("batch", 1.0, _clips_at_a_time), ("precision", 1.1, _export_precision), ("offload", 1.2, _offload))
        rows = (*rows, *_vae_rows(job), ("frames", 4.0, _frames), ("resolution", 4.0, _resolution))
    elif job.stage == "vae":
        rows = (("batch", 2.0, _vae_batch), ("precision", 1.2, _precision), ("sharding", 1.0, _sharding))
        crops = (("crop", 1.5, _crop), ("crop frames", 1.6, _crop_frames))
        rows = (*rows, ("host", 1.4, _host), *_vae_rows(job), *crops)
    else:
        rows = (("passes", 1.0, _passes), ("recompute", 1.1, _recompute), ("precision", 1.2, _precision))
        rows = (*rows, *_vae_rows(job), ("sharding", 1.0, _sharding), ("host", 1.4, _host))
        rows = (*rows, ("devices", 3.0, _devices), ("frames", 4.0, _frames), ("resolution", 4.0, _resolution))
    return [Knob(name, weight, tuple(settings(job))) for name, weight, settings in rows]


def _vae_rows(job: Job) -> tuple[tuple[str, float, Callable[[Job], Iterator[Setting]]], ...]:
    """VAE in pieces: sought only where it is the VAE that does not fit, since other phases gain nothing."""
    there = job.device.memory_bytes
    if not any(phase.device.likely > there for phase in make_plan(job).phases if phase.name in VAE_PHASES):
        return ()
    return ("streaming", 1.05, _streaming), ("decode frames", 1.02, _decode_frames), ("tiling", 1.3, _tiling)


def _value(words: str, path: str, value: Any) -> Setting:
    """One value of the spec."""
    return Setting(words, lambda job: with_values(job, {path: value}))


def _on_axis(words: str, field: Field, value: Any) -> Setting:
    return Setting(words, lambda job: AXES[field].at(job, value))


def _passes(job: Job) -> Iterator[Setting]:
    """Fewer clips per pass and more passes: the batch stays."""
    micro = job.micro_batch
    for smaller in range(micro - 1, 0, -1):
        if micro % smaller == 0:
            yield Setting(f"{smaller} clips a pass instead of {micro}", partial(_divided, factor=micro // smaller))


def _divided(job: Job, factor: int) -> Job:
    """With a part of what a pass holds, whatever the number of ranks is by then."""
    train = job.spec.train
    if train.batch % (job.groups * train.accumulation * factor):
        raise UserError("the batch cannot be shared evenly")
    values = {"train.accumulation": train.accumulation * factor}
    if train.micro_batch is not None:
        values["train.micro_batch"] = max(1, train.micro_batch // factor)
    return with_values(job, values)


def _recompute(job: Job) -> Iterator[Setting]:
    recompute = job.spec.train.recompute
    if recompute.kind == "none":
        yield _value("recompute every second block", "train.recompute", {"kind": "blocks", "every": 2})
    if recompute.kind == "none" or recompute.every > 1:
        yield _value("recompute every block", "train.recompute", {"kind": "blocks"})


def _precision(job: Job) -> Iterator[Setting]:
    if job.precision == "fp32" and job.device.kind == "cuda":
        yield _value("bf16 arithmetic", f"{'vae.training' if job.stage == 'vae' else 'train'}.precision", "bf16")


def _export_precision(job: Job) -> Iterator[Setting]:
    if job.precision == "fp32" and job.device.kind == "cuda":
        yield _value("bf16 weights", "export.precision", "bf16")


def _sharding(job: Job) -> Iterator[Setting]:
    """Gathered weights freed early (ZeRO-3 in place of ZeRO-2), and shards in place of replicas (in place of DDP)."""
    parallel, freed = job.spec.parallel, {"parallel.reshard": True}
    if not parallel.reshard and job.sharded and job.stage == "denoiser":
        yield _value("free a block's weights after its forward pass", "parallel.reshard", True)
    if parallel.replicate > 1:
        values = {"parallel.shard": parallel.shard * parallel.replicate, "parallel.replicate": 1, **freed}
        yield Setting(f"shard over all {parallel.ranks} ranks", lambda job: with_values(job, values))


def _host(job: Job) -> Iterator[Setting]:
    """The moving average in host memory, or all that is not needed to compute."""
    ema = job.vae_training.ema if job.stage == "vae" else job.spec.train.ema
    if job.device.kind == "cuda" and ema > 0 and not job.average_on_host:
        yield _value("the average in host memory", "train.ema_device", "cpu")
    if job.device.kind == "cuda" and not job.states_on_host:
        yield _value("weights and optimiser states in host memory", "parallel.offload", True)


def _devices(job: Job) -> Iterator[Setting]:
    per_rank = job.spec.train.batch // max(1, job.spec.train.accumulation)
    for count in [job.count * factor for factor in (2, 4, 8, 16, 32)]:
        if per_rank % count == 0:
            yield _on_axis(f"{count} devices", "gpus", count)


def _frames(job: Job) -> Iterator[Setting]:
    have = job.spec.clip.frames
    counts = [count for count in frame_counts(job.spec, have) if count < have]
    for count in _nearest(counts, [have * share for share in (0.75, 0.5, 0.25, 0.1)]):
        yield _on_axis(f"{count} frames instead of {have}", "frames", count)


def _resolution(job: Job) -> Iterator[Setting]:
    clip = job.spec.clip
    widths = dict(size for size in reversed(sizes(job.spec)) if size[0] < clip.height and size[1] <= clip.width)
    for height in _nearest(sorted(widths), [clip.height * share for share in (0.75, 0.5, 0.25)]):
        words = f"{height}x{widths[height]} instead of {clip.height}x{clip.width}"
        yield _on_axis(words, "resolution", (height, widths[height]))


def _nearest(values: list[int], wanted: list[float]) -> Iterable[int]:
    """The values nearest to those wanted, each once."""
    return dict.fromkeys(min(values, key=lambda value: abs(value - near)) for near in wanted if values)


def _clips_at_a_time(job: Job) -> Iterator[Setting]:
    have, low = job.generated, job.spec.export.batch[0]
    for n in _halves(have):
        if job.batch is not None:
            yield _on_axis(f"{n} clips at a time", "batch", n)
        else:
            yield _value(f"{n} clips at a time instead of {have}", "export.batch", (min(low, n), n))


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def _offload(job: Job) -> Iterator[Setting]:
    """Parts that do not run wait in host memory; a CPU has no other."""
    if not job.offloads and job.device.kind != "cpu":
        yield _value("one part on the device at a time", "export.offload", True)


def _decode_frames(job: Job) -> Iterator[Setting]:
    """Fewer frames in one pass of a decoder that sees each on its own: the same values in as much time."""
    have, unit = frames_per_decode(job.spec, job.spec.clip.frames), job.spec.patch.time
    for n in _halves(have) if job.mode == "generate" and vae_facts(job.spec.vae).per_frame else ():
        if n % unit == 0:
            yield _value(f"the VAE on {n} frames at a time instead of {have}", "export.decode_frames", n)


def _streaming(job: Job) -> Iterator[Setting]:
    if can_stream(job.spec.vae) and not job.spec.vae.streaming:
        yield _value("the VAE on one latent frame at a time", "vae.streaming", True)


def _tiling(job: Job) -> Iterator[Setting]:
    """Tiles of a side below the present one, overlapping by a quarter."""
    vae, clip = job.spec.vae, job.spec.clip
    if not is_trainable(vae):
        return
    space = vae.compression.space
    now = vae.tiling.tile if vae.tiling.kind == "spatial" else max(clip.height, clip.width)
    for side in TILES:
        if side < now and side % space == 0:
            tiling = {"kind": "spatial", "tile": side, "overlap": side // 4 // space * space}
            yield _value(f"the VAE in tiles of {side} pixels", "vae.tiling", tiling)


def _crop(job: Job) -> Iterator[Setting]:
    """Smaller squares of the clip, in steps of the VAE's compression."""
    crop = vae_crop(job.spec)
    for side in CROPS:
        smaller = side <= min(crop.height, crop.width) and side * side < crop.height * crop.width
        if smaller and side % job.spec.vae.compression.space == 0:
            words = f"crops of {side}x{side} pixels instead of {crop.height}x{crop.width}"
            yield _value(words, "vae.training.crop", side)


def _crop_frames(job: Job) -> Iterator[Setting]:
    """Fewer frames of the clip."""
    have = vae_crop(job.spec).frames
    least = 2 if vae_facts(job.spec.vae).causal else 1  # such a VAE is there for time
    counts = [pixel_frames(job.spec, n) for n in range(least, latent_frames(job.spec, have))]
    for n in _nearest(counts, [have * share for share in (0.5, 0.25, 0.1, 0.01)]):
        yield _value(f"crops of {n} frames instead of {have}", "vae.training.frames", n)


def _vae_batch(job: Job) -> Iterator[Setting]:
    have = job.vae_training.batch
    for n in _halves(have):
        if n % job.ranks == 0:
            yield _value(f"{n} clips a step instead of {have}", "vae.training.batch", n)
