"""The largest batch, longest clip or largest size that fits, and the fewest devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from sora_spec.errors import UserError
from sora_spec.plan.changes import changed, overrides_between
from sora_spec.plan.clip_sizes import frame_counts, sizes, with_frames, with_size
from sora_spec.plan.job import Job, with_count
from sora_spec.plan.planner import Plan, make_plan

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec

Field = Literal["batch", "frames", "resolution", "gpus"]
MOST_CLIPS = 4096
MOST_FRAMES = 4096
LARGEST_SCALE = 8.0
MOST_DEVICES = 4096

T = TypeVar("T")


class Solution(NamedTuple):
    """The best value that fits."""

    field: Field
    value: str
    overrides: tuple[str, ...]
    plan: Plan


def solve(job: Job, field: Field, original: Spec | None = None) -> Solution | None:
    """The extreme of one field, the rest as it is; None where nothing fits.

    Raises:
        UserError: the field cannot be varied in this job.
    """
    found = _CANDIDATES[field](job)
    best = _last_that_fits(found) if field != "gpus" else next((c for c in found if fits(c[1])), None)
    if best is None:
        return None
    plan = make_plan(best[1])
    overrides = tuple(overrides_between(original or job.spec, best[1].spec))
    return Solution(field, best[0], overrides, plan)


def fits(job: Job) -> bool:
    """Whether a job fits; one that cannot be planned does not."""
    try:
        return make_plan(job).fits
    except UserError:
        return False


Candidate = tuple[str, Job]


def _last_that_fits(candidates: Sequence[Candidate]) -> Candidate | None:
    """The last of a list whose needs rise: by doubling, then by halving the gap, so that huge ones are never tried."""
    low, step = -1, 1
    while low + step < len(candidates) and fits(candidates[low + step][1]):
        low, step = low + step, 2 * step
    high = min(low + step, len(candidates))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(candidates[middle][1]) else (low, middle)
    return candidates[low] if low >= 0 else None


def _batches(job: Job) -> list[Candidate]:
    if job.mode == "generate":
        return [(f"{n} clips at a time", replace(job, batch=n)) for n in range(1, MOST_CLIPS + 1)]
    share = job.ranks * job.accumulation
    found: list[Candidate] = []
    for micro in range(1, min(MOST_CLIPS, 65_536 // share) + 1):
        values: dict[str, Any] = {"vae.training.batch" if job.stage == "vae" else "train.batch": micro * share}
        if job.stage == "denoiser" and job.spec.train.micro_batch is not None:
            values["train.micro_batch"] = micro
        found.append((f"{micro * share} clips a step, {micro} a pass", _with(job, values)))
    return found


def _frames(job: Job) -> list[Candidate]:
    counts = frame_counts(job.spec, MOST_FRAMES)
    if len(counts) < 2:
        raise UserError(f"{job.spec.name} sees every frame on its own: its clip has no length to solve for")
    return [(f"{count} frames", _with(job, with_frames(job.spec, count))) for count in counts]


def _sizes(job: Job) -> list[Candidate]:
    return [(f"{h}x{w}", _with(job, with_size((h, w)))) for h, w in sizes(job.spec, LARGEST_SCALE)]


def _counts(job: Job) -> list[Candidate]:
    if job.mode == "generate":
        raise UserError("generation runs on one device, so there is no number of devices to solve for")
    found: list[Candidate] = []
    for count in range(1, MOST_DEVICES + 1):
        try:
            found.append((f"{count} devices", replace(job, spec=with_count(job.spec, count), count=count)))
        except UserError:
            continue
    return found


def _with(job: Job, values: dict[str, Any]) -> Job:
    return replace(job, spec=changed(job.spec, values))


_CANDIDATES = {"batch": _batches, "frames": _frames, "resolution": _sizes, "gpus": _counts}
