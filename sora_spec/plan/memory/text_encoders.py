"""The frozen text encoder of a spec: one prompt after another in a forward pass without gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.plan.job import Job
from sora_spec.plan.memory.resident import dotted
from sora_spec.plan.memory.terms import Term, hold
from sora_spec.plan.memory.workload import Workload

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def unknown_encoder(spec: Spec) -> str | None:
    """Why a text condition's encoder cannot be counted; None where it can, or where there is none."""
    condition = spec.condition
    if condition.kind != "text":
        return None
    from sora_spec.language.text_encoders import find_config  # most specs have no text encoder

    if find_config(condition.encoder) is not None:
        return None
    return f"neither a folder with a config.json nor a released encoder that is known here: {condition.encoder}"


def encoder_work(job: Job) -> Workload | None:
    """A prompt through the encoder; None without one, and for one that is not known. Prompts are encoded one by one.

    Raises UserError: the encoder's folder is damaged, or it takes fewer tokens than the spec asks for.
    """
    condition = job.spec.condition
    if condition.kind != "text" or unknown_encoder(job.spec) is not None:
        return None
    return job.work("text_encode", 1, condition.precision)


def encoder_terms(job: Job) -> list[Term]:
    """The encoder's weights on the device, for as long as the job runs."""
    work, condition = encoder_work(job), job.spec.condition
    if work is None or condition.kind != "text":
        return []
    nbytes = work.parameter_bytes + work.buffer_bytes
    return [hold("text encoder", "weights", nbytes, precision=condition.precision)]


def encoding_terms(job: Job) -> list[Term]:
    """What encoding a prompt takes beside the weights."""
    work = encoder_work(job)
    if work is None:
        return []
    activations = [hold("text encoder", "activations", nbytes, dotted(path)) for path, nbytes in work.peak.by_path]
    return [hold("denoiser", "prompts", work.peak.input_bytes), *activations]
