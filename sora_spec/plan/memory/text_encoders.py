"""The frozen text encoder of a spec: one forward pass of the prompts without gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.plan.job import Job
from sora_spec.plan.memory.workload import Workload

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def unknown_encoder(spec: Spec) -> str | None:
    """Why a text condition's encoder cannot be counted; None where it can, or where there is none."""
    condition = spec.condition
    if condition.kind != "text":
        return None
    from sora_spec.graph.lower.encoder_configs import find_config  # most specs have no text encoder

    if find_config(condition.encoder) is not None:
        return None
    return f"neither a folder with a config.json nor a released encoder that is known here: {condition.encoder}"


def encoder_work(job: Job, prompts: int) -> Workload | None:
    """So many prompts through the encoder; None without one, and for one that is not known.

    Raises UserError: the encoder's folder is damaged, or it takes fewer tokens than the spec asks for.
    """
    condition = job.spec.condition
    if condition.kind != "text" or unknown_encoder(job.spec) is not None:
        return None
    return job.work("text_encode", prompts, condition.precision)
