"""The largest batch, longest clip or largest size that fits, and the fewest devices."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sora_spec.errors import UserError
from sora_spec.plan.job import Job
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.axes import AXES, Axis, Field
from sora_spec.plan.search.changes import options_between, overrides_for

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


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
    axis = AXES[field]
    given = [path for path in axis.paths(job) if path in job.typed]
    given += [option for option in options if option == axis.option(job)]
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
    axis = AXES[field]
    found = _first_that_fits(job, axis) if field == "gpus" else _last_that_fits(job, axis)
    if found is None:
        return None
    value, best = found
    overrides, options = overrides_for(original or job.spec, best), options_between(job, best)
    return Solution(field, axis.words(job, value), overrides, options, make_plan(best), axis.words(job, axis.own(job)))


def least_of(job: Job, field: Field) -> tuple[str, Plan] | None:
    """The value of a field that needs least, in words, and its plan; None where no value can be planned."""
    axis = AXES[field]
    values = axis.values(job)
    for value in [v for v in reversed(values) if _shares(job, v)] if field == "gpus" else values[:1]:
        try:
            return axis.words(job, value), make_plan(axis.at(job, value))
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


def _first_that_fits(job: Job, axis: Axis) -> tuple[Any, Job] | None:
    for value in axis.values(job):
        try:
            candidate = axis.at(job, value)
        except UserError:
            continue
        if fits(candidate):
            return value, candidate
    return None


def _last_that_fits(job: Job, axis: Axis) -> tuple[Any, Job] | None:
    """By doubling from the job's own value, then by halving the gap, so that huge ones are never tried."""
    values = axis.values(job)

    def tried(place: int) -> bool:
        return fits(axis.at(job, values[place]))

    low, high = -1, max(0, bisect_right(values, axis.own(job)) - 1)
    if high < len(values) and tried(high):
        low, step = high, high + 1
        while low + step < len(values) and tried(low + step):
            low, step = low + step, 2 * step
        high = min(low + step, len(values))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tried(middle) else (low, middle)
    return (values[low], axis.at(job, values[low])) if low >= 0 else None
