"""What may vary about a job by number or size: one list for `--solve`, for curves, and for what would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from sora_spec.errors import UserError
from sora_spec.language.changes import changed
from sora_spec.language.facts import temporal_facts
from sora_spec.language.rules.problem import counted
from sora_spec.plan.job import Job
from sora_spec.plan.layout import with_count
from sora_spec.plan.search.clip_sizes import frame_counts, sizes, with_frames, with_size

Field = Literal["frames", "batch", "gpus", "resolution"]
MOST_POINTS = 12
"""Of a curve, for clips' lengths and sizes."""
_MOST = 4096
"""Clips of a pass, frames, or devices that are tried."""
_LARGEST_SCALE = 8.0
_REACH = 2.0
"""How far a curve makes clips longer and larger, as a multiple of the spec's."""


class Axis(NamedTuple):
    """One thing that may vary. Values need ever more memory; of devices, ever less."""

    own: Callable[[Job], Any]
    """The job's own value."""
    values: Callable[[Job], Sequence[Any]]
    """All that can be tried. Raises UserError where it cannot vary."""
    few: Callable[[Job], Iterable[Any]]
    """Those of a curve; none where it cannot vary."""
    words: Callable[[Job, Any], str]
    at: Callable[[Job, Any], Job]
    """The job at a value. Raises UserError where there is none."""
    paths: Callable[[Job], tuple[str, ...]]
    """Of the YAML values that say it."""
    option: Callable[[Job], str] = lambda _: ""
    """The command's option that says it."""


def _frames(job: Job) -> list[int]:
    counts, exported = frame_counts(job.spec, _MOST), job.spec.export.frames
    if exported is not None and "export.frames" in job.typed:
        counts = [count for count in counts if exported[0] <= count <= exported[1]]
    if len(counts) < 2 and not temporal_facts(job.spec.temporal).moves:
        raise UserError(f"{job.spec.name} sees every frame on its own: its clip has no length to solve for")
    return counts


def _few_frames(job: Job) -> list[int]:
    own, moves = job.spec.clip.frames, temporal_facts(job.spec.temporal).moves
    return spread(frame_counts(job.spec, max(2, int(own * _REACH))), own) if moves else []


def _few_sizes(job: Job) -> list[tuple[int, int]]:
    widths = dict(sizes(job.spec, _REACH))
    return [(height, widths[height]) for height in spread(sorted(widths), job.spec.clip.height)]


def spread(values: Sequence[int], own: int) -> list[int]:
    """At most `MOST_POINTS` of ascending values, evenly spaced, with both ends and the one that was asked for."""
    if len(values) > MOST_POINTS:
        last = len(values) - 1
        values = [values[round(number * last / (MOST_POINTS - 1))] for number in range(MOST_POINTS)]
    return sorted({*values, own})


def _share(job: Job) -> int:
    """Clips of a step that one clip of a pass makes."""
    return job.groups * job.accumulation


def _clips(job: Job) -> range:
    return range(1, _MOST + 1 if job.mode == "generate" else min(_MOST, 65_536 // _share(job)) + 1)


def _clips_words(job: Job, clips: int) -> str:
    if job.mode == "generate":
        return f"{counted(clips, 'clip')} at a time"
    return f"{counted(clips * _share(job), 'clip')} a step, {clips} a pass"


def _clips_paths(job: Job) -> tuple[str, ...]:
    if job.mode == "generate":
        return ()
    return ("vae.training.batch",) if job.stage == "vae" else ("train.batch", "train.micro_batch")


def _with_clips(job: Job, clips: int) -> Job:
    """With another number of clips in one pass on one device."""
    if job.mode == "generate":
        return replace(job, batch=clips)
    values: dict[str, Any] = {_clips_paths(job)[0]: clips * _share(job)}
    if job.stage != "vae" and job.spec.train.micro_batch is not None:
        values["train.micro_batch"] = clips
    return with_values(job, values)


def _devices(job: Job) -> range:
    if job.mode == "generate":
        raise UserError("generation runs on one device, so there is no number of devices to solve for")
    return range(1, _MOST + 1)


def _powers(most: int, own: int) -> list[int]:
    return sorted({own, *(2**power for power in range(most.bit_length()))})


def with_devices(job: Job, count: int) -> Job:
    """The job on other devices. Raises UserError where they cannot share its batch."""
    return replace(job, count=count, spec=with_count(job.spec, count, job.stage, job.typed))


def with_values(job: Job, values: dict[str, Any]) -> Job:
    """The job with other values at dotted paths of its spec."""
    return replace(job, spec=changed(job.spec, values))


AXES: dict[Field, Axis] = {
    "frames": Axis(
        own=lambda job: job.spec.clip.frames,
        values=_frames,
        few=_few_frames,
        words=lambda _, frames: counted(frames, "frame"),
        at=lambda job, frames: with_values(job, with_frames(job.spec, frames)),
        paths=lambda _: ("clip.frames",),
    ),
    "batch": Axis(
        own=lambda job: job.generated if job.mode == "generate" else job.micro_batch,
        values=_clips,
        few=lambda job: _powers(1024, AXES["batch"].own(job)),
        words=_clips_words,
        at=_with_clips,
        paths=_clips_paths,
        option=lambda job: "--batch" if job.mode == "generate" else "",
    ),
    "gpus": Axis(
        own=lambda job: job.count,
        values=_devices,
        few=lambda job: () if job.mode == "generate" else _powers(512, job.count),
        words=lambda _, count: counted(count, "device"),
        at=with_devices,
        paths=lambda _: ("hardware.count",),
        option=lambda _: "--count",
    ),
    "resolution": Axis(
        own=lambda job: (job.spec.clip.height, job.spec.clip.width),
        values=lambda job: sizes(job.spec, _LARGEST_SCALE),
        few=_few_sizes,
        words=lambda _, size: f"{size[0]}x{size[1]}",
        at=lambda job, size: with_values(job, with_size(size)),
        paths=lambda _: ("clip.height", "clip.width"),
    ),
}
