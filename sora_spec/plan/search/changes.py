"""What turns one job into another: `key=value` arguments and options of the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.language.changes import overrides_between
from sora_spec.plan.job import Job
from sora_spec.plan.layout import LAYOUT, SIDES, laid_out

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def overrides_for(original: Spec, job: Job) -> tuple[str, ...]:
    """`key=value` arguments with which `original` makes this job.

    The ranks of a VAE's training are left to `--count` where that makes the same of them: typed as `parallel`, they
    would be held against the denoiser's batch.
    """
    found = overrides_between(original, job.spec)
    if job.stage == "vae" and laid_out(original.parallel, job.count, job.typed) == _layout(job.spec):
        found = [text for text in found if text.partition("=")[0] not in LAYOUT]
    return tuple(found)


def _layout(spec: Spec) -> dict[str, int]:
    return {side: getattr(spec.parallel, side) for side in SIDES}


def options_between(before: Job, after: Job) -> tuple[str, ...]:
    """Options of the command that turn one job into the other, beside what the specs say."""
    name = "hardware.count=" if "hardware.count" in before.typed else "--count "
    count = [f"{name}{after.count}"] if after.count != before.count else []
    return (*count, *([f"--batch {after.batch}"] if after.batch != before.batch else []))
