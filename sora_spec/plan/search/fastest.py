"""The fastest setting that fits: what of a job is free to choose without making another training or other clips.

Searched best first: along a ladder a setting that saves memory where another does not is at least as slow, so it is
looked at only once the other has turned out not to fit, and the first that fits is the fastest. A generation has no
ladders: more clips at a time are never slower, so the most that fit are the fastest of each start.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import product
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.language.changes import overrides_between
from sora_spec.plan.axes.all_axes import AXES
from sora_spec.plan.axes.axis import Change
from sora_spec.plan.interval import Interval
from sora_spec.plan.planner import Plan, make_plan, times_of
from sora_spec.plan.search.advised import Advised, advised
from sora_spec.plan.search.solve import solve

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.plan.job import Job


def seconds_per_clip(plan: Plan) -> Interval:
    """Of training: a step over its clips. Of generation: a batch over its clips, those of all devices."""
    if plan.job.mode == "generate":
        return plan.times.total_seconds.times(1 / (plan.job.generated * plan.job.count))
    return plan.times.step.seconds.times(1 / plan.job.clips_per_step)


def find_fastest(job: Job, original: Spec | None = None) -> Advised | None:
    """The fastest setting by likely seconds per clip, the job's own where nothing is faster; None where none fits."""
    free = [(axis.ladder, axis.free(job)) for axis in AXES.values() if axis.free is not None]
    starts = [_changed(job, changes) for changes in product(*(each for ladder, each in free if not ladder and each))]
    if job.mode == "generate":
        most = [found.plan for start in starts if (found := solve(start, "batch")) is not None]
        best = min(most, key=lambda plan: seconds_per_clip(plan).likely, default=None)
    else:
        best = _first_that_fits(job, starts, [each for ladder, each in free if ladder and each])
    return None if best is None else advised(job, original, best)


def _changed(job: Job, changes: tuple[Change, ...]) -> Job:
    for change in changes:
        job = change.at(job)
    return job


def _first_that_fits(job: Job, starts: list[Job], ladders: list[Sequence[Change]]) -> Plan | None:
    """From the start that is fastest up the ladders: none of the starts is sure to be faster than another."""
    queue: list[tuple[float, int, tuple[int, ...]]] = []
    seen = set[tuple[int, ...]]()

    def at(place: tuple[int, ...]) -> Job:
        rungs = zip(ladders, place[1:], strict=True)
        return _changed(starts[place[0]], tuple(ladder[rung] for ladder, rung in rungs))

    def offer(place: tuple[int, ...]) -> None:
        if place in seen or any(rung == len(ladder) for ladder, rung in zip(ladders, place[1:], strict=True)):
            return
        seen.add(place)
        candidate = at(place)
        try:
            seconds = times_of(candidate).step.seconds.likely
        except UserError:
            return
        # Among settings that are equally fast the nearest is taken.
        heappush(queue, (seconds, len(overrides_between(job.spec, candidate.spec)), place))

    for number in range(len(starts)):
        offer((number, *(0 for _ in ladders)))
    while queue:
        place = heappop(queue)[2]
        plan = make_plan(at(place))
        if plan.fits:
            return plan
        for index in range(1, len(place)):
            offer((*place[:index], place[index] + 1, *place[index + 1 :]))
    return None
