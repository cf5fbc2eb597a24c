"""What would make a job fit: the smallest sets of changes, each with its price in time.

Every knob has settings from mild to strong. Sets of one, two and three knobs are tried, cheap ones first; a set is left
out when a part of it does the job. In a set the mildest settings that fit are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, NamedTuple

from sora_spec.errors import UserError
from sora_spec.language.facts import can_stream, is_trainable, vae_facts
from sora_spec.language.shapes import latent_frames, pixel_frames
from sora_spec.plan.job import Job
from sora_spec.plan.layout import with_count
from sora_spec.plan.memory.train_phases import LATENTS
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.changes import changed, overrides_for
from sora_spec.plan.search.clip_sizes import frame_counts, sizes, with_frames, with_size
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
        part = [_offload(job), *_vae_knobs(job)]
        return [_clips_at_a_time(job), _export_precision(job), *part, _frames(job), _resolution(job)]
    if job.stage == "vae":
        crops = [_crop(job), _crop_frames(job)]
        return [_vae_batch(job), _vae_precision(job), _sharding(job), _host(job), *_vae_knobs(job), *crops]
    return [
        _passes(job),
        _recompute(job),
        _precision(job),
        *_vae_knobs(job),
        _sharding(job),
        _host(job),
        _devices(job),
        _frames(job),
        _resolution(job),
    ]


def _spec_move(values: Callable[[Job], dict[str, Any]]) -> Move:
    return lambda job: replace(job, spec=changed(job.spec, values(job)))


def _value_move(values: dict[str, Any]) -> Move:
    return _spec_move(lambda _: values)


def _passes(job: Job) -> Knob:
    """Fewer clips per pass and more passes: the batch stays."""
    micro, settings = job.micro_batch, list[Setting]()
    for smaller in _divisors(micro)[-2::-1]:
        settings.append(Setting(f"{smaller} clips a pass instead of {micro}", _pass_move(micro // smaller)))
    return Knob("passes", 1.0, tuple(settings))


def _pass_move(factor: int) -> Move:
    """Divide what a pass holds, whatever the number of ranks is by then."""

    def values(job: Job) -> dict[str, Any]:
        train = job.spec.train
        found: dict[str, Any] = {"train.accumulation": train.accumulation * factor}
        if train.micro_batch is not None:
            found["train.micro_batch"] = max(1, train.micro_batch // factor)
        if train.batch % (job.groups * train.accumulation * factor):
            raise UserError("the batch cannot be shared evenly")
        return found

    return _spec_move(values)


def _divisors(number: int) -> list[int]:
    return [value for value in range(1, number + 1) if number % value == 0]


def _recompute(job: Job) -> Knob:
    recompute, settings = job.spec.train.recompute, list[Setting]()
    if recompute.kind == "none":
        half = _value_move({"train.recompute": {"kind": "blocks", "every": 2}})
        settings.append(Setting("recompute every second block", half))
    if recompute.kind == "none" or recompute.every > 1:
        every = _value_move({"train.recompute": {"kind": "blocks"}})
        settings.append(Setting("recompute every block", every))
    return Knob("recompute", 1.1, tuple(settings))


def _precision(job: Job) -> Knob:
    fitting = job.precision == "fp32" and job.device.kind == "cuda"
    setting = Setting("bf16 arithmetic", _value_move({"train.precision": "bf16"}))
    return Knob("precision", 1.2, (setting,) if fitting else ())


def _sharding(job: Job) -> Knob:
    """Gathered weights freed early (ZeRO-3 in place of ZeRO-2), and shards in place of replicas (in place of DDP)."""
    parallel = job.spec.parallel
    settings = list[Setting]()
    freed = {"parallel.reshard": True}
    if not parallel.reshard and job.sharded and job.stage == "denoiser":
        settings.append(Setting("free a block's weights after its forward pass", _value_move(freed)))
    if parallel.replicate > 1:
        values = {"parallel.shard": parallel.shard * parallel.replicate, "parallel.replicate": 1, **freed}
        settings.append(Setting(f"shard over all {parallel.ranks} ranks", _value_move(values)))
    return Knob("sharding", 1.0, tuple(settings))


def _host(job: Job) -> Knob:
    """The moving average in host memory, or all that is not needed to compute."""
    settings = list[Setting]()
    ema = job.vae_training.ema if job.stage == "vae" else job.spec.train.ema
    if job.device.kind == "cuda" and ema > 0 and not job.average_on_host:
        settings.append(Setting("the average in host memory", _value_move({"train.ema_device": "cpu"})))
    if job.device.kind == "cuda" and not job.states_on_host:
        offload = _value_move({"parallel.offload": True})
        settings.append(Setting("weights and optimiser states in host memory", offload))
    return Knob("host", 1.4, tuple(settings))


def _devices(job: Job) -> Knob:
    per_rank = job.spec.train.batch // max(1, job.spec.train.accumulation)
    counts = [job.count * factor for factor in (2, 4, 8, 16, 32) if per_rank % (job.count * factor) == 0]
    return Knob("devices", 3.0, tuple(Setting(f"{count} devices", _count_move(count)) for count in counts))


def _count_move(count: int) -> Move:
    return lambda job: replace(job, count=count, spec=with_count(job.spec, count, job.stage, job.typed))


def _frames(job: Job) -> Knob:
    have = job.spec.clip.frames
    counts = [count for count in frame_counts(job.spec, have) if count < have]
    shown = dict.fromkeys(_nearest(counts, have * share) for share in (0.75, 0.5, 0.25, 0.1) if counts)
    settings = [Setting(f"{count} frames instead of {have}", _frames_move(count)) for count in shown]
    return Knob("frames", 4.0, tuple(settings))


def _frames_move(count: int) -> Move:
    return _spec_move(lambda job: with_frames(job.spec, count))


def _resolution(job: Job) -> Knob:
    clip = job.spec.clip
    smaller = [size for size in sizes(job.spec) if size[0] < clip.height and size[1] <= clip.width]
    shares = (0.75, 0.5, 0.25)
    shown = dict.fromkeys(
        min(smaller, key=lambda s, w=share: abs(s[0] - w * clip.height)) for share in shares if smaller
    )
    settings = [
        Setting(f"{size[0]}x{size[1]} instead of {clip.height}x{clip.width}", _value_move(with_size(size)))
        for size in shown
    ]
    return Knob("resolution", 4.0, tuple(settings))


def _nearest(counts: list[int], wanted: float) -> int:
    return min(counts, key=lambda count: abs(count - wanted))


def _clips_at_a_time(job: Job) -> Knob:
    have, low = job.generated, job.spec.export.batch[0]
    if job.batch is not None:
        return Knob("batch", 1.0, tuple(Setting(f"{n} clips at a time", _batch_move(n)) for n in _halves(have)))
    settings = [
        Setting(f"{n} clips at a time instead of {have}", _value_move({"export.batch": (min(low, n), n)}))
        for n in _halves(have)
    ]
    return Knob("batch", 1.0, tuple(settings))


def _batch_move(count: int) -> Move:
    return lambda job: replace(job, batch=count)


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def _export_precision(job: Job) -> Knob:
    setting = Setting("bf16 weights", _value_move({"export.precision": "bf16"}))
    return Knob("precision", 1.1, (setting,) if job.precision == "fp32" and job.device.kind == "cuda" else ())


def _offload(job: Job) -> Knob:
    """Parts that do not run wait in host memory; a CPU has no other."""
    setting = Setting("one part on the device at a time", _value_move({"export.offload": True}))
    return Knob("offload", 1.2, () if job.offloads or job.device.kind == "cpu" else (setting,))


def _vae_knobs(job: Job) -> list[Knob]:
    """VAE in pieces: sought only where it is the VAE that does not fit, since other phases gain nothing."""
    there = job.device.memory_bytes
    if not any(phase.device.likely > there for phase in make_plan(job).phases if phase.name in VAE_PHASES):
        return []
    return [_streaming(job), _decode_frames(job), _tiling(job)]


def _decode_frames(job: Job) -> Knob:
    """Fewer frames in one pass of a decoder that sees each on its own: the same values in as much time."""
    have, unit = frames_per_decode(job.spec, job.spec.clip.frames), job.spec.patch.time
    fewer = (
        [n for n in _halves(have) if n % unit == 0]
        if job.mode == "generate" and vae_facts(job.spec.vae).per_frame
        else ()
    )
    settings = [
        Setting(f"the VAE on {n} frames at a time instead of {have}", _value_move({"export.decode_frames": n}))
        for n in fewer
    ]
    return Knob("decode frames", 1.02, tuple(settings))


def _streaming(job: Job) -> Knob:
    setting = Setting("the VAE on one latent frame at a time", _value_move({"vae.streaming": True}))
    whole = can_stream(job.spec.vae) and not job.spec.vae.streaming
    return Knob("streaming", 1.05, (setting,) if whole else ())


def _tiling(job: Job) -> Knob:
    """Tiles of a side below the present one, overlapping by a quarter."""
    vae, clip = job.spec.vae, job.spec.clip
    if not is_trainable(vae):
        return Knob("tiling", 1.3, ())
    space = vae.compression.space
    now = vae.tiling.tile if vae.tiling.kind == "spatial" else max(clip.height, clip.width)
    settings = list[Setting]()
    for side in TILES:
        if side < now and side % space == 0:
            tiling = {"kind": "spatial", "tile": side, "overlap": side // 4 // space * space}
            settings.append(Setting(f"the VAE in tiles of {side} pixels", _value_move({"vae.tiling": tiling})))
    return Knob("tiling", 1.3, tuple(settings))


def _crop(job: Job) -> Knob:
    """Smaller squares of the clip, in steps of the VAE's compression."""
    vae, crop = job.spec.vae, vae_crop(job.spec)
    space, have = vae.compression.space, f"{crop.height}x{crop.width}"
    sides = [side for side in CROPS if side % space == 0 and side <= min(crop.height, crop.width)]
    sides = [side for side in sides if side * side < crop.height * crop.width]
    settings = [
        Setting(f"crops of {side}x{side} pixels instead of {have}", _value_move({"vae.training.crop": side}))
        for side in sides
    ]
    return Knob("crop", 1.5, tuple(settings))


def _crop_frames(job: Job) -> Knob:
    """Fewer frames of the clip."""
    have = vae_crop(job.spec).frames
    least = 2 if vae_facts(job.spec.vae).causal else 1  # such a VAE is there for time
    counts = [pixel_frames(job.spec, n) for n in range(least, latent_frames(job.spec, have))]
    shown = dict.fromkeys(_nearest(counts, have * share) for share in (0.5, 0.25, 0.1, 0.01) if counts)
    settings = [
        Setting(f"crops of {n} frames instead of {have}", _value_move({"vae.training.frames": n})) for n in shown
    ]
    return Knob("crop frames", 1.6, tuple(settings))


def _vae_batch(job: Job) -> Knob:
    have = job.vae_training.batch
    fewer = [n for n in _halves(have) if n % job.ranks == 0]
    settings = [Setting(f"{n} clips a step instead of {have}", _value_move({"vae.training.batch": n})) for n in fewer]
    return Knob("batch", 2.0, tuple(settings))


def _vae_precision(job: Job) -> Knob:
    setting = Setting("bf16 arithmetic", _value_move({"vae.training.precision": "bf16"}))
    return Knob("precision", 1.2, (setting,) if job.precision == "fp32" and job.device.kind == "cuda" else ())
