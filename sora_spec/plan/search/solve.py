"""The largest batch, longest clip or largest size that fits, and the fewest devices."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sora_spec.errors import UserError
from sora_spec.language.rules.problem import counted
from sora_spec.plan.job import Job
from sora_spec.plan.layout import with_count
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.changes import changed, options_between, overrides_for
from sora_spec.plan.search.clip_sizes import frame_counts, sizes, with_frames, with_size

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

Field = Literal["batch", "frames", "resolution", "gpus"]
MOST_CLIPS = 4096
MOST_FRAMES = 4096
LARGEST_SCALE = 8.0
MOST_DEVICES = 4096


class Solution(NamedTuple):
    """The best value that fits."""

    field: Field
    value: str
    overrides: tuple[str, ...]
    """`key=value` arguments that make it."""
    options: tuple[str, ...]
    """Options of the command that make the rest of it, such as `--count 4`."""
    plan: Plan
    was: str = ""
    """The job's own value, where the search began."""


def check_free(job: Job, field: Field, options: Sequence[str] = ()) -> None:
    """Refuse a value that an argument or one of the `options` gives for what is solved for: it would count for nothing.

    What a spec's file says is where the search begins.

    Raises:
        UserError: there is one.
    """
    asked = "--batch" if field == "batch" and job.mode == "generate" else "--count" if field == "gpus" else ""
    batch = ("vae.training.batch",) if job.stage == "vae" else ("train.batch", "train.micro_batch")
    paths = {
        "batch": () if asked else batch,
        "frames": ("clip.frames",),
        "resolution": ("clip.height", "clip.width"),
        "gpus": ("hardware.count",),
    }[field]
    given = [*(path for path in paths if path in job.typed), *([asked] if asked in options else [])]
    if given:
        hint = "leave it out" if len(given) == 1 else "leave them out"
        raise UserError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} given, and --solve {field} is to find it",
            f"{hint}: the search begins at what holds without"
            + (", and keeps the ratio of the sides in the spec's file" if field == "resolution" else ""),
        )


def solve(job: Job, field: Field, original: Spec | None = None) -> Solution | None:
    """The extreme of one field, the rest as it is; None where nothing fits. Overrides start from `original`.

    Raises:
        UserError: the field cannot be varied in this job.
    """
    candidates = _CANDIDATES[field](job)
    found = _first_that_fits(candidates) if field == "gpus" else _last_that_fits(candidates)
    if found is None:
        return None
    value, best = found
    overrides = overrides_for(original or job.spec, best)
    options, was = options_between(job, best), candidates.words(candidates.own)
    return Solution(field, candidates.words(value), overrides, options, make_plan(best), was)


def least_of(job: Job, field: Field) -> tuple[str, Plan] | None:
    """The value of a field that needs least, in words, and its plan; None where no value can be planned."""
    candidates = _CANDIDATES[field](job)
    values = [value for value in reversed(candidates.values) if _shares(job, value)] if field == "gpus" else []
    for value in values if field == "gpus" else candidates.values[:1]:
        try:
            return candidates.words(value), make_plan(candidates.job(value))
        except UserError:
            continue
    return None


def _shares(job: Job, count: int) -> bool:
    """Whether so many devices could share the clips of a step at all."""
    return job.clips_per_step * job.spec.parallel.sequence % count == 0


def fits(job: Job) -> bool:
    """Whether a job fits; one that cannot be planned does not."""
    try:
        return make_plan(job).fits
    except UserError:
        return False


class _Candidates(NamedTuple):
    """Values of a field whose jobs need ever more; the jobs are made when they are asked for."""

    values: Sequence[Any]
    own: Any
    """The job's own value: where the search begins."""
    words: Callable[[Any], str]
    job: Callable[[Any], Job]


def _first_that_fits(candidates: _Candidates) -> tuple[Any, Job] | None:
    for value in candidates.values:
        try:
            job = candidates.job(value)
        except UserError:
            continue
        if fits(job):
            return value, job
    return None


def _last_that_fits(candidates: _Candidates) -> tuple[Any, Job] | None:
    """By doubling from the job's own value, then by halving the gap, so that huge ones are never tried."""
    values = candidates.values

    def tried(place: int) -> bool:
        return fits(candidates.job(values[place]))

    low, high = -1, max(0, bisect_right(values, candidates.own) - 1)
    if high < len(values) and tried(high):
        low, step = high, high + 1
        while low + step < len(values) and tried(low + step):
            low, step = low + step, 2 * step
        high = min(low + step, len(values))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tried(middle) else (low, middle)
    return (values[low], candidates.job(values[low])) if low >= 0 else None


def _batches(job: Job) -> _Candidates:
    if job.mode == "generate":
        clips = range(1, MOST_CLIPS + 1)
        return _Candidates(
            clips, job.generated, lambda n: f"{counted(n, 'clip')} at a time", lambda n: replace(job, batch=n)
        )
    share = job.groups * job.accumulation

    def with_batch(micro: int) -> Job:
        values: dict[str, Any] = {"vae.training.batch" if job.stage == "vae" else "train.batch": micro * share}
        if job.stage == "denoiser" and job.spec.train.micro_batch is not None:
            values["train.micro_batch"] = micro
        return _with(job, values)

    per_pass = range(1, min(MOST_CLIPS, 65_536 // share) + 1)
    return _Candidates(
        per_pass, job.micro_batch, lambda micro: f"{counted(micro * share, 'clip')} a step, {micro} a pass", with_batch
    )


def _at_a_time(clips: int) -> str:
    return f"{counted(clips, 'clip')} at a time"


def _frames(job: Job) -> _Candidates:
    counts = frame_counts(job.spec, MOST_FRAMES)
    exported = job.spec.export.frames
    if exported is not None and "export.frames" in job.typed:
        counts = [count for count in counts if exported[0] <= count <= exported[1]]
    if len(counts) < 2 and job.spec.temporal.kind == "none":
        raise UserError(f"{job.spec.name} sees every frame on its own: its clip has no length to solve for")
    own = job.spec.clip.frames
    return _Candidates(
        counts, own, lambda count: counted(count, "frame"), lambda count: _with(job, with_frames(job.spec, count))
    )


def _sizes(job: Job) -> _Candidates:
    clip = job.spec.clip
    found = sizes(job.spec, LARGEST_SCALE)
    own = (clip.height, clip.width)
    return _Candidates(found, own, lambda size: f"{size[0]}x{size[1]}", lambda size: _with(job, with_size(size)))


def _counts(job: Job) -> _Candidates:
    if job.mode == "generate":
        raise UserError("generation runs on one device, so there is no number of devices to solve for")

    def with_devices(count: int) -> Job:
        return replace(job, spec=with_count(job.spec, count, job.stage, job.typed), count=count)

    return _Candidates(range(1, MOST_DEVICES + 1), job.count, lambda count: counted(count, "device"), with_devices)


def _with(job: Job, values: dict[str, Any]) -> Job:
    return replace(job, spec=changed(job.spec, values))


_CANDIDATES = {"batch": _batches, "frames": _frames, "resolution": _sizes, "gpus": _counts}
