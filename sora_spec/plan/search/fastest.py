"""The fastest setting that fits: what of a job is free to choose without making another training or other clips.

Training: clips per pass and passes (the batch stays), recomputation, precision, and how the ranks share the weights.
Generation: clips at a time, and precision. Searched best first: a setting that saves memory where another does not is
at least as slow, so it is looked at only once the other has turned out not to fit, and the first that fits is the
fastest.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from sora_spec.errors import UserError
from sora_spec.language.changes import overrides_between
from sora_spec.plan.interval import Interval
from sora_spec.plan.job import Job
from sora_spec.plan.planner import Plan, make_plan, times_of
from sora_spec.plan.search.axes import with_values
from sora_spec.plan.search.changes import options_between, overrides_for
from sora_spec.plan.search.solve import solve

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


class Fastest(NamedTuple):
    """The fastest setting; the job's own where nothing is faster."""

    overrides: tuple[str, ...]
    """`key=value` arguments that make it."""
    options: tuple[str, ...]
    """Options of the command that make the rest of it."""
    plan: Plan


def seconds_per_clip(plan: Plan) -> Interval:
    """Of training: a step over its clips. Of generation: a batch over its clips, those of all devices."""
    if plan.job.mode == "generate":
        return plan.times.total_seconds.times(1 / (plan.job.generated * plan.job.count))
    return plan.times.step.seconds.times(1 / plan.job.clips_per_step)


def find_fastest(job: Job, original: Spec | None = None) -> Fastest | None:
    """The fastest setting of the grid by likely seconds per clip; None where none fits. Overrides from `original`."""
    found = _fastest_generation(job) if job.mode == "generate" else _fastest_training(job)
    if found is None:
        return None
    return Fastest(overrides_for(original or job.spec, found.job), options_between(job, found.job), found)


def _fastest_generation(job: Job) -> Plan | None:
    """More clips at a time are never slower, so the most that fit are the fastest of each precision."""
    found: list[Plan] = []
    for precision in _precisions(job.precision, job):
        own = job if precision == job.precision else with_values(job, {"export.precision": precision})
        solution = solve(own, "batch")
        found += [] if solution is None else [solution.plan]
    return min(found, key=lambda plan: seconds_per_clip(plan).likely, default=None)


def _precisions(own: str, job: Job) -> list[str]:
    other = "bf16" if own == "fp32" and job.device.kind == "cuda" else None
    return [own, *([other] if other else [])]


class _Place(NamedTuple):
    """A point of the grid, by the places of its values; further means less memory and more time."""

    start: int
    """Precision and layout of the ranks: neither is sure to be faster than another."""
    recompute: int
    passes: int


def _fastest_training(job: Job) -> Plan | None:
    starts, recomputing, passes = list(_starts(job)), _recomputations(job), _passes(job)
    queue: list[tuple[float, int, _Place]] = []
    seen = set[_Place]()

    def offer(place: _Place) -> None:
        if place in seen or place.recompute == len(recomputing) or place.passes == len(passes):
            return
        seen.add(place)
        candidate = at(place)
        try:
            seconds = times_of(candidate).step.seconds.likely
        except UserError:
            return
        heappush(queue, (seconds, _changes(job, candidate), place))

    def at(place: _Place) -> Job:
        return with_values(job, starts[place.start] | recomputing[place.recompute] | passes[place.passes])

    for number in range(len(starts)):
        offer(_Place(number, 0, 0))
    while queue:
        place = heappop(queue)[2]
        plan = make_plan(at(place))
        if plan.fits:
            return plan
        offer(place._replace(recompute=place.recompute + 1))
        offer(place._replace(passes=place.passes + 1))
    return None


def _starts(job: Job) -> Iterator[dict[str, Any]]:
    """Precisions and layouts. A sequence group stays as it is: it decides how a clip is cut; and so do the ranks of a
    VAE's training, for which `parallel` is not meant in the first place."""
    if job.stage == "vae":
        yield from ({"vae.training.precision": precision} for precision in _precisions(job.precision, job))
        return
    groups, parallel = job.groups, job.spec.parallel
    shards = [shard for shard in range(1, groups + 1) if groups % shard == 0]
    for precision, shard, offload in product(_precisions(job.precision, job), shards, {False, parallel.offload}):
        if any(
            f"parallel.{side}" in job.typed and now != then
            for side, now, then in (
                ("shard", parallel.shard, shard),
                ("replicate", parallel.replicate, groups // shard),
            )
        ):
            continue
        for reshard in (True, False) if shard > 1 else (parallel.reshard,):
            layout = {"shard": shard, "replicate": groups // shard, "reshard": reshard, "offload": offload}
            yield {"train.precision": precision, **{f"parallel.{name}": value for name, value in layout.items()}}


def _recomputations(job: Job) -> list[dict[str, Any]]:
    """From none to every block, the job's own among them."""
    if job.stage == "vae":
        return [{}]
    own = job.spec.train.recompute
    every = sorted({1, 2, *([own.every] if own.kind == "blocks" else [])}, reverse=True)
    some = [{"kind": "blocks"} if number == 1 else {"kind": "blocks", "every": number} for number in every]
    return [{"train.recompute": recompute} for recompute in ({"kind": "none"}, *some)]


def _passes(job: Job) -> list[dict[str, Any]]:
    """From one pass of many clips to many passes of one: the batch stays."""
    if job.stage == "vae":
        return [{}]
    train, found = job.spec.train, list[dict[str, Any]]()
    clips = train.batch // job.groups
    for passes in range(1, clips + 1):
        if clips % passes == 0:
            micro = {} if train.micro_batch is None else {"train.micro_batch": clips // passes}
            found.append({"train.accumulation": passes, **micro})
    return found


def _changes(job: Job, candidate: Job) -> int:
    """How much would have to be changed: among settings that are equally fast the nearest is taken."""
    return len(overrides_between(job.spec, candidate.spec))
