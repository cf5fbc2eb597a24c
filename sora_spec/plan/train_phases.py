"""The phases of a training step as `sora-spec train` runs it: encode, forward and backward, optimiser, sample grid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sora_spec.plan.interval import Interval
from sora_spec.plan.job import Job, with_clip
from sora_spec.plan.overhead import attention_workspace, conv_workspace, matrix_workspace
from sora_spec.plan.resident import (
    dotted,
    gathered_terms,
    gradient_bytes,
    label,
    shard_bytes,
    training_terms,
)
from sora_spec.plan.terms import Phase, Term, documented, estimated, exact, some
from sora_spec.plan.workload import Peak, Workload

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec

SHOWN = 8
"""Clips of a sample grid."""


def train_phases(job: Job) -> list[Phase]:
    """Phases of a step, without what the allocator and the driver add."""
    return _vae_phases(job) if job.stage == "vae" else _denoiser_phases(job)


def step_work(job: Job) -> Workload:
    """Forward and backward of what is trained, for what one rank holds of it."""
    clips = job.micro_batch * job.spec.parallel.sequence
    if job.stage == "vae":
        return _vae_job(job).work("vae_step", clips)
    return job.work("denoiser_step", clips)


def _vae_job(job: Job) -> Job:
    return replace(job, spec=crop_spec(job.spec))


def crop_spec(spec: Spec) -> Spec:
    """The spec with the codec's training crop as its clip."""
    training = spec.vae.training  # pyright: ignore[reportAttributeAccessIssue]
    frames, crop = training.frames or spec.clip.frames, training.crop
    return with_clip(spec, frames=frames, height=crop or spec.clip.height, width=crop or spec.clip.width)


def _denoiser_phases(job: Job) -> list[Phase]:
    work = step_work(job)
    always = [*training_terms(job, work), *codec_terms(job), *matrix_workspace(job.device)]
    gradients = gradient_bytes(job, work)
    kept = [exact("gradients of earlier passes", gradients, "train.accumulation")] if job.accumulation > 1 else []
    phases = [Phase("encode", some([*always, *kept, *encode_terms(job)]))] if job.has_codec else []
    phases.append(Phase("forward and backward", some([*always, *_step_terms(job, work)])))
    phases.append(_optimizer_phase(job, work, always))
    if job.spec.train.sample_every is not None:
        phases += _sample_phases(job, work, always, gradients)
    return phases


def _vae_phases(job: Job) -> list[Phase]:
    work = step_work(job)
    always = [*training_terms(job, work), *matrix_workspace(job.device)]
    terms = [*always, *_step_terms(job, work), *conv_workspace(work.peak.activation_bytes)]
    return [Phase("forward and backward", some(terms)), _optimizer_phase(job, work, always)]


def codec_terms(job: Job) -> list[Term]:
    """The frozen codec, whole and in fp32, on every rank."""
    if not job.has_codec:
        return []
    work = job.work("vae_encode", 1, "fp32")
    return [exact("codec weights, frozen", work.parameter_bytes + work.buffer_bytes, "vae")]


def encode_terms(job: Job) -> list[Term]:
    """Encoding one micro-batch without gradients."""
    peak = job.work("vae_encode", job.micro_batch, "fp32").peak
    return [
        exact("video", peak.input_bytes, "clip"),
        *activation_terms(peak, "codec activations"),
        *conv_workspace(peak.activation_bytes),
    ]


def activation_terms(peak: Peak, what: str, shared_by: int = 1) -> list[Term]:
    """Activations by the YAML value that makes them; an even share of them where ranks split the tokens."""
    if shared_by == 1:
        return [exact(f"{what}: {label(dotted(path))}", nbytes, dotted(path)) for path, nbytes in peak.by_path]
    return [
        documented(f"{what}: {label(dotted(path))}, 1/{shared_by}", nbytes / shared_by, dotted(path))
        for path, nbytes in peak.by_path
    ]


def _step_terms(job: Job, work: Workload) -> list[Term]:
    """Gradients and activations at the highest moment."""
    sequence, whole = job.spec.parallel.sequence, gradient_bytes(job, work)
    ratio = whole / work.gradient_bytes
    peak = work.peak_with(ratio if job.accumulation == 1 else 0.0 if job.sharded else 1.0)
    terms = [exact("inputs", peak.input_bytes, "clip"), *activation_terms(peak, "activations", sequence)]
    if job.accumulation > 1:
        terms.append(exact("gradients", whole, "train.accumulation"))
        if not job.sharded:
            terms.append(exact("gradients being added", peak.gradient_bytes, "train.accumulation"))
    elif job.sharded:
        terms.append(documented("gradients", Interval(*[ratio * peak.gradient_bytes] * 3), "train.optimizer"))
    else:
        terms.append(exact("gradients", peak.gradient_bytes, "train.optimizer"))
    terms += gathered_terms(job, work, backward=True)
    if job.stage == "denoiser":
        terms += attention_workspace(job.spec, job.micro_batch, job.device, job.kernel("denoiser_step"))
    if sequence > 1:
        block = max((nbytes for _, nbytes in peak.by_path), default=0) / sequence
        terms.append(estimated("all-to-all buffers", 0, 0.02 * block, 0.1 * block, "parallel.sequence"))
    return terms


def _optimizer_phase(job: Job, work: Workload, always: list[Term]) -> Phase:
    """AdamW: foreach on CUDA holds the denominators of all parameters at once, the CPU's loop two of the largest."""
    part = gradient_bytes(job, work)
    path = "vae.training.optimizer" if job.stage == "vae" else "train.optimizer"
    if job.device.kind == "cuda":
        temporary = part
    else:
        temporary = 2 * max(w.resident.numel * 4 for w in work.weights if w.resident.role == "parameter")
    root = gathered_terms(job, work, backward=False)[:1]
    terms = [exact("gradients", part, path), documented("AdamW temporaries", temporary, path), *root]
    return Phase("optimizer", some([*always, *terms]))


def _sample_phases(job: Job, work: Workload, always: list[Term], gradients: int) -> list[Phase]:
    """The sample grid: the averaged weights take the place of the trained ones, which are set aside."""
    path, shard = "train.sample_every", job.spec.parallel.shard
    aside = sum(shard_bytes(work, shard).values()) if job.spec.train.ema > 0 else 0
    shared = [
        *always,
        exact("gradients of the last step", gradients, path),
        exact("weights set aside", aside, path),
    ]
    network = job.work("denoiser", SHOWN * (2 if job.guided else 1)).peak
    sampling = [*shared, *activation_terms(network, "activations"), *gathered_terms(job, work, backward=False)]
    phases = [Phase("sample grid: denoise", some([*sampling, exact("inputs", network.input_bytes, path)]))]
    if job.has_codec:
        decoded = job.work("vae_decode", SHOWN, "fp32").peak
        terms = [*activation_terms(decoded, "codec activations"), *conv_workspace(decoded.activation_bytes)]
        phases.append(Phase("sample grid: decode", some([*shared, *terms])))
    return phases
