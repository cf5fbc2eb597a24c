"""One quantity of a plan over one knob: memory over frames and over clips, time over devices. For plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sora_spec.errors import UserError
from sora_spec.plan.layout import with_count
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.changes import changed
from sora_spec.plan.search.clip_sizes import frame_counts, sizes, with_frames, with_size

if TYPE_CHECKING:
    from sora_spec.plan.interval import Interval
    from sora_spec.plan.job import Job

Knob = Literal["frames", "batch", "gpus", "resolution"]
KNOBS: tuple[Knob, ...] = ("frames", "batch", "gpus", "resolution")
MOST_POINTS = 12
_REACH = 2.0
"""How far clips are made longer and larger, as a multiple of the spec's."""
_FAR = 1.5
"""Share of the device's memory beyond which no larger batch is planned."""
_LARGEST_BATCH = 1024
_MOST_DEVICES = 512


@dataclass(frozen=True)
class Point:
    """The plan at one setting of the knob."""

    x: int
    """Frames; clips of one pass; devices; height in pixels."""
    plan: Plan
    asked: bool
    """Whether it is the job as it was asked."""

    @property
    def memory_bytes(self) -> Interval:
        """What one device needs."""
        return self.plan.needed

    @property
    def total_seconds(self) -> Interval:
        """All steps, or the generation of one batch."""
        return self.plan.times.total_seconds


def curve(job: Job, knob: Knob) -> Iterator[Point]:
    """Points in the order of the knob. None where the knob cannot be turned, as frames of an image model."""
    yield from _POINTS[knob](job)


def _plan(job: Job) -> Plan | None:
    try:
        return make_plan(job)
    except UserError:
        return None


def _with(job: Job, values: dict[str, Any]) -> Job:
    return replace(job, spec=changed(job.spec, values))


def _frames(job: Job) -> Iterator[Point]:
    own = job.spec.clip.frames
    if job.spec.temporal.kind == "none":
        return
    counts = frame_counts(job.spec, max(2, int(own * _REACH)))
    for count in spread(counts, own):
        plan = _plan(_with(job, with_frames(job.spec, count)))
        if plan is not None:
            yield Point(count, plan, count == own)


def _sizes(job: Job) -> Iterator[Point]:
    own = job.spec.clip.height
    found = dict(sizes(job.spec, _REACH))
    for height in spread(sorted(found), own):
        plan = _plan(_with(job, with_size((height, found[height]))))
        if plan is not None:
            yield Point(height, plan, height == own)


def _batches(job: Job) -> Iterator[Point]:
    """Clips of one pass on one device, doubled until they are far too many."""
    own = job.generated if job.mode == "generate" else job.micro_batch
    for clips in sorted({own, *(2**power for power in range(_LARGEST_BATCH.bit_length()))}):
        plan = _plan(with_clips(job, clips))
        if plan is not None:
            yield Point(clips, plan, clips == own)
            if clips >= own and plan.needed.likely > _FAR * job.device.memory_bytes:
                return


def with_clips(job: Job, clips: int) -> Job:
    """The job with another number of clips in one pass on one device."""
    if job.mode == "generate":
        return replace(job, batch=clips)
    whole = clips * job.groups * job.accumulation
    path = "vae.training.batch" if job.stage == "vae" else "train.batch"
    values: dict[str, Any] = {path: whole}
    if job.stage != "vae" and job.spec.train.micro_batch is not None:
        values["train.micro_batch"] = clips
    return _with(job, values)


def _counts(job: Job) -> Iterator[Point]:
    if job.mode == "generate":
        return
    for count in sorted({job.count, *(2**power for power in range(_MOST_DEVICES.bit_length()))}):
        try:
            plan = _plan(replace(job, spec=with_count(job.spec, count, job.stage, job.typed), count=count))
        except UserError:  # the batch cannot be shared by so many
            continue
        if plan is not None:
            yield Point(count, plan, count == job.count)


def spread(values: Sequence[int], own: int) -> list[int]:
    """At most `MOST_POINTS` of ascending values, evenly spaced, with both ends and the one that was asked for."""
    if len(values) > MOST_POINTS:
        last = len(values) - 1
        values = [values[round(number * last / (MOST_POINTS - 1))] for number in range(MOST_POINTS)]
    return sorted({*values, own})


_POINTS = {"frames": _frames, "batch": _batches, "gpus": _counts, "resolution": _sizes}
