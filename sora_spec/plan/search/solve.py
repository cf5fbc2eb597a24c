"""The largest batch, longest clip or largest size that fits, and the fewest devices."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.plan.axes.all_axes import Field, solved
from sora_spec.plan.axes.axis import SAID_BY, Axis
from sora_spec.plan.job import Job
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.advised import Advised, advised

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def check_free(job: Job, field: Field, options: Sequence[str] = ()) -> None:
    """Refuse a value that an argument or one of the `options` gives for what is solved for: it would count for nothing.

    What a spec's file says is where the search begins.

    Raises:
        UserError: there is one.
    """
    axis, _ = solved(field)
    change = axis.change(job, axis.own(job))
    paths = (*change.values, *(SAID_BY[name] for name in change.options if name in SAID_BY))
    given = [path for path in paths if path in job.typed]
    given += [f"--{name}" for name in change.options if f"--{name}" in options]
    if given:
        hint = "leave it out" if len(given) == 1 else "leave them out"
        raise UserError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} given, and --solve {field} is to find it",
            f"{hint}: the search begins at what holds without"
            + (", and keeps the ratio of the sides in the spec's file" if field == "resolution" else ""),
        )


def solve(job: Job, field: Field, original: Spec | None = None) -> Advised | None:
    """The extreme of one field, the rest as it is; None where nothing fits. Overrides start from `original`.

    Raises:
        UserError: the field cannot be varied in this job.
    """
    axis, how = solved(field)
    values = how.every(job)
    value = _first_that_fits(job, axis, values) if field == "gpus" else _last_that_fits(job, axis, values)
    if value is None:
        return None
    best, was = make_plan(axis.change(job, value).at(job)), how.words(job, axis.own(job))
    return advised(job, original, best, (how.words(job, value),), was)


def least_of(job: Job, field: Field) -> tuple[str, Plan] | None:
    """The value of a field that needs least, in words, and its plan; None where no value can be planned."""
    axis, how = solved(field)
    values = how.every(job)
    for value in [v for v in reversed(values) if _shares(job, v)] if field == "gpus" else values[:1]:
        try:
            return how.words(job, value), make_plan(axis.change(job, value).at(job))
        except UserError:
            continue
    return None


def _shares(job: Job, count: int) -> bool:
    """Whether so many devices could share the clips of a step at all."""
    return job.clips_per_step * job.spec.parallel.sequence % count == 0


def _fits(job: Job, axis: Axis, value: Any) -> bool:
    """Whether a job fits with another value; one that cannot be planned does not."""
    try:
        return make_plan(axis.change(job, value).at(job)).fits
    except UserError:
        return False


def _first_that_fits(job: Job, axis: Axis, values: Sequence[Any]) -> Any:
    return next((value for value in values if _fits(job, axis, value)), None)


def _last_that_fits(job: Job, axis: Axis, values: Sequence[Any]) -> Any:
    """By doubling from the job's own value, then by halving the gap, so that huge ones are never tried."""
    low, high = -1, max(0, bisect_right(values, axis.own(job)) - 1)
    if high < len(values) and _fits(job, axis, values[high]):
        low, step = high, high + 1
        while low + step < len(values) and _fits(job, axis, values[low + step]):
            low, step = low + step, 2 * step
        high = min(low + step, len(values))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(job, axis, values[middle]) else (low, middle)
    return values[low] if low >= 0 else None
