"""Another job than the one that was asked about: its plan, and what turns the one into the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sora_spec.language.changes import overrides_between
from sora_spec.plan.axes.axis import SAID_BY
from sora_spec.plan.layout import LAYOUT, SIDES, laid_out
from sora_spec.plan.planner import Plan

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.plan.job import Job


@dataclass(frozen=True)
class Advised:
    """What fits, what is fastest or what is largest."""

    plan: Plan
    overrides: tuple[str, ...]
    """`key=value` arguments that make it."""
    options: tuple[str, ...]
    """Options of the command that make the rest of it, such as `--count 4`."""
    words: tuple[str, ...] = ()
    """What changes, or the value that was sought."""
    was: str = ""
    """The job's own value, where the search for another began."""


@dataclass(frozen=True)
class Advice:
    """What takes longer than the plan: changes that make it fit, or how much more fits and what is faster."""

    fixes: tuple[Advised, ...] = ()
    largest: Advised | None = None
    fastest: Advised | None = None


NO_ADVICE = Advice()


def advised(job: Job, original: Spec | None, plan: Plan, words: tuple[str, ...] = (), was: str = "") -> Advised:
    """What was found for a job. Overrides start from `original`."""
    return Advised(plan, _overrides(original or job.spec, plan.job), _options(job, plan.job), words, was)


def _overrides(original: Spec, job: Job) -> tuple[str, ...]:
    """`key=value` arguments with which `original` makes this job.

    The ranks of a VAE's training are left to `--count` where that makes the same of them: typed as `parallel`, they
    would be held against the denoiser's batch.
    """
    found, sides = overrides_between(original, job.spec), {side: getattr(job.spec.parallel, side) for side in SIDES}
    if job.stage == "vae" and laid_out(original.parallel, job.count, job.typed) == sides:
        found = [text for text in found if text.partition("=")[0] not in LAYOUT]
    return tuple(found)


def _options(before: Job, after: Job) -> tuple[str, ...]:
    """Options of the command that turn one job into the other, beside what the specs say."""
    found = {"count": after.count} if after.count != before.count else {}
    found |= {"batch": after.batch} if after.batch != before.batch else {}
    said = {name: SAID_BY[name] for name in found if SAID_BY.get(name) in before.typed}
    return tuple(f"{said[name]}={value}" if name in said else f"--{name} {value}" for name, value in found.items())
